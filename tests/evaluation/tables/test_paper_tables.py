"""The paper's tables: printed data, our results next to them, and reasons for missing ones."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from judgement_files import elo_file, preferences
from run_folders import write_run, write_score

from evaluation.metrics.image_reward.metric import ImageReward
from evaluation.results.collect import collect
from evaluation.results.names import display_names
from evaluation.statistics.paired import paired_difference
from evaluation.tables import formats
from evaluation.tables.latex import latex
from evaluation.tables.paper import paper_tables
from evaluation.tables.paper_tables import Source, paper_grid
from trace_bench.run_folder.manifest import read_manifest, write_manifest
from trace_bench.sweeps.planning import make_plan

ORDER = ["sds", "csd", "vsd", "sdi", "ism", "trace"]


@pytest.fixture
def reward(tmp_path, monkeypatch) -> ImageReward:
    """A metric whose weights are hashed but never loaded."""
    monkeypatch.setattr(ImageReward, "weights", lambda self, run: "w")
    return ImageReward()


def grid(root, number, *metrics, **chosen):
    metrics = {metric.name: metric for metric in metrics}
    source = Source(collect(root, metrics), metrics, display_names(), ORDER, **chosen)
    return paper_grid(paper_tables()[number], source)


def texts(table, row: str, heading: str) -> list[str]:
    """The cells of a row under a heading: ours and the paper's."""
    (found,) = [entries for entries in table.body if entries[0].text == row]
    return [
        entry.text for entry, head in zip(found, table.head, strict=True) if head.group.startswith(heading)
    ]


def runs(root, method, scores, representation="nerf", **identity):
    """A run per prompt, with an ImageReward if given."""
    for i, score in enumerate(scores):
        folder = write_run(
            root, method=method, representation=representation, prompt_id=str(i), prompt=f"prompt {i}",
            prior=identity.get("prior", "sd21"), count=identity.get("count", len(scores)), minutes=12.0,
            guidance_scale=identity.get("guidance_scale", 7.5),
        )  # fmt: skip
        if score is not None:
            write_score(folder, ImageReward(), image_reward=score)


def test_the_printed_numbers_are_those_of_the_supplement():
    tables = paper_tables()
    assert sorted(tables) == list(range(1, 9))
    sums = {(n, m): sum(row.values.values()) for n in (1, 2, 3) for m, row in tables[n].rows.items()}
    assert {key for key, total in sums.items() if abs(total - 100) > 0.015} == {(3, "vsd")}
    assert sum(tables[4].rows["trace"].values.values()) == pytest.approx(5128.29)
    assert tables[6].rows["trace"].values == tables[8].rows["trace"].values
    # Table 7's VSD row is the published ProlificDreamer row, which determines the headings.
    vsd = tables[7].rows["vsd"].values
    assert vsd["text_asset_alignment"] == 1261.80
    assert vsd["plausibility"] == 1058.73
    assert vsd["geometry_details"] == 1180.56


def test_every_doubt_points_at_something_that_is_there():
    for table in paper_tables().values():
        columns = {*table.columns, "minutes"}
        for doubt in table.doubts:
            for place in doubt.at:
                assert place.get("row", next(iter(table.rows))) in table.rows, (table.number, doubt.id)
                assert place.get("column", "minutes") in columns, (table.number, doubt.id)
    found = {doubt.id for table in paper_tables().values() for doubt in table.doubts}
    assert found >= {f"F{i:02d}" for i in (1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 17, 19)}


@pytest.mark.parametrize("number", range(1, 9))
def test_without_anything_of_ours_every_cell_says_why_or_is_the_papers(tmp_path, number):
    table = grid(tmp_path, number, ImageReward())
    for row in table.body:
        for entry in row[1:]:
            assert re.fullmatch(r"— no (runs|votes|Elo)|—|[~−]?\d[\d. ±]*", entry.text), entry.text
    assert any(note.startswith("no ") and "python -m" in note for note in table.notes)
    written = formats.markdown(table)
    assert f"Table {number}." in written
    assert len({line.count("|") for line in written.splitlines() if line.startswith("|")}) == 1


