"""Controls in tables: left out by default, rows below the methods, marks at what a wrong asset gains too."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from run_folders import write_run, write_score

from evaluation.gpteval3d.contestants import find_field
from evaluation.metrics.ground_truth import GroundTruth
from evaluation.results import controls
from evaluation.results.collect import collect, save
from evaluation.results.controls import shown, to_json
from evaluation.tables import formats
from evaluation.tables.method_tables import make_tables
from trace_bench.run_folder.index import read_index
from trace_bench.run_folder.manifest import read_manifest, write_manifest
from trace_bench.system.errors import TraceBenchError

TRUTH = {"ground_truth": GroundTruth()}


@pytest.fixture(autouse=True)
def nothing_committed(tmp_path, monkeypatch):
    monkeypatch.setattr(controls, "COMMITTED", tmp_path / "controls.json")
    controls.committed.cache_clear()
    yield
    controls.committed.cache_clear()


def add_control(root, name: str, *, right: bool = False, prompts: int = 2, **values):
    for i in range(prompts):
        folder = write_run(
            root, method=f"control-{name}", representation="control", prompt_id=str(i), prompt=f"prompt {i}"
        )
        about = {
            "name": name.title(),
            "source": "toy world",
            "minutes": None,
            "control": name,
            "right": right,
        }
        write_manifest(folder, replace(read_manifest(folder), declared=about))
        write_score(folder, TRUTH["ground_truth"], **values)


def add_methods(root, prompts: int = 2):
    for method, match, depth in (("sds", 0.5, 0.10), ("vsd", 0.4, 0.13), ("trace", 0.3, 0.20)):
        for i in range(prompts):
            folder = write_run(root, method=method, prompt_id=str(i), prompt=f"prompt {i}", count=prompts)
            write_score(folder, TRUTH["ground_truth"], match=match, depth_error=depth)


@pytest.fixture
def root(tmp_path):
    """Three methods, the truth, and two controls, one of which has a smaller depth error than the truth."""
    add_methods(tmp_path)
    add_control(tmp_path, "truth", right=True, match=1.0, depth_error=0.05)
    add_control(tmp_path, "fog", match=0.6, depth_error=0.01)
    add_control(tmp_path, "half", match=0.7, depth_error=0.30)
    return tmp_path


def methods_of(root, which="none"):
    return make_tables(collect(root, TRUTH), TRUTH, {}, ["sds", "vsd", "trace"], controls=which)[0]


def names(table) -> list[str]:
    return [row.labels["method"] for row in table.rows]


def test_controls_are_no_methods(root):
    results = collect(root, TRUTH)
    assert set(results.frame["method"]) == {"sds", "vsd", "trace"}
    assert set(results.controls["control"]) == {"truth", "fog", "half"}
    assert names(methods_of(root)) == ["sds", "vsd", "trace"]
    assert save(results, root).is_file()
    runs = list(read_index(root).runs.values())
    wanted = {"seed": 0, "prompt_set": None, "prior": None, "method": None, "representation": None}
    assert {one.method for one in find_field(runs, root, wanted).contestants} == {"sds", "vsd", "trace"}
    asked = find_field(runs, root, wanted | {"method": ["sds", "control-fog"]})
    assert {one.method for one in asked.contestants} == {"sds", "control-fog"}


def test_rows_of_the_truth_and_the_best_control_stand_below_the_methods(root):
    table = methods_of(root, "best")
    assert names(table) == ["sds", "vsd", "trace", "Truth", "Control: Half"]
    match = [row.cells[0] for row in table.rows]
    assert [cell.rank for cell in match] == [2, 0, 0, 0, 0]  # two prompts decide nothing
    assert formats.cell_text(match[3]) == "1.000 ± 0.000"
    assert names(methods_of(root, "all"))[3:] == ["Truth", "Control: Fog", "Control: Half"]


def test_the_best_is_compared_with_the_second_method(tmp_path):
    """Not with the truth or a wrong asset, which are better here or in between."""
    add_methods(tmp_path, prompts=8)
    add_control(tmp_path, "truth", right=True, prompts=8, match=1.0, depth_error=0.05)
    add_control(tmp_path, "fog", prompts=8, match=0.45, depth_error=0.11)
    for which in ("none", "all"):
        (note,) = [text for text in methods_of(tmp_path, which).notes if text.startswith("Best − second")]
        assert "Match +0.100 " in note, which
        assert "Depth −0.030 " in note, which


def test_what_is_behind_by_less_than_a_wrong_asset_gains_is_marked(root):
    table = methods_of(root)
    marks = {
        cell.quantity.name: [row.cells[i].marks for row in table.rows]
        for i, cell in enumerate(table.rows[0].cells)
    }
    assert marks["depth_error"] == ["", "a", ""]  # 0.03 and 0.10 behind; fog gains 0.04
    assert marks["match"] == ["", "", ""]
    assert any(
        note.startswith("(a) Depth:") and "Fog, +0.0400 over 2 prompts" in note for note in table.notes
    )
    assert "0.130 ± 0.000ᵃ" in formats.markdown(formats.grid(table))


def test_committed_scores_stand_in_for_runs_of_the_same_judge(root, tmp_path, monkeypatch):
    content = to_json(collect(root, TRUTH).controls, TRUTH)
    elsewhere = tmp_path / "elsewhere"
    add_methods(elsewhere)
    assert names(methods_of(elsewhere, "best")) == ["sds", "vsd", "trace"]
    controls.COMMITTED.write_text(content)
    controls.committed.cache_clear()
    table = methods_of(elsewhere, "best")
    assert names(table) == ["sds", "vsd", "trace", "Truth", "Control: Half"]
    assert any("Fog, +0.0400" in note for note in table.notes)
    other = json.loads(content)
    for run in other["runs"]:
        run["ground_truth_judge"] = "another"
    controls.COMMITTED.write_text(json.dumps(other))
    controls.committed.cache_clear()
    assert not any("Fog" in note for note in methods_of(elsewhere).notes)


def test_the_setting_has_three_values():
    assert [shown(value) for value in ("none", "best", "all")] == ["none", "best", "all"]
    with pytest.raises(TraceBenchError, match=r"tables\.controls=some is invalid: use none, best, all"):
        shown("some")
