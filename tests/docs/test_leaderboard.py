"""`make leaderboard`: its file gives its pages."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from leaderboard_rows import METHODS, METRICS, board, frame
from run_folders import draw, write_run
from scipy.stats import kendalltau

from evaluation.results.controls import committed
from evaluation.results.names import display_names
from evaluation.tables.method_tables import make_tables
from scripts import make_leaderboard
from scripts.leaderboard.about import about
from scripts.leaderboard.completeness import pending
from scripts.leaderboard.figures import COST
from scripts.leaderboard.page import BLOCKS, EMPTY
from scripts.leaderboard.paper import paper
from scripts.leaderboard.profiles import (
    TILE_PX,
    chosen_rows,
    most_like,
    nearest_controls,
    picture,
    picture_of,
)
from scripts.leaderboard.ranking import best_first, rank_agreement
from scripts.leaderboard.rows import FILE, dumps, kept, loads, with_rows
from scripts.leaderboard.sections import HELD_OUT, MAIN, SECTIONS
from scripts.leaderboard.tables import only
from scripts.leaderboard.verdicts import clip_validity
from scripts.results.workshop import ROOT, Workshop
from trace_bench.sweeps.planning import make_plan
from trace_bench.system.config_path import conf_dir


@pytest.fixture
def pages(tmp_path):
    """A folder with a leaderboard and empty blocks for it."""
    (tmp_path / "docs").mkdir()
    for page, name in [*BLOCKS, make_leaderboard.STATISTICS]:
        with (tmp_path / page).open("a", encoding="utf-8") as file:
            file.write(f"<!-- results: {name} -->\n\n{EMPTY}\n\n<!-- end of results -->\n")
    (tmp_path / "docs" / "images").mkdir()
    for method in METHODS.values():
        (tmp_path / picture_of(method)).touch()
    (tmp_path / FILE).write_text(dumps(board()), encoding="utf-8")
    return tmp_path


@pytest.fixture
def taken_as_whole(monkeypatch):
    """These pages have a few rows; whether a file is whole is another test's question."""
    monkeypatch.setattr(make_leaderboard, "problems", lambda board, metrics: [])


@pytest.mark.slow
@pytest.mark.usefixtures("taken_as_whole")
def test_the_pages_follow_from_the_file_alone(pages):
    folder = ["--folder", str(pages)]
    assert make_leaderboard.main([*folder, "--check"]) == 1
    assert make_leaderboard.main([*folder, "--check"]) == 1, "a check writes nothing"
    assert make_leaderboard.write_pages(pages, check=False) == 0
    assert make_leaderboard.main([*folder, "--check"]) == 0
    text = (pages / "docs" / "leaderboard.md").read_text(encoding="utf-8")
    assert "| VSD" in text
    assert "| Truth " in text
    assert EMPTY not in text
    assert f"| tiny CLIP | Text-asset alignment | 4 | {6 * 8} |" in text, "six pairs on eight prompts"
    assert "Pareto-optimal" in text
    assert "Decided pairs: Match " in text
    assert (pages / COST).stat().st_size > 10_000
    for file in (COST, picture_of("vsd")):
        content = (pages / file).read_bytes()
        (pages / file).unlink()
        assert make_leaderboard.main([*folder, "--check"]) == 1, "a picture of the page is missing"
        (pages / file).write_bytes(content)
    assert make_leaderboard.main([*folder, "--check"]) == 0


@pytest.mark.slow
@pytest.mark.usefixtures("taken_as_whole")
def test_a_changed_number_is_noticed(pages):
    make_leaderboard.write_pages(pages, check=False)
    assert make_leaderboard.main(["--folder", str(pages), "--check"]) == 0
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