def test_elo_stands_beside_the_printed_one(tmp_path):
    scores = {"sds": (1000.4, 0), "vsd": (1050.6, 26), "mine": (990, 10)}
    elo_file(tmp_path, [(method, "plausibility", *score) for method, score in scores.items()])
    table = grid(tmp_path, 4)
    assert texts(table, "SDS", "Plausibility") == ["1000 [1000, 1000]", "953.43"]
    assert texts(table, "VSD", "Plausibility") == ["1051* [1025, 1077]", "1020.81"]
    assert texts(table, "VSD", "Texture") == ["— not asked", "985.59"]
    assert texts(table, "CSD", "Plausibility") == ["— no runs", "1009.29"]
    assert "no tournament" in grid(tmp_path, 5).caption
    assert texts(table, "mine", "Plausibility") == ["990 [980, 1000]", "—"]
    ranks = {row[0].text: row[1].rank for row in table.body}
    assert (ranks["VSD"], ranks["SDS"], ranks["mine"]) == (2, 0, 0)
    assert "gpt-4o-abc as returned" in table.caption
    assert "Judged." in table.notes
    (record,) = [r for r in table.records if r["method"] == "vsd"]
    assert (record["plausibility_ours_low"], record["plausibility_paper"]) == (1024.6, 1020.81)


def test_the_best_elo_is_bold_only_if_it_beats_every_other(tmp_path):
    path = elo_file(
        tmp_path, [(m, "plausibility", e, 9) for m, e in (("sds", 900), ("csd", 950), ("vsd", 1100))]
    )
    for beats, rank in ((["sds"], 2), (["sds", "csd"], 1)):
        content = json.loads(path.read_text())
        content["tournaments"][0]["rows"][2]["beats"] = beats
        path.write_text(json.dumps(content))
        ranks = {row[0].text: row[1].rank for row in grid(tmp_path, 4).body}
        assert (ranks["VSD"], ranks["CSD"], ranks["SDS"]) == (rank, 0, 0)


def test_an_open_interval_is_a_bound(tmp_path):
    path = elo_file(tmp_path, [("sds", "plausibility", 900, 9), ("vsd", "plausibility", 1492, 0)])
    content = json.loads(path.read_text())
    first, second = content["tournaments"][0]["rows"]
    first["ci_low"], second["ci_low"], second["ci_high"] = None, 1210.4, None
    path.write_text(json.dumps(content))
    assert texts(grid(tmp_path, 4), "VSD", "Plausibility")[0] == "≥ 1210*"
    assert texts(grid(tmp_path, 4), "SDS", "Plausibility")[0] == "≤ 909"


def test_of_several_tournaments_the_one_that_covers_most_is_shown(tmp_path):
    elo_file(tmp_path, [("sds", "plausibility", 1, 0)], judge="clip-1", kind="clip")
    elo_file(tmp_path, [("sds", "plausibility", 2, 0)], judge="seen")
    assert texts(grid(tmp_path, 4), "SDS", "Plausibility")[0] == "2 [2, 2]"
    elo_file(tmp_path, [(m, "plausibility", 3, 0) for m in ("sds", "vsd")], judge="more", kind="clip")
    table = grid(tmp_path, 4)
    assert texts(table, "SDS", "Plausibility")[0] == "3 [3, 3]"
    assert "judge more as returned" in table.caption
    assert "— no runs" in texts(grid(tmp_path, 4, prior="sd21"), "SDS", "Plausibility")


def test_a_method_with_several_settings_is_not_given_one_elo(tmp_path):
    path = elo_file(tmp_path, [("sds", "plausibility", 1000, 5), ("sds", "plausibility", 1100, 5)])
    content = json.loads(path.read_text())
    for i, row in enumerate(content["tournaments"][0]["rows"]):
        row["settings"] = {"guidance_scale": 7.5 + i}
    path.write_text(json.dumps(content))
    table = grid(tmp_path, 4)
    assert texts(table, "SDS", "Plausibility")[0] == "— settings"
    assert any(note.startswith("settings:") for note in table.notes)


def test_a_file_of_another_version_is_named(tmp_path):
    elo = elo_file(tmp_path, [])
    elo.write_text('{"schema_version": 2}')
    preferences(tmp_path)
    study = tmp_path / "user_study" / "s1" / "preferences.json"
    study.write_text('{"schema_version": 1}')
    problems = collect(tmp_path, {}).problems
    assert [problem.partition(": ")[0] for problem in problems] == [
        f"{elo} has schema_version 2, but 1 is required",
        f"{study} has schema_version 1, but 2 is required",
    ]
    assert "paid answers are kept" in problems[0]
    assert "the raters' answers are kept" in problems[1]


