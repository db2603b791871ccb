"""A really full disk and a really read-only disk, as small in-memory mounts."""

from __future__ import annotations

import dataclasses
import functools
import os
import subprocess
from pathlib import Path

import pytest

from trace_bench.run_folder.manifest import is_done, read_manifest
from trace_bench.runs.identity import RunSpec
from trace_bench.runs.run import make_asset
from trace_bench.sweeps.planning import make_plan

CONF = str(Path(__file__).parents[1] / "conf")
QUICK = [
    "prior=analytic", "representation=image", "method=sds", "steps=12", "log_every=3",
    "checkpoint.every_steps=4",
]  # fmt: skip


@functools.cache
def planned(prompt):
    (run,) = make_plan([*QUICK, f"prompt={prompt}"], multirun=False, config_dir=CONF)
    return run


def spec(out, prompt=0):
    run = planned(prompt)
    return RunSpec(dataclasses.replace(run.job, output_root=str(out)), run.prompt, run.prompt_set)


@pytest.fixture
def disk(tmp_path):
    """An empty file system of 1 MB, and a function that remounts it with other options."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True) if os.geteuid() == 0 else None
    if done is None or done.returncode:
        pytest.skip(f"cannot mount a tmpfs: {done.stderr.strip() if done else 'not root'}")

    def remount(options):
        subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)

    yield folder, remount
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder, left):
    """Fill a file system except for `left` bytes."""
    stat = os.statvfs(folder)
    (folder / "filler").write_bytes(b"x" * max(0, stat.f_bavail * stat.f_frsize - left))


@pytest.mark.parametrize("left", [0, 8_000, 24_000, 60_000])
def test_a_full_disk(disk, left):
    """Whenever the disk is full: a clear message, finished runs stay, and with space the run completes."""
    folder, _ = disk
    earlier = make_asset(spec(folder, 1))
    assert earlier.status == "done", earlier.message
    fill(folder, left)
    made = make_asset(spec(folder))
    assert made.status == "failed"
    assert "No space left on device" in made.message
    manifest = read_manifest(made.folder) if made.folder.exists() else None
    assert manifest is None or manifest.status != "done"
    assert is_done(earlier.folder, read_manifest(earlier.folder))
    (folder / "filler").unlink()
    again = make_asset(spec(folder))
    assert again.status == "done", again.message
    assert is_done(again.folder, read_manifest(again.folder))


def test_a_read_only_file_system(disk):
    folder, remount = disk
    earlier = make_asset(spec(folder, 1))
    remount("ro")
    made = make_asset(spec(folder))
    assert made.status == "failed"
    assert "Read-only file system" in made.message
    assert is_done(earlier.folder, read_manifest(earlier.folder))
    remount("rw")
    assert make_asset(spec(folder)).status == "done"
