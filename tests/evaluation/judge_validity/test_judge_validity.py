"""Judges against the truth: the numbers by hand, and the command on stored verdicts."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest
from PIL import Image
from run_folders import write_run

from evaluation.judge_validity.agreement import ratio, validity
from evaluation.judge_validity.judgements import Judged, Judgement
from evaluation.metrics.base import Score
from evaluation.metrics.ground_truth import GroundTruth
from trace_bench.system.files import write_json

CRITERION = "text_asset_alignment"
PROMPTS = [f"a {colour} cube" for colour in ("red", "orange", "yellow", "green", "blue", "purple", "pink")]


def judgement(prompt, result, truth, turned=False, pair="p"):
    return Judgement(CRITERION, prompt, f"{prompt} {pair}", result, truth, turned)


def test_the_numbers_of_four_verdicts_by_hand():
    made = [
        judgement("a", -1, -1),  # right
        judgement("a", -1, 1, turned=True),  # the same two assets in the other order: wrong, and inconsistent
        judgement("b", 0, 1),  # a draw
        judgement("b", 1, 0),  # the truth has no winner
    ]
    (row,) = validity(Judged("judge", "tournament t", made, left_out=2))
    assert (row.criterion, row.verdicts, row.prompts, row.left_out) == (CRITERION, 4, 2, 2)
    assert row.agreement.value == 0.5
    assert row.draws == 0.25
    assert row.left.value == pytest.approx(2 / 3)
    assert row.consistency == 0.0
    assert math.isnan(row.agreement.low)  # two prompts only


def test_equal_verdicts_in_both_orders_are_consistent():
    made = [judgement("a", -1, -1), judgement("a", 1, 1, turned=True), judgement("a", -1, -1)]
    (row,) = validity(Judged("judge", "t", made, 0))
    assert row.consistency == 1.0


def test_a_judge_without_sides_has_no_position_bias():
    (row,) = validity(Judged("clip", "t", [judgement("a", -1, -1)], 0, sides=False))
    assert math.isnan(row.left.value)


def test_the_interval_of_equal_clusters_is_students():
    counts = [(1, 2), (2, 2), (0, 2), (2, 2), (1, 2), (2, 2)]
    shares = np.array([y / n for y, n in counts])
    half = 2.5705818 * shares.std(ddof=1) / math.sqrt(6)  # t(5) at 0.975
    found = ratio(counts)
    assert found.value == pytest.approx(shares.mean())
    assert (found.low, found.high) == pytest.approx((shares.mean() - half, min(1.0, shares.mean() + half)))


def test_the_interval_covers_the_share_in_95_percent_of_clustered_samples():
    """Games of a prompt are correlated: each prompt has its own probability."""
    rng, hits, repeats = np.random.default_rng(0), 0, 600
    for _ in range(repeats):
        wins = rng.binomial(12, rng.beta(2.0, 2.0, 20))
        found = ratio([(int(y), 12) for y in wins])
        hits += found.low <= 0.5 <= found.high
    assert 0.92 <= hits / repeats <= 0.975


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    """Runs of three methods of which the truth prefers sds to vsd to trace, and the verdicts of a judge."""
    root = tmp_path / "outputs"
    place = {"sds": 0.9, "vsd": 0.8, "trace": 0.7}
    for method in place:
        for i, prompt in enumerate(PROMPTS):
            folder = write_run(root, method=method, prompt_id=str(i), prompt=prompt, count=len(PROMPTS))
            (folder / "renders").mkdir(exist_ok=True)
            Image.new("RGB", (8, 8), "white").save(folder / "renders" / "rgb_0.png")
    monkeypatch.setattr(GroundTruth, "files", lambda self, run: [run.rgb(0)])
    monkeypatch.setattr(GroundTruth, "applies", lambda self, run: True)

    def score(self, run):
        values = {"match": place[run.identity.method], "soft_iou": 0.9, "high_frequency": 1.0,
                  "normal_error": 9.0, "janus": None, "no_front": None}  # fmt: skip
        return Score(values, rows=[{"view": 0, "soft_iou": 0.9}], inapplicable=("janus", "no_front"))

    monkeypatch.setattr(GroundTruth, "score", score)
    return root


def store(root, games, kind="openai", name="a-model", **entry):
    folder = root / "gpteval3d" / name
    names = sorted({g[side] for items in games.values() for g in items for side in ("m1", "m2")})
    rows = [{"contestant": n, "method": n, "representation": "gaussians", "settings": {}} for n in names]
    tournament = {"name": "toy-tiny", "mode": "tournament", "prompt_set": "toy", "prior": "tiny", "seed": 0}
    tournament |= {"rows": rows} | entry
    judge = {"id": name, "kind": kind, "name": name, "instructions": None if kind == "clip" else "own"}
    folder.mkdir(parents=True)
    write_json(folder / "elo.json", {"schema_version": 1, "judge": judge, "tournaments": [tournament]})
    (folder / "toy-tiny").mkdir()
    write_json(folder / "toy-tiny" / "comparisons.json", games)


def game(left, right, result, prompt):
    return {"m1": left, "m2": right, "result": result, "prompt_id": str(prompt)}


def test_the_command_writes_table_and_figure(outputs, command):
    games = [game("sds", "vsd", -1, i) for i in range(6)] + [game("vsd", "trace", 1, 6)]
    games += [game("sds", "gone", -1, 0)]
    store(outputs, {CRITERION: games})
    code, out, err = command("judge_validity.__main__")
    assert code == 0, err
    assert "86 % [" in out
    assert "1 verdicts are left out" in out
    row = (outputs / "tables" / "judge_validity.csv").read_text().splitlines()[1]
    assert row.startswith("a-model,tournament toy-tiny,text_asset_alignment,7,7,0.857142857")
    with Image.open(outputs / "figures" / "judge_validity.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 5  # something is drawn


def test_runs_that_the_judge_has_not_seen_change_nothing(outputs, command, monkeypatch):
    """Of another representation, or pictures of which no truth is known: names say only what differs."""
    games = [game("sds", "vsd", -1, i) for i in range(7)]
    store(outputs, {CRITERION: games})
    seen = next(outputs.glob("runs/sds/gaussians/*/*/*/renders"))
    for representation in ("nerf", "image"):
        folder = write_run(outputs, representation=representation, prompt=PROMPTS[0], count=len(PROMPTS))
        shutil.copytree(seen, folder / "renders")
    monkeypatch.setattr(GroundTruth, "applies", lambda self, run: run.identity.representation != "image")
    code, out, err = command("judge_validity.__main__")
    assert code == 0, err
    assert "100 % [" in out
    assert "left out" not in out


def test_the_assets_are_those_that_were_judged(outputs, command, monkeypatch):
    """Of the tournament's seed and representation: those of another are better with another method."""
    worse = {"sds": 0.1, "vsd": 0.2}
    for method in worse:
        for i, prompt in enumerate(PROMPTS):
            for seed, representation in ((1, "gaussians"), (0, "nerf")):
                folder = write_run(outputs, method=method, prompt_id=str(i), prompt=prompt, seed=seed,
                                   representation=representation, count=len(PROMPTS))  # fmt: skip
                shutil.copytree(
                    next(outputs.glob("runs/sds/gaussians/*/*/*seed0*/renders")), folder / "renders"
                )
    first = GroundTruth.score

    def score(self, run):
        found = first(self, run)
        if (run.identity.seed, run.identity.representation) != (0, "gaussians"):
            found.values["match"] = worse[run.identity.method]
        return found

    monkeypatch.setattr(GroundTruth, "score", score)
    right = {CRITERION: [game("sds", "vsd", 1, i) for i in range(7)]}
    store(outputs, right, name="other-seed", seed=1)
    rows = [{"contestant": n, "method": n, "representation": "nerf", "settings": {}} for n in ("sds", "vsd")]
    store(outputs, right, name="nerf", rows=rows)
    store(outputs, {CRITERION: [game("sds", "vsd", -1, i) for i in range(7)]}, name="first")
    code, out, err = command("judge_validity.__main__")
    assert code == 0, err
    rows = [line for line in out.splitlines() if line.startswith(("| other-seed", "| nerf", "| first"))]
    assert len(rows) == 3
    assert all("| 100 % [100, 100] " in row for row in rows)
    assert "left out" not in out