@pytest.mark.parametrize("text", ["", "{", "[" * 99999, "[1]", '{"schema_version": 1, "judge": null}'])
def test_a_damaged_file_is_named_with_what_helps(tmp_path, text):
    elo = elo_file(tmp_path, [])
    elo.write_text(text)
    (problem,) = collect(tmp_path, {}).problems
    assert problem.startswith(str(elo))
    assert "run `python -m evaluation.gpteval3d` again" in problem
    assert "force=true" not in problem


def test_preferences_stand_beside_the_printed_ones(tmp_path):
    preferences(tmp_path)
    table = grid(tmp_path, 3)
    assert texts(table, "SDS", "Ours preferred") == ["60.00 [55, 65]", "61.88"]
    assert texts(table, "CSD", "Ours preferred") == ["— no votes", "72.25"]
    assert "study s1, 5 raters, 10 prompts" in table.caption
    (mark,) = [row[0].marks for row in table.body if row[0].text == "VSD"]
    assert mark == "a"
    assert any(note.startswith("(a) F08: the row sums to 99.00") for note in table.notes)


def test_a_study_that_can_say_little_is_still_shown(tmp_path):
    """Votes from another tool: no prompt set, too few raters for an interval; plus a tournament."""
    preferences(tmp_path)
    elo_file(tmp_path, [("sds", "plausibility", 1000, 5)])
    path = tmp_path / "user_study" / "s1" / "preferences.json"
    content = json.loads(path.read_text()) | {"prompt_set": None, "prior": None, "representation": None}
    for row in content["rows"]:
        for share in row["percent"].values():
            share |= {"low": None, "high": None}
    path.write_text(json.dumps(content))
    assert texts(grid(tmp_path, 3), "SDS", "Ours preferred")[0] == "60.00"
    assert texts(grid(tmp_path, 4), "SDS", "Plausibility")[0] == "1000 [995, 1005]"


def test_image_reward_with_its_paired_difference(tmp_path, reward):
    runs(tmp_path, "sds", [0.1, 0.2, 0.6])
    runs(tmp_path, "trace", [0.5, 0.6, 1.3])
    table = grid(tmp_path, 8, reward)
    assert texts(table, "SDS", "ImageReward") == ["0.300 ± 0.265", "−0.8838 ± 0.5142"]
    assert texts(table, "TraCe", "Minutes") == ["12.00", "~210"]
    assert texts(table, "VSD", "ImageReward")[0] == "— no runs"
    gap = paired_difference(np.array([0.5, 0.6, 1.3]), np.array([0.1, 0.2, 0.6]))
    (cell,) = [row[3].text for row in table.body if row[0].text == "SDS"]
    assert cell == gap.text(2)
    assert cell == "+0.50"  # three prompts have no interval


@pytest.mark.parametrize(("scores", "count", "expected"), [
    ([0.5, None, 0.5], 3, "— (2/3)"), ([0.5, 0.5], 110, "— (2/110)"), ([None, None], 2, "— no score"),
])  # fmt: skip
def test_a_mean_over_an_incomplete_set_is_a_dash_with_the_count(tmp_path, reward, scores, count, expected):
    runs(tmp_path, "trace", scores, count=count)
    table = grid(tmp_path, 8, reward)
    assert texts(table, "TraCe", "ImageReward")[0] == expected
    assert [row[1].rank for row in table.body] == [0, 0, 0]


def test_toy_runs_are_said_not_to_be_asked(tmp_path, reward):
    reward.skip_priors = ("tiny",)
    runs(tmp_path, "trace", [0.5], prior="tiny")
    assert texts(grid(tmp_path, 8, reward), "TraCe", "ImageReward")[0] == "— not asked"


def test_a_method_that_brings_its_own_prior_is_shown_with_it(tmp_path, reward):
    runs(tmp_path, "trace", [0.5, 0.7], representation="gaussians")
    runs(tmp_path, "consistent3d", [0.1, 0.2], representation="gaussians")
    runs(tmp_path, "dreamer_xl", [0.3, 0.1], representation="gaussians", prior="sdxl")
    table = grid(tmp_path, 6, reward)
    assert texts(table, "Dreamer XL (prior sdxl)", "ImageReward")[0].startswith("0.200")
    assert texts(grid(tmp_path, 6, reward, prior="sd21"), "Dreamer XL", "ImageReward")[0] == "— no runs"


