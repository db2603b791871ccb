"""Full and read-only disks, and several writers at once."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pandas as pd
import pytest
from run_folders import draw, write_run

from evaluation.results.collect import collect, save
from trace_bench.system import files
from trace_bench.system.files import write_atomic


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "outputs"
    draw(write_run(root, prompt="a duck"), "a duck", views=4)
    return root


@pytest.mark.slow
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
@pytest.mark.parametrize(
    ("name", "file"),
    [("collect", "results.parquet"), ("tables", "methods-toy-tiny.md"), ("contact_sheet", "sheet.png")],
)  # fmt: skip
def test_a_disk_without_room_is_one_sentence(root, command, monkeypatch, name, file, number):
    def full(descriptor):
        target = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        if str(root) in target:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.os, "fsync", full)
    code, out, err = command(name)
    assert code == 2
    assert err.count("\n") == 1
    assert f"{file} cannot be written ({os.strerror(number)}): make room" in err
    assert list(root.rglob(".*.partial")) == []
    if name == "tables":
        assert "UNet items" in out  # what was computed is shown


def test_a_folder_that_is_a_file_is_still_an_error_of_ours(root, command):
    (root / "tables").write_text("")
    code, _, err = command("tables")
    assert code == 2
    assert err.count("\n") == 1
    assert str(root / "tables") in err


def test_many_writers_leave_one_whole_file(root):
    results = collect(root, {})
    whole = save(results, root).read_bytes()
    errors = []

    def write():
        try:
            for _ in range(20):
                save(results, root)
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert (root / "results.parquet").read_bytes() == whole
    assert len(pd.read_parquet(root / "results.parquet")) == 1
    assert list(root.glob(".*partial")) == []


def test_a_failed_write_names_the_file_and_keeps_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_atomic(path, "old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space") as caught:
        write_atomic(path, "new")
    assert caught.value.filename == str(path)
    assert path.read_text() == "old"
    assert [p.name for p in Path(tmp_path).iterdir()] == ["a.json"]