def test_raters_of_a_study_are_a_judge_too(outputs, command):
    folder = outputs / "user_study" / "main"
    folder.mkdir(parents=True)
    head = "rater_id,prompt_id,ours,baseline,aspect,left_method,choice"
    votes = [f"r{r},{p},sds,vsd,fidelity,{'sds' if r else 'vsd'},{'left' if r else 'right'}"
             for r in range(2) for p in range(7)]  # fmt: skip
    votes += ["r0,0,sds,vsd,photorealism,sds,unknown", "r9,0,sds,vsd,fidelity,sds,right"]
    (folder / "user_study.csv").write_text("\n".join([head, *votes]) + "\n")
    about = {
        "prompt_set": "toy",
        "prior": "tiny",
        "raters": {"used": 2, "dropped": [{"rater": "r9", "reason": "-"}]},
    }
    (folder / "preferences.json").write_text(json.dumps(about))
    code, out, err = command("judge_validity.__main__")
    assert code == 0, err
    (line,) = [line for line in out.splitlines() if line.startswith("| 2 raters")]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == ["2 raters", "study main", "Text-asset alignment", "14", "100 % [100, 100]", "0 %",
                     "50 % [50, 50]", "100 %"]  # fmt: skip


def test_the_truth_is_not_compared_with_itself_and_nothing_is_one_sentence(outputs, command):
    store(outputs, {CRITERION: [game("sds", "vsd", -1, 0)]}, kind="truth", name="truth-1")
    code, _, err = command("judge_validity.__main__")
    assert code == 2
    assert err.startswith("No judge has compared toy assets")
    assert err.count("\n") == 1
