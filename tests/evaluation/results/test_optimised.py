"""A number that a row's method maximised is shown and marked, and ranked nowhere."""

from __future__ import annotations

import json

import numpy as np
import pytest
from judgement_files import elo_file
from PIL import Image
from run_folders import write_run, write_score

from evaluation.compare import compare
from evaluation.figures import elo, pareto
from evaluation.figures.base import Data
from evaluation.gpteval3d.report import markdown
from evaluation.metrics.base import Score
from evaluation.metrics.clip_score import ClipScore
from evaluation.metrics.ground_truth import GroundTruth
from evaluation.metrics.image_reward.metric import ImageReward
from evaluation.report.overview import tradeoffs
from evaluation.results.aggregate import order_methods, panels
from evaluation.results.collect import collect
from evaluation.results.pairs import all_pairs
from evaluation.tables import formats
from evaluation.tables.method_tables import make_tables
from evaluation.tables.pairs_table import pairs_grids
from evaluation.tables.paper import paper_tables
from evaluation.tables.paper_tables import Source, paper_grid
from scripts.leaderboard.tables import only
from trace_bench.run_folder.manifest import read_manifest, write_manifest

NAMES = {"method": {"reward_sds": "RewardSDS", "sds": "SDS", "vsd": "VSD"}, "representation": {}}
ORDER = ["sds", "vsd", "reward_sds"]
PROMPTS = 8


@pytest.fixture
def metrics(monkeypatch):
    """CLIP and the truth; weights are hashed but never loaded."""
    for metric in (ClipScore, ImageReward):
        monkeypatch.setattr(metric, "weights", lambda self, run: "w")
    made = (ClipScore({"own": {"model": "own"}}, {"tiny": "own"}), GroundTruth(), ImageReward())
    return {metric.name: metric for metric in made}


def maximising(folder, *names: str) -> None:
    """Let the run's method have maximised what these metrics show."""
    manifest = read_manifest(folder)
    manifest.reward = {"metrics": list(names)}
    write_manifest(folder, manifest)


