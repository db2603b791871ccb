"""The results frame: contents, caching, and speed."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from judgement_files import elo_file, preferences
from opened_files import opened
from run_folders import write_run, write_score

from evaluation.metrics.ground_truth import GroundTruth
from evaluation.metrics.score_file import write_score_file
from evaluation.results import score_files
from evaluation.results.collect import collect, save
from evaluation.results.names import display_names
from trace_bench.run_folder import index
from trace_bench.system import cache

TRUTH = {"ground_truth": GroundTruth()}


@pytest.fixture
def root(tmp_path):
    for i, method in enumerate(("sds", "vsd", "trace")):
        folder = write_run(tmp_path, method=method)
        write_score(folder, TRUTH["ground_truth"], soft_iou=0.5 + 0.1 * i)
    write_run(tmp_path, method="sds", seed=9, status="failed")
    return tmp_path


@pytest.fixture
def read(monkeypatch, tmp_path) -> list[str]:
    """The manifests and score folders that were read, not remembered."""
    monkeypatch.setenv("TRACE_BENCH_CACHE", str(tmp_path / "cache"))
    found: list[str] = []
    manifest, scores = index._read, score_files._read

    def note(folder: Path) -> None:
        found.append(folder.relative_to(tmp_path).as_posix())

    monkeypatch.setattr(index, "_read", lambda folder: note(folder) or manifest(folder))
    monkeypatch.setattr(score_files, "_read", lambda folder, stamps: note(folder) or scores(folder, stamps))
    return found


def test_the_second_time_only_what_changed_is_read(root, read):
    before = collect(root, TRUTH)
    assert len(read) == 4 + 3
    read.clear()
    pd.testing.assert_frame_equal(collect(root, TRUTH).frame, before.frame)
    assert read == []
    (changed,) = root.glob("runs/vsd/*/*/*/*")
    write_score(changed, GroundTruth(views=3), soft_iou=0.9)
    new = write_run(root, method="ism")
    after = collect(root, TRUTH)
    paths = [changed / "scores", new, new / "scores"]
    assert sorted(read) == sorted(path.relative_to(root).as_posix() for path in paths)
    assert after.frame.set_index("method")["soft_iou"].to_dict()["vsd"] == 0.9
    assert after.unfinished == {"failed": 1}


def test_a_folder_that_has_gone_is_forgotten(root, read):
    collect(root, TRUTH)
    (gone,) = root.glob("runs/vsd/*/*/*/*")
    (gone / "manifest.json").unlink()
    assert "vsd" not in set(collect(root, TRUTH).frame["method"])
    assert not any(gone.name.encode() in path.read_bytes() for path in _entries(root))


def _entries(root):
    found = [path for path in (root / "cache").rglob("*") if path.is_file()]
    assert len(found) == 2
    return found


@pytest.mark.parametrize(
    "content", ["", "[1]", '{"version": 0}', '{"version": 1}', '{"version": 1, "entries": 1}']
)
def test_the_cache_may_be_lost_or_broken(root, content, read):
    collect(root, TRUTH)
    for path in _entries(root):
        path.write_text(content)
    read.clear()
    assert len(collect(root, TRUTH).frame) == 3
    assert len(read) == 4 + 3


@pytest.mark.parametrize(
    "of_index",
    [[1], {"status": "done"}, {"run": {}}, {"run": [1]}, {"other": 1}, "{}", None],
)
def test_entries_of_another_shape_are_read_again(root, read, of_index):
    """`of_index`: what stands for a manifest, with the right stamp unless it is a list."""
    collect(root, TRUTH)
    for kind, version in (("index", index._CACHE_VERSION), ("scores", score_files._CACHE_VERSION)):
        entries = cache.remembered(kind, root, version)
        assert entries
        other = {
            name: [1] if kind == "scores" or of_index == [1] else [entry[0], of_index]
            for name, entry in entries.items()
        }
        cache.remember(kind, root, version, other)
    read.clear()
    assert len(collect(root, TRUTH).frame) == 3
    assert len(read) == 4 + 3


def test_a_score_of_an_earlier_state_of_the_run_does_not_count(root):
    (folder,) = root.glob("runs/vsd/*/*/*/*")
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace("2026-01-01T", "2026-05-05T"))
    frame = collect(root, TRUTH).frame.set_index("method")
    assert pd.isna(frame.loc["vsd", "soft_iou"])
    assert frame.loc["sds", "soft_iou"] == 0.5


def test_one_frame_holds_runs_elo_and_preferences(root):
    elo_file(root, [("sds", "plausibility", 1000, 5)])
    preferences(root)
    results = collect(root, TRUTH)
    frame = pd.read_parquet(save(results, root))
    assert frame["kind"].value_counts().to_dict() == {"run": 3, "preference": 3, "elo": 1}
    (elo,) = frame[frame["kind"] == "elo"].to_dict("records")
    assert (elo["criterion"], elo["elo"], elo["elo_low"], elo["judge"]) == (
        "plausibility",
        1000,
        995,
        "gpt-4o-abc",
    )
    assert frame[frame["kind"] == "preference"]["ours_value"].tolist() == [60.0] * 3
    assert sorted(frame[frame["kind"] == "run"]["soft_iou"]) == [0.5, 0.6, 0.7]
    (judge,) = frame.loc[frame["kind"] == "run", "ground_truth_judge"].unique()
    assert frame.attrs["judges"] == {judge: "ground_truth version 3, 3 views"}


def test_objects_without_a_front_are_left_out_of_the_janus_number(tmp_path):
    for i in range(3):
        folder = write_run(tmp_path, prompt_id=str(i), prompt=f"prompt {i}", count=3)
        write_score(folder, TRUTH["ground_truth"], soft_iou=0.5, janus=0.2 * i if i else None)
        if i == 0:
            path = folder / "scores" / "ground_truth.json"
            write_score_file(path, json.loads(path.read_text()) | {"inapplicable": ["janus"]})
    from evaluation.tables import formats
    from evaluation.tables.method_tables import make_tables

    methods, prompts, _ = make_tables(collect(tmp_path, TRUTH), TRUTH, {}, ["sds"])
    texts = [
        [formats.cell_text(cell) for row in table.rows for cell in row.cells if cell.quantity.name == "janus"]
        for table in (methods, prompts)
    ]
    assert texts == [["0.30 ± 0.14"], ["—", "0.20", "0.40"]]


@pytest.mark.slow
def test_collecting_and_all_tables_read_each_file_once(tmp_path, monkeypatch):
    """`benchmarks/reading.py` measures how long it takes."""
    from hydra import compose, initialize_config_dir

    from benchmarks.collect import synthesise
    from evaluation.metrics.load import load_metrics
    from evaluation.tables.__main__ import make_grids, wanted, write_grids
    from trace_bench.system.config_path import conf_dir

    monkeypatch.setenv("TRACE_BENCH_CACHE", str(tmp_path / "cache"))
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        config = compose("evaluation")
    metrics = load_metrics(config)
    runs = tmp_path / "outputs"
    count = synthesise(runs, metrics, prompts=2, seeds=2)
    with opened(runs / "runs") as first:
        results = collect(runs, metrics)
        grids = make_grids(wanted("all", results), results, metrics, config.tables)
        write_grids(grids, runs / "tables")
    assert len(results.frame) == count == 72
    assert len(grids) == 8 + 4
    assert not results.problems
    assert sum(path.endswith("manifest.json") for path in first) == count
    assert {path: n for path, n in first.items() if n > 1} == {}
    with opened(runs / "runs") as second:
        collect(runs, metrics)
    assert not second


def test_methods_of_your_own_have_the_name_of_their_yaml(tmp_path):
    """Their YAML is not in conf/, so the manifest has the name."""
    folder = write_run(tmp_path, method="direct", representation="voxels")
    path = folder / "manifest.json"
    names = {"method": "Direct", "representation": "Voxels"}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"display_names": names}))
    write_run(tmp_path, method="sds")
    found = display_names(collect(tmp_path, TRUTH).frame)
    assert (found["method"]["direct"], found["representation"]["voxels"]) == ("Direct", "Voxels")
    assert found["method"]["sds"] == display_names()["method"]["sds"]
