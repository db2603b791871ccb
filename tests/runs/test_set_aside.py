"""What a run cannot use is kept beside it, never deleted and never accepted."""

from __future__ import annotations

import json

import pytest
from quick_runs import SMALL_3D, asset, folders, spec, stamp

from trace_bench.run_folder import manifest as contract
from trace_bench.run_folder.index import read_index
from trace_bench.run_folder.manifest import MANIFEST, is_done, read_manifest
from trace_bench.run_folder.states import CLAIM
from trace_bench.runs.claim import claim
from trace_bench.runs.open_run import DIFF
from trace_bench.runs.run import make_asset
from trace_bench.sweeps.slurm.submission import status_of
from trace_bench.sweeps.status import main as status
from trace_bench.sweeps.status import verify


@pytest.fixture
def made(out):
    outcome = make_asset(spec(out))
    assert outcome.status == "done", outcome.message
    return outcome.folder


def edit(folder, **changes):
    data = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(data | changes))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


DAMAGE = {
    "another run's fingerprint": lambda folder: edit(folder, fingerprint="0" * 64),
    "not a manifest": lambda folder: (folder / MANIFEST).write_text('{"half'),
    "no files": lambda folder: edit(folder, files=[], views=0),
    "an odd type": lambda folder: edit(folder, seconds=None),
    "an empty picture": lambda folder: (folder / "renders/rgb_0.png").write_bytes(b""),
    "a longer picture": lambda folder: (folder / "renders/rgb_0.png").open("ab").write(b"x"),
    "a missing asset": lambda folder: (folder / "asset.safetensors").unlink(),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_finished_folder_that_is_not_as_recorded_is_kept_and_made_again(out, made, caplog, how):
    good = asset(made)
    DAMAGE[how](made)
    before = contents(made)
    assert status_of(spec(out)) == "missing"
    outcome = make_asset(spec(out))
    assert outcome.status == "done"
    assert asset(made) == good
    aside = made.with_name(f"{made.name}.unreadable-1")
    assert contents(aside) == before
    (said,) = [record.message for record in caplog.records if aside.name in record.message]
    assert said.startswith(str(made))
    assert make_asset(spec(out)).status == "skipped"


def test_what_differs_is_said(out, made, caplog):
    with (made / "preview.png").open("ab") as file:
        file.write(b"xy")
    size = (made / "preview.png").stat().st_size
    make_asset(spec(out))
    assert f"preview.png ({size} bytes instead of {size - 2})" in caplog.text


def test_every_folder_set_aside_has_its_own_name(out, made):
    for n in (1, 2, 3):
        edit(made, fingerprint="0" * 64)
        make_asset(spec(out))
        assert made.with_name(f"{made.name}.unreadable-{n}").is_dir()


def test_a_folder_of_a_newer_version_is_refused_and_not_touched(out, made):
    edit(made, schema_version=2, new_key=[1])
    before = {path: time for path, time in stamp(made).items() if path != made}
    outcome = make_asset(spec(out))
    assert outcome.status == "failed"
    assert "schema_version 2 is newer than 1" in outcome.message
    assert "update trace_bench" in outcome.message
    assert outcome.message.count("\n") == 0
    assert {path: time for path, time in stamp(made).items() if path != made} == before
    assert len(list(made.parent.iterdir())) == 1


def test_readers_move_nothing_and_do_not_list_what_was_set_aside(out, made, capsys):
    edit(made, fingerprint="0" * 64)
    make_asset(spec(out))
    (made / MANIFEST).write_text("[]")
    before = stamp(out)
    index = read_index(out)
    assert index.runs == {}
    assert list(index.unreadable) == [made.relative_to(out).as_posix()]
    assert [name.rpartition(".")[2] for name in index.set_aside] == ["unreadable-1"]
    assert status([f"output_root={out}"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("1 runs under")
    assert "1 folder was set aside" in said
    assert stamp(out) == before


# --- sizes, hashes, and the order of writes ---------------------------------------------------------------


def test_the_manifest_records_every_file(made):
    manifest = read_manifest(made)
    on_disk = {str(path.relative_to(made)) for path in made.rglob("*") if path.is_file()}
    assert set(manifest.contents) == on_disk - {MANIFEST, "log.txt", DIFF}
    for name, record in manifest.contents.items():
        assert record.bytes == (made / name).stat().st_size


def test_verify_names_what_has_changed(out, made, capsys):
    text, is_whole = verify(out)
    assert (is_whole, status([f"output_root={out}", "--verify"])) == (True, 0)
    assert "every file is as recorded" in text
    data = bytearray((made / "renders/rgb_0.png").read_bytes())
    data[-20] ^= 1
    (made / "renders/rgb_0.png").write_bytes(bytes(data))
    assert is_done(made, read_manifest(made))  # the size is the same: only reading it tells
    capsys.readouterr()
    assert status([f"output_root={out}", "--verify"]) == 1
    said = capsys.readouterr().out
    assert "renders/rgb_0.png: its content has changed" in said
    (made / "preview.png").unlink()
    assert "preview.png: missing" in verify(out)[0]


def test_everything_is_on_the_disk_before_done_is(out, monkeypatch):
    """Every file and folder is synced before the manifest that says done is written."""
    events = []
    sync_file, sync_folder, write = contract.sync_file, contract.sync_folder, contract.write_atomic
    monkeypatch.setattr(contract, "sync_file", lambda path: (events.append(path), sync_file(path)))
    monkeypatch.setattr(contract, "sync_folder", lambda path: (events.append(path), sync_folder(path)))
    monkeypatch.setattr(contract, "write_atomic", lambda path, data: (events.append(data), write(path, data)))
    folder = make_asset(spec(out)).folder
    written = [i for i, event in enumerate(events) if isinstance(event, str)]
    assert '"status": "done"' in events[written[-1]]
    assert written[-1] == len(events) - 1
    synced = {event for event in events[written[-2] :] if not isinstance(event, str)}
    names = read_manifest(folder).contents
    assert {folder / name for name in names} | {folder, folder / "renders"} <= synced


def test_a_run_that_cannot_be_synced_is_not_done(out, monkeypatch):
    def fail(path):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(contract, "sync_file", fail)
        outcome = make_asset(spec(out))
    assert outcome.status == "failed"
    assert read_manifest(outcome.folder).status == "failed"
    assert make_asset(spec(out)).status == "done"


@pytest.mark.parametrize("kind", ["image", "gaussians"])
def test_equal_runs_write_equal_bytes(tmp_path, kind):
    overrides = [] if kind == "image" else [*SMALL_3D, "rig.n_views=2", "steps=1"]
    files = [
        (make_asset(spec(tmp_path / str(i), *overrides)).folder / "asset.safetensors").read_bytes()
        for i in range(4)
    ]
    assert len(set(files)) == 1


# --- claims ----------------------------------------------------------------------------------------------


def test_a_process_removes_only_its_own_claim(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    with claim(folder):
        (folder / CLAIM).rename(tmp_path / "removed")  # the folder is removed and made again
        (folder / CLAIM).write_text("another process's")
    assert (folder / CLAIM).read_text() == "another process's"
    assert [path.name for path in folder.iterdir()] == [CLAIM]


def test_a_claim_whose_folder_is_gone_ends_quietly(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    with claim(folder):
        (folder / CLAIM).unlink()
        folder.rmdir()
    assert not folder.exists()
    assert folders(tmp_path) == []
