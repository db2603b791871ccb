"""Runs from the command to the finished folder: skip, redo, fail, resume, and crash at every write."""

from __future__ import annotations

import dataclasses
import errno
import functools
import json
import logging
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from trace_bench import run, sweep
from trace_bench.checkpoint import CHECKPOINT, load_checkpoint, save_checkpoint
from trace_bench.claim import CLAIM, claim
from trace_bench.errors import TraceBenchError
from trace_bench.identity import RunSpec
from trace_bench.manifest import is_done, read_manifest
from trace_bench.planning import make_plan
from trace_bench.run import make_asset
from trace_bench.sweep import EXIT_FAILED, EXIT_MISTAKE, EXIT_UNFINISHED, main

CONF = str(Path(__file__).parent / "conf")
STEPS = 12
QUICK = [
    "prior=analytic",
    "representation=image",
    "method=sds",
    f"steps={STEPS}",
    "guidance_scale=5",
    "log_every=3",
    "checkpoint.every_steps=4",
]


RUN_LEVEL_KEYS = [
    "method", "representation", "prior", "init", "prompt_set", "prompt", "guidance_scale", "seed", "steps",
    "resolution", "views_per_step", "output_root", "force", "prompts_per_job", "on_error", "device",
]  # fmt: skip
SMALL_3D = [
    "representation=gaussians",
    "resolution=8",
    "rig.resolution=16",
    "init.n=200",
]


@pytest.fixture(autouse=True)
def _leave_the_process_alone(monkeypatch):
    """Hydra takes over the root logger and the command line."""
    monkeypatch.setattr(sys, "argv", ["trace_bench"])
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def command(out):
    """Run the command in this process: command("-m", "method=sds,vsd") -> exit code."""

    def run_it(*argv):
        return main(["--config-dir", CONF, *QUICK, f"output_root={out}", *argv])

    return run_it


@functools.cache
def planned(*overrides) -> RunSpec:
    (found,) = make_plan([*QUICK, *overrides], multirun=False, config_dir=CONF)
    return found


def spec(out, *overrides) -> RunSpec:
    found = planned(*overrides)
    return RunSpec(dataclasses.replace(found.job, output_root=str(out)), found.prompt, found.prompt_set)


def folders(out):
    return sorted(path.parent for path in out.glob("runs/*/*/*/*/*/manifest.json"))


def statuses(out):
    return [read_manifest(folder).status for folder in folders(out)]


def asset(folder):
    """The tensors of the asset, by name, as bytes: safetensors writes its notes in any order."""
    return {
        name: tensor.numpy().tobytes() for name, tensor in load_file(folder / "asset.safetensors").items()
    }


def stop_at(step):
    """A should_stop that says yes before the given 0-based step of a run that starts at 0."""
    asked = iter(range(10**9))
    return lambda: next(asked) >= step


# --- one run ---------------------------------------------------------------------------------------------


def test_one_asset(command, out, capsys):
    assert command() == 0
    (folder,) = folders(out)
    assert folder.parts[-5:-1] == ("sds", "image", "toy", "0-a-red-cube")
    manifest = read_manifest(folder)
    assert is_done(folder, manifest)
    assert manifest.run.prompt == "a red cube"
    assert manifest.cost["unet_fwd"] == 2 * STEPS
    assert manifest.attempts == 1
    assert manifest.n_primitives == 64
    assert manifest.seconds["total"] >= manifest.seconds["distill"] > 0
    assert manifest.prompt_source == {"file": "config", "sha256": None, "count": 8}
    assert {path.name for path in folder.iterdir()} == {
        "manifest.json", "config.yaml", "metrics.jsonl", "log.txt", "asset.safetensors", "asset.png",
        "preview.png", "renders",
    }  # fmt: skip
    assert str(folder) in capsys.readouterr().out


def test_the_config_in_the_folder_is_what_ran(command, out):
    command("seed=5")
    cfg = OmegaConf.load(folders(out)[0] / "config.yaml")
    assert (cfg.seed, cfg.prompt, cfg.choices.method, cfg.guidance_scale) == (5, "a red cube", "sds", 5)