@pytest.mark.parametrize("lanes", [1, 4])
def test_the_setting_with_the_most_prompts_stands_for_a_method(tmp_path, reward, lanes):
    """Also of runs side by side, which have no minutes of their own."""
    runs(tmp_path, "trace", [0.5, 0.7])
    runs(tmp_path, "trace", [0.9], guidance_scale=20.0, count=2)
    for path in tmp_path.rglob("manifest.json"):
        write_manifest(path.parent, replace(read_manifest(path.parent), lanes=lanes))
    assert texts(grid(tmp_path, 8, reward), "TraCe", "ImageReward")[0].startswith("0.600")
    runs(tmp_path, "sds", [0.5, 0.7])
    runs(tmp_path, "sds", [0.9, 0.9], guidance_scale=20.0)
    table = grid(tmp_path, 8, reward)
    assert texts(table, "SDS", "Minutes")[0] == "— settings"


def test_latex_has_groups_marks_and_ranks(tmp_path):
    written = latex(grid(tmp_path, 7))
    assert r"\multicolumn{2}{c}{Text–asset $\uparrow$}" in written
    assert r"\cmidrule(lr){2-3}" in written
    assert r"\textit{1289.89}" in written
    assert r"1152.00\textsuperscript{c}" in written
    assert r"SDS\textsuperscript{b}" in written
    for piece in written.split(r"\toprule")[1:]:
        lines = [line for line in piece.splitlines() if line.endswith(r"\\")]
        assert len({line.count(" & ") for line in lines[1:]}) == 1


@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_a_wide_table_is_cut_to_the_terminal_without_tearing_pairs(tmp_path, width):
    table = grid(tmp_path, 4)
    lines = [line for line in formats.markdown(table, width).splitlines() if line.startswith("|")]
    assert max(map(len, lines)) <= width
    heads = [line for line in lines if line.startswith("| Method")]
    assert len(heads) > 1
    assert all(line.count("paper") == (line.count("|") - 2) / 2 for line in heads)
    assert sum(line.count("paper") for line in heads) == 6


@pytest.mark.slow
def test_the_command_chooses_tables_by_name(tmp_path, command):
    root = tmp_path / "outputs"
    write_run(root)
    code, out, _ = command("tables", "table=4", "metric=[ground_truth]")
    assert code == 0
    assert "Table 4." in out
    assert "Table 7." not in out
    assert {path.name for path in (root / "tables").iterdir()} == {"table4.md", "table4.csv", "table4.tex"}
    assert pd.read_csv(root / "tables" / "table4.csv")["plausibility_paper"].tolist()[0] == 953.43
    assert "Table" not in command("tables", "metric=[ground_truth]")[1]  # toy runs: our own by default
    out = command("tables", "table=all", "metric=[ground_truth]")[1]
    assert [int(n) for n in re.findall(r"^Table (\d)\.", out, re.MULTILINE)] == list(range(1, 9))
    assert "quality against cost" in out
    code, _, err = command("tables", "table=nine")
    assert code == 2
    assert err.startswith("table=nine is invalid: use auto, all, or some of 1, 2,")


@pytest.mark.slow
@pytest.mark.parametrize("number", [4, 5, 6, 7, 8])
@pytest.mark.parametrize("toy", [False, True])
def test_the_advised_sweep_makes_the_rows_that_lack_runs(tmp_path, number, toy):
    table = paper_tables()[number]
    if toy:
        runs(tmp_path, "mine", [None], representation=table.representation, prior="tiny")
    made = grid(tmp_path, number, ImageReward())
    (note,) = [note for note in made.notes if note.startswith("no runs: ")]
    (words,) = re.findall(r"`python -m trace_bench -m ([^`]+)`", note)
    offline = [] if toy else ["prompt_set=toy", "prior=tiny"]  # the paper's prompts are a download
    plan = make_plan([*words.split(), *offline], multirun=True)
    assert {spec.identity.method for spec in plan} >= set(table.rows)
    assert {spec.identity.representation for spec in plan} == {table.representation}
    if toy:
        assert {(spec.identity.prompt_set, spec.identity.prior) for spec in plan} == {("toy", "tiny")}


def test_rows_without_runs_are_not_told_to_ask_the_judge_again(tmp_path):
    elo_file(tmp_path, [("sds", "plausibility", 1000, 5)], kind="clip")
    made = grid(tmp_path, 4)
    assert texts(made, "VSD", "Plausibility")[0] == "— no runs"
    (note,) = [note for note in made.notes if note.startswith("not asked: ")]
    assert "the judge clip was not asked for this criterion" in note


def test_missing_rewards_say_why(tmp_path, reward):
    runs(tmp_path, "trace", [0.5, None, 0.5])
    notes = grid(tmp_path, 8, reward).notes
    assert any(note.startswith("image_reward: 1 of 3 run has no score; not scored yet: ") for note in notes)
