"""The run index: what lies under an output root, in which order, and what cannot be read."""

from __future__ import annotations

import dataclasses
import json

import pytest

from trace_bench.run_folder.index import failure, read_index
from trace_bench.run_folder.manifest import Manifest, RunIdentity, write_manifest

IDENTITY = RunIdentity(
    "sds", "gaussians", "random", "tiny", "toy", "toy", "0", "a red cube", 7.5, 0, 100, 1, 64
)  # fmt: skip


def write(root, prompt_id, method="sds", prompt_set="toy"):
    name = f"runs/{method}/gaussians/{prompt_set}/{prompt_id}-a-prompt/cfg7.5-seed0-00000000"
    (root / name).mkdir(parents=True)
    identity = dataclasses.replace(IDENTITY, method=method, prompt_set=prompt_set, prompt_id=prompt_id)
    write_manifest(root / name, Manifest("done", "f" * 64, identity, files=["config.yaml"]))
    return name


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACE_BENCH_CACHE", str(tmp_path / "cache"))


def test_runs_of_one_prompt_are_neighbours_and_2_comes_before_10(tmp_path):
    names = [write(tmp_path, "10"), write(tmp_path, "2", "vsd"), write(tmp_path, "2", "sds")]
    other = write(tmp_path, "0", prompt_set="coco")
    for _ in ("read", "remembered"):
        index = read_index(tmp_path)
        assert list(index.runs) == [other, names[2], names[1], names[0]]
        assert [run.folder for run in index.runs.values()] == [tmp_path / name for name in index.runs]
        assert index.runs[other].manifest.run.prompt_set == "coco"
        assert index.problems == []


def test_nothing_there(tmp_path):
    assert read_index(tmp_path).runs == {}
    (tmp_path / "runs/sds/gaussians/toy/0-a/cfg1-seed0-0").mkdir(parents=True)  # no manifest (yet)
    assert read_index(tmp_path).runs == {}


def test_a_manifest_that_cannot_be_read_is_named(tmp_path):
    good, bad = write(tmp_path, "0"), write(tmp_path, "1")
    (tmp_path / bad / "manifest.json").write_text('{"half')
    index = read_index(tmp_path)
    assert list(index.runs) == [good]
    assert list(index.unreadable) == [bad]
    (problem,) = index.problems
    assert str(tmp_path / bad / "manifest.json") in problem
    assert problem.endswith("sets the folder aside and makes the asset again.")


def test_a_changed_manifest_is_read_again(tmp_path):
    name = write(tmp_path, "0")
    manifest = read_index(tmp_path).runs[name].manifest
    write_manifest(tmp_path / name, dataclasses.replace(manifest, status="failed"))
    assert read_index(tmp_path).runs[name].manifest.status == "failed"
    (tmp_path / name / "manifest.json").unlink()
    assert read_index(tmp_path).runs == {}


def test_why_a_run_failed(tmp_path):
    assert failure(tmp_path) == "there is no error.json; see its log.txt"
    (tmp_path / "error.json").write_text(json.dumps({"type": "OSError", "message": "disk\nfull", "step": 4}))
    assert failure(tmp_path) == "OSError: disk full (step 4)"
