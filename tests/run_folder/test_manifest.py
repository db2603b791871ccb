"""The run folder's contract: manifests, atomic writes, claims."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import time

import pytest

from trace_bench.run_folder import manifest as contract
from trace_bench.run_folder.manifest import (
    Manifest,
    ManifestError,
    RunIdentity,
    differing_files,
    is_done,
    read_manifest,
    write_manifest,
)
from trace_bench.run_folder.states import CLAIM
from trace_bench.runs.claim import BusyError, claim
from trace_bench.runs.environment import describe_environment
from trace_bench.system.files import write_atomic, write_json

RUN = RunIdentity("sds", "image", "random", "tiny", "toy", "toy", "0", "a red cube", 7.5, 0, 300, 1, 64)
FORK = multiprocessing.get_context("fork")


def manifest(**more):
    return Manifest("running", "f" * 64, RUN, **more)


def test_round_trip(tmp_path):
    written = manifest(
        seconds={"total": 1.5}, files=["asset.ply"], views=3, prior={"sha256": "0"}, attempts=2
    )
    write_manifest(tmp_path, written)
    assert read_manifest(tmp_path) == written


def test_the_names_that_others_read(tmp_path):
    """evaluation/ and users' scripts rely on these keys; keys may only be added."""
    write_manifest(tmp_path, manifest())
    data = json.loads((tmp_path / "manifest.json").read_text())
    assert data["schema_version"] == 1
    assert {"status", "fingerprint", "run", "seconds", "cost", "prior", "environment", "files"} <= set(data)
    assert set(data["seconds"]) == {"load", "init", "distill", "render", "total"}
    networks = {"unet_fwd", "unet_bwd", "vae_enc_fwd", "vae_enc_bwd", "vae_dec", "reward"}
    assert networks | {"tflop"} == set(data["cost"])
    assert {"method", "prompt_set", "prompt_id", "prompt", "guidance_scale", "seed"} <= set(data["run"])


def test_minutes_are_those_of_the_asset_alone():
    """What a process pays once is apart; a total from before counts neither way."""
    found = manifest(seconds={"load": 90.0, "init": 6.0, "distill": 27.0, "render": 3.0, "total": 130.0})
    assert (found.minutes, found.minutes_of_loading) == (0.6, 1.5)
    assert manifest(declared={"minutes": 2.0}).minutes == 2.0
    assert manifest(seconds={"total": 1.0}).minutes is manifest(seconds={}).minutes_of_loading is None


def test_none_where_there_is_none(tmp_path):
    assert read_manifest(tmp_path) is None
    assert read_manifest(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"schema_version": 1}', "\x00" * 64],
    ids=["empty", "cut", "list", "null", "keys", "zeros"],
)
def test_a_damaged_manifest_is_named(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ManifestError, match=r"manifest\.json cannot be read"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(("key", "value"), [("schema_version", 2), ("status", "finished")])
def test_a_manifest_of_another_version_is_refused(tmp_path, key, value):
    data = json.loads(manifest().to_json()) | {key: value}
    (tmp_path / "manifest.json").write_text(json.dumps(data))
    with pytest.raises(ManifestError, match=r"is not a manifest|is newer than 1"):
        read_manifest(tmp_path)


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "manifest.json").write_bytes(b"\xff\xfe\x80{")
    with pytest.raises(ManifestError, match="not text"):
        read_manifest(tmp_path)


def test_keys_of_a_later_version_are_left_out(tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps(json.loads(manifest().to_json()) | {"new": 1}))
    assert read_manifest(tmp_path) == manifest()


def test_done_needs_every_file(tmp_path):
    (tmp_path / "renders").mkdir()
    names = [f"renders/{kind}_{i}.png" for kind in ("rgb", "normal") for i in range(2)]
    for name in ["asset.ply", *names]:
        (tmp_path / name).write_text("x")
    done = manifest(files=["asset.ply"], views=2)
    assert not is_done(tmp_path, done)  # it does not say so
    done.status = "done"
    assert is_done(tmp_path, done)
    (tmp_path / "asset.ply").write_text("")
    assert differing_files(tmp_path, done) == {"asset.ply": "empty"}
    (tmp_path / "asset.ply").write_text("x")
    (tmp_path / "renders/normal_1.png").unlink()
    assert differing_files(tmp_path, done) == {"renders/normal_1.png": "missing"}
    assert not is_done(tmp_path, done)
    assert not is_done(tmp_path, None)
    assert not is_done(tmp_path / "elsewhere", done)


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_write_that_dies_leaves_the_old_file(tmp_path, monkeypatch, moment):
    path = tmp_path / "file.json"
    write_atomic(path, "old")

    def die(*args, **kwargs):
        raise OSError(28, "No space left on device")

    target = contract.os if moment == "fsync" else type(path)
    monkeypatch.setattr(target, moment, die)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_json_refuses_nan(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert not (tmp_path / "x.json").exists()


def test_environment_says_what_ran():
    found = describe_environment("cpu")
    assert found["packages"]["torch"]
    assert found["device"] == "cpu"
    assert found["gpu"] is None
    assert set(found) >= {"python", "commit", "dirty", "diff_sha256", "platform", "cpu", "host", "slurm"}


# --- claims ----------------------------------------------------------------------------------------------


def test_a_claim_is_exclusive_and_names_its_holder(tmp_path):
    with claim(tmp_path), pytest.raises(BusyError) as busy, claim(tmp_path):
        pytest.fail("claimed twice")
    assert re.search(rf"^pid {os.getpid()} on host .* is working on ", str(busy.value))
    assert not (tmp_path / CLAIM).exists()
    with claim(tmp_path):
        pass


def test_a_claim_is_released_by_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), claim(tmp_path):
        _ = 1 / 0
    with claim(tmp_path):
        pass


def _hold(folder, ready):
    with claim(folder):
        ready.set()
        time.sleep(60)


def test_a_claim_dies_with_its_process(tmp_path):
    ready = FORK.Event()
    holder = FORK.Process(target=_hold, args=(tmp_path, ready))
    holder.start()
    try:
        assert ready.wait(10)
        with pytest.raises(BusyError, match=f"pid {holder.pid}"), claim(tmp_path):
            pass
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.join(10)
    assert (tmp_path / CLAIM).exists()  # the file survives a SIGKILL, the lock does not
    with claim(tmp_path):
        pass


def _race(folder, rounds, start, log):
    start.wait()
    for _ in range(rounds):
        try:
            with claim(folder):
                # A second process inside would fail here: O_EXCL creates the file once.
                descriptor = os.open(folder / "inside", os.O_CREAT | os.O_EXCL)
                os.close(descriptor)
                os.write(log, b"in\n")
                (folder / "inside").unlink()
        except BusyError:
            os.write(log, b"busy\n")
        except FileExistsError:
            os.write(log, b"BOTH\n")


def test_eight_processes_race_for_one_claim(tmp_path):
    log = os.open(tmp_path / "log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    start = FORK.Event()
    racers = [FORK.Process(target=_race, args=(tmp_path, 200, start, log)) for _ in range(8)]
    for racer in racers:
        racer.start()
    start.set()
    for racer in racers:
        racer.join(30)
        assert racer.exitcode == 0
    lines = (tmp_path / "log").read_text().split()
    assert len(lines) == 8 * 200
    assert "BOTH" not in lines
    assert "in" in lines
    assert "busy" in lines