def test_metrics_have_a_row_an_interval(command, out):
    command()
    rows = [json.loads(line) for line in (folders(out)[0] / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 5, 8, 11]
    assert all(row["grad_rms"] > 0 and row["steps_per_s"] > 0 for row in rows)


def test_nothing_is_written_outside_the_output_root(command, out, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command("-m", "prompt=0,1")
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    assert {path.name for path in out.iterdir()} == {"runs", "hydra", "sweeps"}


def test_3d_asset_with_its_film(out):
    """Gaussians through the whole run, small."""
    made = make_asset(
        spec(out, "representation=gaussians", "resolution=8", "rig.n_views=9", "rig.resolution=16")
    )
    assert made.status == "done", made.message
    names = {path.name for path in made.folder.iterdir()}
    assert {"asset.ply", "asset.safetensors", "turntable.mp4", "preview.png", "renders"} <= names
    assert len(list((made.folder / "renders").glob("rgb_*.png"))) == read_manifest(made.folder).views == 9


# --- skipping and redoing --------------------------------------------------------------------------------


def stamp(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_finished_run_is_not_touched_again(command, out, capsys):
    command()
    (folder,) = folders(out)
    before = stamp(folder)
    assert command() == 0
    assert "(made before)" in capsys.readouterr().out
    assert make_asset(spec(out)).status == "skipped"
    assert stamp(folder) == before


def test_a_finished_sweep_starts_no_job(command, out, monkeypatch):
    command("-m", "prompt=0,1")

    def never(*_):
        pytest.fail("a job was started")

    monkeypatch.setattr(sweep, "_hand_over", never)
    assert command("-m", "prompt=0,1") == 0


def test_force_makes_it_again(command, out):
    command()
    (folder,) = folders(out)
    (folder / "scores").mkdir()
    (folder / "scores" / "clip.json").write_text("{}")
    first = asset(folder), (folder / "manifest.json").stat().st_mtime_ns
    assert command("force=true") == 0
    assert asset(folder) == first[0]
    assert (folder / "manifest.json").stat().st_mtime_ns > first[1]
    assert not (folder / "scores").exists()  # scores of an asset that is gone


def test_a_done_run_with_a_missing_file_is_made_again(command, out):
    command()
    (folder,) = folders(out)
    first = asset(folder)
    (folder / "asset.safetensors").unlink()
    assert command() == 0
    assert asset(folder) == first


# --- failing ---------------------------------------------------------------------------------------------


def test_a_failing_run_is_recorded_and_stops_no_other(command, out, capsys):
    assert command("-m", "prompt=0,1,2", "prior.bad_prompt=a blue torus") == EXIT_FAILED
    assert sorted(statuses(out)) == ["done", "done", "failed"]
    (failed,) = (folder for folder in folders(out) if read_manifest(folder).status == "failed")
    record = json.loads((failed / "error.json").read_text())
    assert record["type"] == "NonFiniteError"
    assert record["step"] == 0
    assert "non-finite at step 0" in record["message"]
    assert any("distill.py" in line for line in record["traceback"])
    assert "Failed" in (failed / "log.txt").read_text()
    said = capsys.readouterr().err
    assert str(failed) in said
    assert "Traceback" not in said


def test_several_prompts_in_a_job_go_on_after_a_failure_too(command, out):
    assert command("prompt=0-2", "prior.bad_prompt=a blue torus") == EXIT_FAILED
    assert sorted(statuses(out)) == ["done", "done", "failed"]


def test_on_error_stop_ends_the_sweep(command, out, capsys):
    code = command("-m", "prompt=0,1,2", "prior.bad_prompt=a red cube", "on_error=stop")
    assert code == EXIT_FAILED
    assert statuses(out) == ["failed"]
    said = capsys.readouterr().err
    assert said.count("Not finished:") == 2


def test_a_failed_run_is_tried_again_and_its_error_goes(command, out, monkeypatch):
    def trip(*args, **kwargs):
        raise RuntimeError("the disk hiccuped")

    monkeypatch.setattr(run, "write_renders", trip)
    assert command() == EXIT_FAILED
    (folder,) = folders(out)
    assert json.loads((folder / "error.json").read_text())["message"] == "the disk hiccuped"
    assert (folder / CHECKPOINT).exists()
    monkeypatch.undo()
    assert make_asset(spec(out)).status == "done"
    assert not (folder / "error.json").exists()
    assert not (folder / CHECKPOINT).exists()
    assert read_manifest(folder).attempts == 2


def test_a_prompt_that_the_prior_refuses_is_a_failure_with_its_words(command, out, capsys):
    assert command("prompt=a purple whale") == EXIT_FAILED
    assert "no distribution named 'a purple whale'" in capsys.readouterr().err


def test_a_prior_that_cannot_be_loaded_is_tried_once(command, out, capsys):
    code = command("-m", "prompt=0-1,2", "prior._target_=analytic_prior.broken")
    assert code == EXIT_FAILED
    assert statuses(out) == ["failed"] * 3
    import analytic_prior

    assert analytic_prior.broken_calls == 1


def test_mistakes_are_refused_before_anything_is_loaded(command, out, monkeypatch, capsys):
    def never(*_):
        pytest.fail("a job was started")

    monkeypatch.setattr(sweep, "_hand_over", never)
    assert command("steps=0") == EXIT_MISTAKE
    assert command("-m", "method=sds,sdd") == EXIT_MISTAKE
    assert command("+method.min_step_percnt=0.1") == EXIT_MISTAKE
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3
    assert all(line.startswith("trace_bench: ") for line in said)
    assert not out.exists()


def test_a_mistake_in_cfg_is_a_sentence_too(command, capsys):
    assert command("--cfg", "job", "sead=1") == EXIT_MISTAKE
    assert "did you mean seed?" in capsys.readouterr().err


def test_an_output_root_that_cannot_be_written(out, tmp_path):
    (tmp_path / "file").write_text("")
    made = make_asset(spec(tmp_path / "file"))
    assert made.status == "failed"
    assert "NotADirectoryError" in made.message


def test_a_full_disk_fails_the_run_with_a_clear_message_and_keeps_what_is_finished(out, monkeypatch):
    done = make_asset(spec(out, "prompt=1")).folder
    original = os.fsync

    def full(descriptor):
        if ".manifest" not in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    made = make_asset(spec(out))
    assert made.status == "failed"
    assert "No space left on device" in made.message
    monkeypatch.undo()
    assert is_done(done, read_manifest(done))
    assert make_asset(spec(out)).status == "done"


# --- two at once -----------------------------------------------------------------------------------------


def test_a_run_that_another_process_works_on_is_left_to_it(command, out, capsys):
    wanted = spec(out)
    wanted.folder.mkdir(parents=True)
    with claim(wanted.folder):
        assert command("-m", "prompt=0,1") == EXIT_UNFINISHED
    said = capsys.readouterr().err
    assert f"is being worked on by pid {os.getpid()}" in said
    assert statuses(out) == ["done"]  # the other one
    assert command("-m", "prompt=0,1") == 0


# --- resuming --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Assets of uninterrupted runs, by method and representation."""
    made = {}

    def of(*overrides):
        if overrides not in made:
            outcome = make_asset(spec(tmp_path_factory.mktemp("whole"), *overrides))
            assert outcome.status == "done", outcome.message
            made[overrides] = outcome.folder
        return made[overrides]

    return of


@pytest.mark.parametrize(
    ("method", "step"), [("sds", 0), ("sds", 5), ("vsd", 1), ("vsd", 11), ("trace", 5), ("trace", 11)]
)
def test_a_stopped_run_goes_on_bit_for_bit(out, whole, method, step):
    overrides = (f"method={method}",)
    first = make_asset(spec(out, *overrides), stop_at(step))
    assert first.status == "preempted"
    assert read_manifest(first.folder).status == "preempted"
    assert load_checkpoint(first.folder, spec(out, *overrides).fingerprint).step == step
    second = make_asset(spec(out, *overrides))
    assert second.status == "done"
    assert asset(second.folder) == asset(whole(*overrides))
    resumed, uninterrupted = read_manifest(second.folder), read_manifest(whole(*overrides))
    assert resumed.cost == uninterrupted.cost
    assert resumed.attempts == 2
    assert rows(second.folder) == rows(whole(*overrides))


def rows(folder):
    """metrics.jsonl without the times."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in ("seconds", "steps_per_s")} for row in found]


def test_gaussians_go_on_bit_for_bit(out, whole):
    overrides = (*SMALL_3D, "rig.n_views=2")
    assert make_asset(spec(out, *overrides), stop_at(7)).status == "preempted"
    second = make_asset(spec(out, *overrides))
    assert asset(second.folder) == asset(whole(*overrides))


def test_stopped_many_times(out, whole):
    for step in (2, 3, 1, 4):
        assert make_asset(spec(out), stop_at(step)).status == "preempted"
    made = make_asset(spec(out))
    assert asset(made.folder) == asset(whole())
    assert read_manifest(made.folder).attempts == 5
    assert rows(made.folder) == rows(whole())


def test_an_interrupted_run_goes_on_even_with_force(out):
    """A requeued job has force=true in its command still, and must not start over."""
    made = make_asset(spec(out, "force=true"), stop_at(6))
    make_asset(spec(out, "force=true"))
    assert "Going on at step 6" in (made.folder / "log.txt").read_text()


def damage_flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


DAMAGE = {
    "flipped bit": damage_flip,
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "empty": lambda path: path.write_bytes(b""),
    "another's": lambda path: path.write_bytes(b"PK\x03\x04 not ours"),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_checkpoint_starts_the_run_over_and_says_so(out, whole, how):
    first = make_asset(spec(out), stop_at(6))
    DAMAGE[how](first.folder / CHECKPOINT)
    made = make_asset(spec(out))
    assert made.status == "done"
    assert asset(made.folder) == asset(whole())
    assert rows(made.folder) == rows(whole())
    assert "is damaged" in (made.folder / "log.txt").read_text()


def test_a_checkpoint_that_does_not_fit_starts_the_run_over_and_says_so(out, whole):
    """The code may have changed what a state holds."""
    first = make_asset(spec(out), stop_at(6))
    found = load_checkpoint(first.folder, spec(out).fingerprint)
    save_checkpoint(first.folder, dataclasses.replace(found, representation={"pixels": torch.zeros(3)}))
    made = make_asset(spec(out))
    assert made.status == "done"
    assert asset(made.folder) == asset(whole())
    assert "does not fit this version (KeyError" in (made.folder / "log.txt").read_text()


def test_a_damaged_manifest_starts_the_run_over_and_touches_no_other(command, out, capsys):
    command("-m", "prompt=0,1")
    first, second = folders(out)
    before = stamp(second)
    (first / "manifest.json").write_text('{"schema_version": 1, "sta')
    assert command("-m", "prompt=0,1") == 0
    assert is_done(first, read_manifest(first))
    assert stamp(second) == before
    assert "manifest.json cannot be read" in capsys.readouterr().out


def test_a_checkpoint_never_holds_what_is_not_finite(out, monkeypatch):
    """An optimiser may overflow after the last look at the values."""
    from trace_bench.representations.image import Image

    original = Image.post_backward

    def overflow(self, render, progress, grad_rms):
        original(self, render, progress, grad_rms)
        if progress.k == 7:
            with torch.no_grad():
                self.canvas[0, 0, 0] = torch.inf

    monkeypatch.setattr(Image, "post_backward", overflow)
    made = make_asset(spec(out))
    assert made.status == "failed"
    assert "representation.canvas became non-finite at step 7" in made.message
    assert load_checkpoint(made.folder, spec(out).fingerprint).step == 4
    monkeypatch.undo()
    assert make_asset(spec(out)).status == "done"


class Crash(BaseException):
    """The process is gone: nothing that handles exceptions handles this."""


def crash_points(out, monkeypatch, limit=None):
    """Count the moments at which a run's end changes the disk; crash at the `limit`-th."""
    count = 0

    def guard(owner, name):
        original = getattr(owner, name)

        def wrapped(*args, **kwargs):
            nonlocal count
            count += 1
            if limit is not None and count > limit:
                raise Crash
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, wrapped)

    for name in ("replace", "unlink", "mkdir", "rmdir"):
        guard(Path, name)
    guard(os, "fsync")
    guard(shutil, "rmtree")
    from PIL import Image as Picture

    guard(Picture.Image, "save")
    return lambda: count


def test_done_never_stands_beside_a_missing_file(tmp_path, monkeypatch, whole):
    """Crash before every write of a run: the folder is whole or not done, and the next run finishes it."""
    start = tmp_path / "start"
    make_asset(spec(start), stop_at(STEPS - 1))
    with monkeypatch.context() as patch:
        shutil.copytree(start, tmp_path / "dry")
        counted = crash_points(tmp_path, patch)
        assert make_asset(spec(tmp_path / "dry")).status == "done"
        points = counted()
    assert points > 20
    for limit in range(points):
        out = tmp_path / f"crash{limit}"
        shutil.copytree(start, out)
        with monkeypatch.context() as patch:
            crash_points(out, patch, limit)
            with pytest.raises(Crash):
                make_asset(spec(out))
        folder = spec(out).folder
        manifest = read_manifest(folder)
        assert manifest.status != "done" or is_done(folder, manifest), limit
        assert make_asset(spec(out)).status in ("done", "skipped"), limit
        assert asset(folder) == asset(whole())
        left = {path.name for path in folder.iterdir()} - {path.name for path in whole().iterdir()}
        assert left <= {CLAIM, CHECKPOINT}, limit
        shutil.rmtree(out)


def test_command_line_help_names_every_run_level_key(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    said = capsys.readouterr().out
    for key in RUN_LEVEL_KEYS:
        assert f"\n    {key} " in said or f"\n  {key} " in said, key
    assert "sds" in said
    assert "gpteval3d" in said


def test_an_error_of_the_users_is_not_shown_with_a_traceback():
    assert run.sentence(TraceBenchError("Do this.")) == "Do this."
    assert run.sentence(ValueError("a\n  b")) == "ValueError: a b"