@pytest.mark.parametrize("name", [MAIN, "controls"])
def test_a_file_without_methods_or_controls_is_one_sentence(pages, name, capsys):
    lacking = board()
    lacking.sections.pop(name)
    (pages / FILE).write_text(dumps(lacking), encoding="utf-8")
    for what in ("--check", "--pages"):
        assert make_leaderboard.main(["--folder", str(pages), what]) == 2
        assert f"has no section `{name}`" in capsys.readouterr().err


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
    """Of each kind of object; the second kind has its red object in the middle, the first at its best."""
    prompts = ("a red cube", "a blue torus", "a duck") * 2
    rows = []
    for i, (prompt, number) in enumerate(zip(prompts, (0.3, 0.1, 0.2, 0.5, 0.6, 0.4), strict=True)):
        prompt_id = str(i if i < 3 else 9 + i)  # 0-11 are solids, 12-23 objects without a front
        folder = write_run(tmp_path, method="sds", prompt=prompt, prompt_id=prompt_id)
        draw(folder, prompt)
        rows.append({
            "method": "sds", "method_name": "SDS", "prompt": prompt, "prompt_id": prompt_id,
            "seed": 0, "match": number, "folder": str(folder.relative_to(tmp_path)),
            "representation": "gaussians",
            "representation_name": "3DGS", "display_name": pd.NA,
        })  # fmt: skip
    frame = pd.DataFrame(rows)
    assert [row["prompt"] for row in chosen_rows(frame[:3])] == ["a red cube", "a duck", "a blue torus"]
    drawn = np.asarray(picture(frame, tmp_path, 30.0)).astype(int)
    red = drawn[..., 0] - drawn[..., 1:].max(axis=-1) > 60
    solids, others = np.split(red, [len(red) - TILE_PX - 60])
    assert 0 < solids.any(axis=0).argmax() < others.any(axis=0).argmax()


def test_the_judge_of_the_rows_agrees_with_the_judges_of_folders():
    """Verdicts of two methods by hand: a draw of the truth is left out, an empty asset loses."""
    rows = pd.DataFrame({
        "method": ["sds", "vsd"] * 3 + ["reward_sds"], "prompt_id": ["0", "0", "1", "1", "2", "2", "0"],
        "seed": 0, "optimised": [""] * 6 + ["clip_score"],
        "clip_score": [80.0, 70.0, 60.0, 70.0, 50.0, 60.0, 99.0],
        "match": [0.5, 0.4, 0.300, 0.303, 0.2, np.nan, 0.9],
    })  # fmt: skip
    methods, (found,) = clip_validity(rows)
    assert methods == ["sds", "vsd"], "RewardSDS maximises the judge's number"
    assert found.verdicts == 3
    assert found.agreement.value == pytest.approx(1 / 2)


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


@pytest.mark.parametrize("theirs", [[3.0, 1.0, 2.0, 5.0, 4.0], [3.0, 1.0, 3.0, 5.0, 4.0]])
def test_rank_agreement_is_that_of_scipy(theirs):
    """Without ties, its exact p too; with ties, scipy has none."""
    ours = [1.0, 2.0, 3.0, 4.0, 5.0]
    found = rank_agreement(*(dict(zip("abcde", values, strict=True)) for values in (ours, theirs)))
    expected = kendalltau(ours, theirs)
    assert found.tau == pytest.approx(expected.statistic)
    if len(set(theirs)) == len(theirs):
        assert found.p == pytest.approx(expected.pvalue)
    orders = [abs(kendalltau(ours, order).statistic) for order in permutations(theirs)]
    assert found.p == pytest.approx(np.mean([tau >= abs(expected.statistic) - 1e-9 for tau in orders]))


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
    sizes = {MAIN: 96, "equal_work": 12, "nerf": 12, "guidance": 24, "inits": 16, "janus": 48}
    for name, runs in sizes.items():
        plan = make_plan([*SECTIONS[name].of(("sds",)), "output_root=outputs"], multirun=True)
        assert len(plan) == runs, name
    assert {*sizes, "janus_perp_neg"} == set(SECTIONS)
    assert len(make_plan([*SECTIONS["janus_perp_neg"].of(("ism",)), "output_root=outputs"], True)) == 24
    assert SECTIONS["nerf"].of(("csd",)) == SECTIONS["guidance"].of(("bsd",)) == ()
    assert SECTIONS["nerf"].of(("csd", "sds"))[-1] == "method=sds"


def test_equal_work_and_inits_have_the_methods_of_the_main_section():
    assert SECTIONS[MAIN].methods == SECTIONS["equal_work"].methods == SECTIONS["inits"].methods


def test_no_row_of_the_committed_file_is_missing():
    """No section lacks a method; `--check` below looks at each method's prompts and seeds."""
    assert pending(make_leaderboard.read(ROOT, Workshop(ROOT, ROOT))) == []


@pytest.mark.slow
def test_the_committed_pages_follow_from_the_committed_file():
    """Or both are empty."""
    assert make_leaderboard.main(["--check"]) == 0


