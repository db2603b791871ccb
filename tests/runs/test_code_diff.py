"""Changed code: the manifest has its commit and a hash, the run folder alone has the changes."""

from __future__ import annotations

import hashlib
import subprocess

import pytest
from quick_runs import spec

from trace_bench.run_folder.manifest import read_manifest
from trace_bench.runs import environment, open_run
from trace_bench.runs.run import make_asset


def git(folder, *args):
    own = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(folder), *own, *args], check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A small checkout in place of this one."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    git(folder, "init")
    (folder / "code.py").write_text("a = 1\n")
    git(folder, "add", ".")
    git(folder, "commit", "-m", "first")
    monkeypatch.setattr(environment, "_checkout", lambda: folder)
    environment.code_diff.cache_clear()
    environment.describe_environment.cache_clear()
    yield folder
    environment.code_diff.cache_clear()
    environment.describe_environment.cache_clear()


def test_changes_are_named_by_their_hash_and_kept_in_the_run_folder(checkout, out):
    secret = "a = 'the password'\n"
    (checkout / "code.py").write_text(secret)
    run = spec(out)
    assert make_asset(run).status == "done"
    diff = (run.folder / open_run.DIFF).read_bytes()
    manifest = read_manifest(run.folder)
    assert "the password" in diff.decode()
    assert manifest.environment["dirty"] is True
    assert len(manifest.environment["commit"]) == 40
    assert manifest.environment["diff_sha256"] == hashlib.sha256(diff).hexdigest()
    assert open_run.DIFF not in manifest.files
    others = [path for path in run.folder.iterdir() if path.is_file() and path.name != open_run.DIFF]
    assert not any(b"the password" in path.read_bytes() for path in others)
    git(checkout, "checkout", "code.py")
    subprocess.run(["git", "-C", str(checkout), "apply"], input=diff, check=True)
    assert (checkout / "code.py").read_text() == secret


def test_a_new_file_is_a_change_once_git_knows_it(checkout):
    (checkout / "mine.py").write_text("b = 2\n")
    found = environment.describe_environment("cpu")
    assert (found["dirty"], found["diff_sha256"]) == (False, None)
    git(checkout, "add", "-N", "mine.py")
    environment.code_diff.cache_clear()
    environment.describe_environment.cache_clear()
    assert environment.describe_environment("cpu")["dirty"] is True
    assert b"+b = 2" in environment.code_diff()


def test_clean_code_leaves_no_diff(checkout, out):
    run = spec(out)
    assert make_asset(run).status == "done"
    assert not (run.folder / open_run.DIFF).exists()
    assert read_manifest(run.folder).environment["diff_sha256"] is None
    assert read_manifest(run.folder).environment["dirty"] is False