@pytest.fixture
def root(tmp_path, metrics):
    """RewardSDS has by far the best CLIP score and the second best match."""
    for i in range(PROMPTS):
        for k, method in enumerate(ORDER):
            folder = write_run(
                tmp_path / "outputs", method=method, prompt_id=str(i), prompt=f"prompt {i}", count=PROMPTS
            )
            if method == "reward_sds":
                maximising(folder, "clip_score", "clip_r_precision")
            jitter = 0.01 * (-1) ** (i // 2)
            write_score(folder, metrics["clip_score"], clip_score=20.0 + 10 * k + jitter, recognised=1)
            match = [0.4, 0.6, 0.5][k] + 0.001 * i
            write_score(
                folder, metrics["ground_truth"], match=match, soft_iou=match, colour_error=1.0,
                depth_error=0.1, chamfer=0.1,
            )  # fmt: skip
    return tmp_path / "outputs"


def cells(table, name: str) -> dict:
    return {str(row.key["method"]): c for row in table.rows for c in row.cells if c.quantity.name == name}


@pytest.fixture
def tables(root, metrics):
    made = make_tables(collect(root, metrics), metrics, NAMES, ORDER)
    return {table.name.split("-")[0]: table for table in made}


def test_it_is_marked_and_another_row_is_the_best(tables):
    clip, match = cells(tables["methods"], "clip_score"), cells(tables["methods"], "match")
    assert {name: (cell.rank, cell.marks) for name, cell in clip.items()} == {
        "sds": (0, ""), "vsd": (1, ""), "reward_sds": (0, "r"),
    }  # fmt: skip
    assert {name: (cell.rank, cell.optimised) for name, cell in match.items()} == {
        "sds": (0, False), "vsd": (1, False), "reward_sds": (0, False),
    }  # fmt: skip
    assert cells(tables["methods"], "recognised")["reward_sds"].marks == "r"
    (note,) = [note for note in tables["methods"].notes if note.startswith("(r)")]
    assert note.startswith("(r) CLIP, Recognised: the method maximises this number")
    text = formats.markdown(formats.grid(tables["methods"]))
    assert "40.0 ± 0.0ʳ" in text
    assert "**30.0 ± 0.0**" in text
    assert any(
        "Best − second" in note and "CLIP 10.0" in note.replace("+", "") for note in tables["methods"].notes
    )


def test_it_is_ranked_for_no_single_prompt_and_on_no_front(tables):
    assert {cell.rank for row in tables["prompts"].rows for cell in row.cells if cell.optimised} == {0}
    assert any(note.startswith("(r)") for note in tables["prompts"].notes)
    fronts = {str(row.key["method"]): row.labels["front"] for row in tables["cost"].rows}
    assert "CLIP" not in fronts["reward_sds"]
    assert "CLIP" in fronts["vsd"]


def test_no_pair_compares_it(root, metrics, tables):
    pairs = all_pairs(tables["methods"])
    with_it = [p for p in pairs if p.cell.quantity.name == "clip_score"]
    assert [(p.first.labels["method"], p.second.labels["method"]) for p in with_it] == [("SDS", "VSD")]
    assert len([p for p in pairs if p.cell.quantity.name == "match"]) == 3
    (grid,) = pairs_grids(collect(root, metrics), metrics, NAMES, ORDER, "auto")
    assert any(note.startswith("(r) CLIP") for note in grid.notes)


def test_a_table_of_some_columns_is_marked_where_it_shows_them(tables):
    assert cells(only(tables["methods"], ("match",)), "match")["reward_sds"].marks == ""
    assert cells(only(tables["methods"], ("clip_score",)), "clip_score")["reward_sds"].marks == "r"


def test_the_figure_and_the_report_leave_it_off_the_front(root, metrics):
    results = collect(root, metrics)
    data = Data(results, metrics, NAMES, ORDER, root)
    drawing = pareto.draw(data)
    front = drawing.numbers.set_index(["quality", "method"])["front"]
    assert not front["clip_score", "RewardSDS"]
    assert front["clip_score", "VSD"]
    assert "Not compared where they maximise the number itself: RewardSDS." in drawing.caption
    (found,) = tradeoffs(panels(order_methods(results.frame, ORDER)), metrics, NAMES)
    own = {row["name"]: row["own"] for row in found["rows"]}
    assert own == {"SDS": [], "VSD": [], "RewardSDS": ["clip_score"]}


def test_a_comparison_decides_nothing_by_it(root, metrics, monkeypatch, capsys):
    monkeypatch.setattr("evaluation.compare.configured_metrics", lambda: metrics)
    assert compare("sds", "reward_sds", root) == 0
    out = capsys.readouterr().out
    lines = {line.split("|")[1].strip(): line for line in out.splitlines() if line.startswith("| ")}
    assert "B maximised it" in lines["CLIP ↑"]
    assert "B is better" in lines["Match ↑"]


def test_the_paper_s_table_does_not_rank_it(tmp_path, metrics):
    for i in range(3):
        for method, value in (("sds", 0.1), ("vsd", 0.2), ("reward_sds", 0.9)):
            folder = write_run(
                tmp_path, method=method, representation="nerf", prompt_id=str(i), prompt=f"prompt {i}",
                prior="sd21", count=3,
            )  # fmt: skip
            if method == "reward_sds":
                maximising(folder, "image_reward")
            write_score(folder, metrics["image_reward"], image_reward=value)
    source = Source(collect(tmp_path, metrics), metrics, NAMES, ORDER)
    grid = paper_grid(paper_tables()[8], source)
    row = {entries[0].text: entries[1] for entries in grid.body}
    assert (row["RewardSDS"].rank, row["RewardSDS"].marks) == (0, "r")
    assert any(note.startswith("(r)") for note in grid.notes)
    assert row["VSD"].rank == 2


def test_the_clip_tournament_puts_it_last(tmp_path, command, monkeypatch):
    outputs = tmp_path / "outputs"
    for i, prompt in enumerate(["a red cube", "a duck"]):
        for method in ORDER:
            folder = write_run(outputs, method=method, prompt_id=str(i), prompt=prompt, count=2)
            (folder / "renders").mkdir()
            for view, kind in ((v, kind) for v in range(9) for kind in ("rgb", "normal")):
                Image.new("RGB", (8, 8)).save(folder / "renders" / f"{kind}_{view}.png")
            if method == "reward_sds":
                maximising(folder, "clip_score")
    monkeypatch.setattr(ClipScore, "files", lambda self, run: [run.rgb(0)])
    monkeypatch.setattr(ClipScore, "weights", lambda self, run: "w")

    def score(self, run):
        return Score({"clip_score": float(ORDER.index(run.identity.method))}, details={"model": "m"})

    monkeypatch.setattr(ClipScore, "score", score)
    code, out, err = command("gpteval3d.__main__", "judge=clip")
    assert code == 0, err
    (path,) = (outputs / "gpteval3d").glob("*/elo.json")
    (entry,) = json.loads(path.read_text())["tournaments"]
    assert {row["contestant"]: row["optimised"] for row in entry["rows"]} == {
        "sds": False, "vsd": False, "reward_sds": True,
    }  # fmt: skip
    rows = [line.split("|")[1].strip() for line in markdown(entry).splitlines() if line.startswith("| ")]
    assert rows[2:] == ["vsd", "sds", "reward_sds"]
    assert "reward_sds: the method maximises what this judge compares" in out


def test_elo_by_what_it_maximises_has_no_rank(tmp_path, metrics):
    criterion = "text_asset_alignment"
    rows = [
        ("sds", criterion, 1000.0, 10.0),
        ("vsd", criterion, 1100.0, 10.0),
        ("trace", criterion, 1500.0, 9.0),
    ]
    path = elo_file(tmp_path, rows, kind="clip")
    content = json.loads(path.read_text())
    content["tournaments"][0]["rows"][2]["optimised"] = True
    path.write_text(json.dumps(content))
    results = collect(tmp_path, metrics)
    grid = paper_grid(paper_tables()[4], Source(results, metrics, NAMES, ORDER))
    column = next(i for i, head in enumerate(grid.head) if head.group.startswith("Text–asset"))
    ours = {entries[0].text: entries[column] for entries in grid.body}
    marked = {
        name: (entry.rank, entry.marks) for name, entry in ours.items() if name in ("SDS", "VSD", "trace")
    }
    assert marked == {"SDS": (0, ""), "VSD": (2, ""), "trace": (0, "r")}
    assert any(note.startswith("(r) the method maximises") for note in grid.notes)
    drawing = elo.draw(Data(results, metrics, NAMES, ORDER, tmp_path))
    labels = [text.get_text() for text in drawing.figure.axes[0].get_yticklabels()]
    assert labels[0] == "trace"  # at the bottom
    assert np.isfinite(drawing.numbers["elo"]).all()