def test_pages_with_rows_need_the_file(pages, capsys):
    folder = ["--folder", str(pages)]
    (pages / FILE).unlink()
    assert make_leaderboard.main([*folder, "--check"]) == 0
    page = pages / "docs" / "leaderboard.md"
    page.write_text(page.read_text(encoding="utf-8").replace(EMPTY, "| SDS | 0.9 |", 1), encoding="utf-8")
    assert make_leaderboard.main([*folder, "--check"]) == 2
    assert "leaderboard.json does not exist, but docs/leaderboard.md has rows" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["prompt=0"], "name a copy of the pages"), (["--anew", "--methods", "sds"], "leave out --methods")],
)
def test_trials_and_losses_are_refused(arguments, words, capsys):
    with pytest.raises(SystemExit):
        make_leaderboard.options(arguments)
    assert words in capsys.readouterr().err


def test_an_unlisted_method_is_refused_before_its_runs(pages, capsys):
    assert make_leaderboard.main(["--folder", str(pages), "--methods", "gaussiandreamer"]) == 2
    assert "gaussiandreamer is not in conf/experiment/leaderboard.yaml" in capsys.readouterr().err


@pytest.mark.slow
def test_the_check_asks_for_a_whole_file(pages, capsys):
    assert make_leaderboard.main(["--folder", str(pages), "--pages"]) == 0
    assert make_leaderboard.main(["--folder", str(pages), "--check"]) == 1
    found = capsys.readouterr().out
    assert "own_budget: sds has 8 of 96 rows" in found
    assert "Not made yet, each method with its own budget: csd" in found


def test_held_out_prompts_are_those_of_the_prompt_set():
    """The YAML marks the first of each four."""
    lines = (Path(conf_dir()) / "prompt_set" / "toy_bench.yaml").read_text(encoding="utf-8").splitlines()
    prompts = [line for line in lines if line.strip().startswith("- ") and "override" not in line]
    prompts = [line for line in prompts if "_self_" not in line]
    marked = [i for i, line in enumerate(prompts) if "held out" in line]
    assert set(HELD_OUT) == {first + k for first in marked for k in range(4)}
    assert len(marked) == 4


def test_an_asset_that_no_control_is_near_is_like_none():
    """Fog with a wrong colour is farther from fog than some other control is."""
    far = board()
    rows = far.sections[MAIN]
    assert most_like(far)["vsd"].is_near
    rows.loc[rows["method"] == "vsd", "colour_error"] += 300.0
    assert not most_like(far)["vsd"].is_near


def test_controls_without_a_front_have_as_many_terms_as_others():
    """`flat_colour` has no Janus number; a method with two faces is not near it for that."""
    like = board()
    wrong = committed()
    flat = wrong[wrong["control"] == "flat_colour"].reset_index(drop=True)
    rows = like.sections[MAIN]
    own = rows["method"] == "sds"
    for column in ("soft_iou", "colour_error", "high_frequency", "chamfer"):
        rows.loc[own, column] = flat[column].mean()
    rows.loc[own, ["janus", "no_front"]] = [1.0, 0.0]
    assert dict(nearest_controls(like)["sds"])["flat_colour"] > 0.9


def test_the_papers_doubts_stand_beside_the_comparison():
    """Table 5 prints no TraCe, so its two methods give no row; Tables 6 and 8 are copies."""
    rows = board()
    frame = rows.sections[MAIN]
    more = [frame[frame["method"] == "sds"].assign(method=name) for name in ("csd", "sdi", "dreamer_xl")]
    more.append(frame[frame["method"] == "sds"].assign(method="consistent3d"))
    rows.sections[MAIN] = pd.concat([frame, *more], ignore_index=True)
    text = " ".join(paper(rows, METRICS).split())
    assert "| 4 | " in text
    assert "| 5 | " not in text
    assert "Table 5 has no row here" in text
    assert "of the 15 pairs of Table 4's methods" in text
    for doubt in ("F01", "F04", "F05", "F12", "F14"):
        assert f"**{doubt}**" in text


def test_the_page_says_what_made_the_rows():
    """Commits and versions of all rows; minutes of several machines are not compared."""
    rows = board()
    assert "machines" not in " ".join(about(rows, METRICS).split())
    frame = rows.sections[MAIN]
    frame.loc[frame["method"] == "sds", ["machine", "commit"]] = ["another", "d" * 12]
    text = " ".join(about(rows, METRICS).split())
    assert f"at commit {'c' * 12} and {'d' * 12}; torch 2.15.0, diffusers 0.42.1, numpy 2.4.6." in text
    assert f"{'a' * 12} (with adapter)" in text
    assert "Rows come from 2 machines (a computer and another)" in text
