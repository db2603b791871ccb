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


@pytest.mark.parametrize("is_added", [False, True])
def test_a_new_file_of_the_code_is_a_change(checkout, is_added):
    """Also before git knows it: `git commit -a` would leave it out. Files of other folders are no code."""
    (checkout / "notes.txt").write_text("none\n")
    assert environment.describe_environment("cpu")["dirty"] is False
    new = checkout / "trace_bench" / "methods" / "my method.py"
    new.parent.mkdir(parents=True)
    new.write_text("b = 2\n")
    if is_added:
        git(checkout, "add", str(new))
    environment.code_diff.cache_clear()
    environment.describe_environment.cache_clear()
    diff = environment.code_diff()
    assert environment.describe_environment("cpu")["dirty"] is True
    assert environment.describe_environment("cpu")["diff_sha256"] == hashlib.sha256(diff).hexdigest()
    assert b"none" not in diff
    git(checkout, "rm", "-rf", "--cached", "--ignore-unmatch", "trace_bench")
    new.unlink()
    subprocess.run(["git", "-C", str(checkout), "apply"], input=diff, check=True)
    assert new.read_text() == "b = 2\n"


def test_clean_code_leaves_no_diff(checkout, out):
    run = spec(out)
    assert make_asset(run).status == "done"
    assert not (run.folder / open_run.DIFF).exists()
    assert read_manifest(run.folder).environment["diff_sha256"] is None
    assert read_manifest(run.folder).environment["dirty"] is False
