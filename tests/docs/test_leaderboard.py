"""`make leaderboard`: its file gives its pages, and only complete, scored rows of one version enter it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf
from run_folders import draw, write_run

from evaluation.metrics.load import configured_metrics
from evaluation.results.controls import committed
from evaluation.results.names import display_names
from evaluation.tables.method_tables import make_tables
from scripts import make_leaderboard
from scripts.leaderboard.admission import check_versions, judges_of, versions_of
from scripts.leaderboard.page import BLOCKS, only
from scripts.leaderboard.profiles import TILE_PX, chosen_rows, nearest_controls, picture
from scripts.leaderboard.ranking import best_first, rank_agreement
from scripts.leaderboard.rows import FILE, Board, dumps, kept, loads, with_rows
from scripts.leaderboard.sections import MAIN, SECTIONS
from trace_bench.sweeps.planning import make_plan
from trace_bench.system.config_path import conf_dir
from trace_bench.system.errors import TraceBenchError

METHODS = {"scaled": "sds", "fog": "vsd", "billboard": "trace", "half": "ism"}
METRICS = configured_metrics(["ground_truth", "clip_score"])


def frame(methods=METHODS):
    """Rows of a leaderboard: scores of wrong assets under the names of methods."""
    rows = committed()
    rows = rows[rows["control"].isin(methods)].reset_index(drop=True)
    names = rows["control"].map(methods)
    numbers = {"seed": 0, "steps": 240, "views_per_step": 1, "resolution": 64, "guidance_scale": 5.0}
    return rows.assign(
        method=names, kind="run", representation="gaussians", prompt_set="toy_bench", prompts_in_set=8.0,
        init="random", protocol="toy", own_prompt=False, variant="", minutes=0.2, unet_items=480.0, tflop=0.1,
        peak_memory_gb=0.5, minutes_of_loading=0.0, method_name=names.str.upper(), representation_name="3DGS",
        external=False, display_name=pd.NA, source=pd.NA, **numbers,
    ).drop(columns=["control", "right"])  # fmt: skip


def board():
    rows = kept(frame())
    judges = {
        judge: f"{name} version 3" for name in METRICS for judge in rows[f"{name}_judge"].dropna().unique()
    }
    validity = [{"judge": "clip", "criterion": "overall", "verdicts": 70, "agreement": 0.66,
                 "agreement_low": 0.47, "agreement_high": 0.86}]  # fmt: skip
    parts = dict.fromkeys(SECTIONS, rows)
    return Board(
        {"trace_bench": "1"},
        judges,
        validity,
        parts | {"controls": committed().assign(prompt_set="toy_bench", variant="")},
    )


@pytest.fixture
def pages(tmp_path):
    """A folder with a leaderboard and empty blocks for it."""
    (tmp_path / "docs").mkdir()
    for page, name in BLOCKS:
        with (tmp_path / page).open("a", encoding="utf-8") as file:
            file.write(f"<!-- results: {name} -->\n\nnothing yet\n\n<!-- end of results -->\n")
    (tmp_path / FILE).write_text(dumps(board()), encoding="utf-8")
    return tmp_path


@pytest.mark.slow
def test_the_pages_follow_from_the_file_alone(pages):
    folder = ["--folder", str(pages)]
    assert make_leaderboard.main([*folder, "--check"]) == 1
    assert make_leaderboard.main([*folder, "--check"]) == 1, "a check writes nothing"
    assert make_leaderboard.write_pages(pages, check=False) == 0
    assert make_leaderboard.main([*folder, "--check"]) == 0
    text = (pages / "docs" / "leaderboard.md").read_text(encoding="utf-8")
    assert "| VSD" in text
    assert "| Truth " in text
    assert "nothing yet" not in text
    assert "66 % [47, 86]" in text


@pytest.mark.slow
def test_a_changed_number_is_noticed(pages):
    make_leaderboard.write_pages(pages, check=False)
    content = json.loads((pages / FILE).read_text(encoding="utf-8"))
    section = content["sections"][MAIN]
    place = section["columns"].index("match")
    section["rows"][0][place] += 0.4
    (pages / FILE).write_text(json.dumps(content), encoding="utf-8")
    assert make_leaderboard.main(["--folder", str(pages), "--check"]) == 1


def test_a_broken_file_is_one_sentence(pages, capsys):
    (pages / FILE).write_text("{", encoding="utf-8")
    assert make_leaderboard.main(["--folder", str(pages), "--check"]) == 2
    assert "take it again from git" in capsys.readouterr().err


@pytest.mark.slow
def test_the_file_keeps_every_number_of_the_tables():
    before = board()
    text = dumps(before)
    after = loads(text, METRICS)
    assert dumps(after) == text
    for name, block in BLOCKS.items():
        assert block(before, METRICS) == block(after, METRICS), name
    assert "NaN" not in text


def test_methods_are_ordered_by_match():
    means = frame().groupby("method")["match"].mean()
    assert best_first(board()) == list(means.sort_values(ascending=False).index)


def test_a_method_is_most_like_the_wrong_asset_that_its_assets_are():
    """The rows of the test are scores of wrong assets; somewhat nearer to the truth than fog is still fog."""
    for control, method in METHODS.items():
        assert nearest_controls(board())[method][0] == (control, 0.0)
    better, numbers = board(), ["soft_iou", "colour_error"]
    rows = better.sections[MAIN]
    rows.loc[rows["method"] == "vsd", numbers] *= [1.1, 0.8]
    (nearest, distance), *_ = nearest_controls(better)["vsd"]
    assert nearest == "fog"
    assert 0.0 < distance < 1.0


def test_the_picture_shows_best_median_and_worst(tmp_path):
    """Of each method, with its number; the better method comes first."""
    prompts = ("a red cube", "a blue torus", "a duck")
    match = {"sds": (0.3, 0.1, 0.2), "ism": (0.5, 0.6, 0.4)}
    rows = []
    for method, numbers in match.items():
        for i, (prompt, number) in enumerate(zip(prompts, numbers, strict=True)):
            folder = write_run(tmp_path, method=method, prompt=prompt, prompt_id=str(i))
            draw(folder, prompt)
            rows.append({
                "method": method, "method_name": method.upper(), "prompt": prompt, "prompt_id": str(i),
                "seed": 0, "match": number, "folder": str(folder.relative_to(tmp_path)),
                "representation": "gaussians",
                "representation_name": "3DGS", "display_name": pd.NA,
            })  # fmt: skip
    frame = pd.DataFrame(rows)
    assert [row["prompt"] for row in chosen_rows(frame, "sds")] == ["a red cube", "a duck", "a blue torus"]
    drawn = np.asarray(picture(Board(sections={MAIN: frame}), frame, tmp_path, 30.0)).astype(int)
    red = drawn[..., 0] - drawn[..., 1:].max(axis=-1) > 60
    of_ism, of_sds = np.split(red, [len(red) - TILE_PX - 60])
    assert 0 < of_sds.any(axis=0).argmax() < of_ism.any(axis=0).argmax(), "the best of SDS, the median of ISM"


def test_new_rows_replace_those_of_the_same_method_only():
    rows = frame()
    new = rows[rows["method"] == "sds"].assign(match=0.123)
    merged = with_rows(kept(rows), new)
    assert len(merged) == len(rows)
    assert set(merged.loc[merged["method"] == "sds", "match"]) == {0.123}
    others = merged["method"] != "sds"
    assert sorted(merged.loc[others, "match"].dropna()) == sorted(
        rows.loc[rows["method"] != "sds", "match"].dropna()
    )


def fake_run(**changes):
    about = {"trace_bench": "1", "sha256": "a" * 64, "n_views": 24} | changes
    manifest = SimpleNamespace(
        environment={"trace_bench": about["trace_bench"]}, prior={"sha256": about["sha256"]},
        rig={"n_views": about["n_views"]},
    )  # fmt: skip
    return SimpleNamespace(manifest=manifest, folder="outputs/x")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"trace_bench": "2"}, "the version of trace_bench"),
        ({"sha256": "b" * 64}, "the prior's weights"),
        ({"n_views": 120}, "the evaluation cameras"),
        ({"sha256": None}, "does not say the sha256 of its prior's weights"),
    ],
)
def test_other_versions_and_unknown_weights_are_refused(changes, words):
    with pytest.raises(TraceBenchError, match=words):
        versions_of([fake_run(), fake_run(**changes)], METRICS)
    if changes.get("sha256", "") is not None:
        mine = versions_of([fake_run(**changes)], METRICS)
        with pytest.raises(TraceBenchError, match=words):
            check_versions(Board(versions_of([fake_run()], METRICS)), mine)


def test_a_run_without_a_score_is_refused():
    rows = frame().assign(folder="outputs/x")
    assert set(judges_of(rows, METRICS)) == set(METRICS)
    rows.loc[3, "clip_score_judge"] = None
    with pytest.raises(TraceBenchError, match="have no clip_score, such as outputs/x"):
        judges_of(rows, METRICS)


def test_two_judges_are_refused():
    rows = frame().assign(folder="outputs/x")
    rows.loc[3, "clip_score_judge"] = "other"
    with pytest.raises(TraceBenchError, match="2 sets of weights"):
        judges_of(rows, METRICS)


def test_rank_agreement_has_an_exact_p():
    ours = {"a": 3.0, "b": 2.0, "c": 1.0, "d": 0.0}
    same = rank_agreement(ours, {name: 10 * value for name, value in ours.items()})
    assert same.tau == pytest.approx(1.0)
    assert same.p == same.smallest_p == pytest.approx(2 / 24)  # the same and the reverse order of 4! orders
    three = rank_agreement(ours, {"a": 1.0, "b": 2.0, "c": 3.0, "x": 4.0})
    assert three.methods == ("a", "b", "c")
    assert three.tau == pytest.approx(-1.0)
    assert three.p == pytest.approx(1 / 3)


def test_a_short_table_keeps_its_rows():
    results = board().results(MAIN)
    table = make_tables(results, METRICS, display_names(results.frame), best_first(board()))[0]
    short = only(table, ("match", "minutes"))
    assert [q.name for q in short.quantities] == ["match", "minutes"]
    assert [row.cells[0].mean for row in short.rows] == [row.cells[0].mean for row in table.rows]


@pytest.mark.slow
def test_the_sections_are_complete_sets():
    for name, runs in ((MAIN, 96), ("equal_work", 12), ("nerf", 12)):
        plan = make_plan([*SECTIONS[name].of(("sds",)), "output_root=outputs"], multirun=True)
        assert len(plan) == runs, name
    assert SECTIONS["nerf"].of(("csd",)) == ()
    assert replace(SECTIONS[MAIN], methods=("sds",)).of(("csd", "sds"))[-1] == "method=sds"


def test_equal_work_has_the_methods_of_the_main_section():
    swept = [OmegaConf.load(Path(conf_dir()) / "experiment" / f"{name}.yaml").hydra.sweeper.params.method
             for name in ("leaderboard", "leaderboard_equal_work")]  # fmt: skip
    assert swept[0] == swept[1]


def test_the_committed_pages_follow_from_the_committed_file():
    root = make_leaderboard.ROOT
    if not (root / FILE).is_file():
        pytest.skip("no leaderboard is committed yet")
    assert make_leaderboard.main(["--check"]) == 0
