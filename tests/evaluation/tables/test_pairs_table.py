"""Pairs of methods, bold, and the choice of prompts and methods."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from run_folders import write_run, write_score

from evaluation.metrics.ground_truth import GroundTruth

TRUTH = GroundTruth()
ONLY = "metric=[ground_truth]"


def add(root, method: str, ious, count: int | None = None, first: int = 0, **identity) -> None:
    """One run per IoU, of the prompts first, first + 1, ..."""
    for i, iou in enumerate(ious, start=first):
        folder = write_run(
            root, method=method, prompt_id=str(i), prompt=f"prompt {i}", count=count, **identity
        )
        write_score(folder, TRUTH, soft_iou=float(iou), colour_error=10.0, depth_error=0.1, chamfer=0.05)


def read(root, name: str) -> pd.DataFrame:
    return pd.read_csv(root / "tables" / f"{name}-toy-tiny.csv")


def test_pairs_say_what_is_decided_and_bold_agrees(tmp_path, command):
    root, rng = tmp_path / "outputs", np.random.default_rng(0)
    base = rng.uniform(0.4, 0.6, 8)
    add(root, "sds", base)
    add(root, "vsd", base + 0.02 * np.array([1, -1, 1, -1, 1, 1, -1, -1]))
    add(root, "trace", base + 0.1 + rng.normal(0, 0.01, 8))
    code, out, _ = command("tables", "table=[methods,pairs]", ONLY)
    assert code == 0
    pairs = read(root, "pairs")
    iou = pairs[pairs["metric"] == "soft_iou"].set_index(["a", "b"])
    assert iou["decided"].to_dict() == {("SDS", "VSD"): False, ("SDS", "TraCe"): True, ("VSD", "TraCe"): True}
    assert iou["better"].dropna().tolist() == ["TraCe", "TraCe"]
    assert iou["p"].tolist()[1] == pytest.approx(2 / 2**8)
    assert iou["p_holm"].tolist()[1] == pytest.approx(3 * 2 / 2**8)
    assert "Decided: IoU 2 of 3, ΔE 0 of 3" in out
    assert f"**{base.mean() + 0.1:.1f}"[:4] in out
    assert "cannot decide" not in out


def test_a_partial_number_is_bold_only_if_it_leads_on_common_prompts(tmp_path, command):
    """TraCe is worse than SDS where both have a front, and its mean is lower by prompts that SDS lacks."""
    root = tmp_path / "outputs"
    for i in range(36):
        for method, janus in (("sds", 0.3 + 0.001 * i), ("trace", 0.4 + 0.001 * i if i < 12 else 0.0)):
            folder = write_run(root, method=method, prompt_id=str(i), prompt=f"prompt {i}")
            values = {"soft_iou": 0.5, "colour_error": 10.0, "depth_error": 0.1, "chamfer": 0.05}
            write_score(folder, TRUTH, **values, janus=janus if method == "trace" or i < 12 else None)
    _, out, _ = command("tables", "table=[methods,pairs]", ONLY)
    lines = [[cell.strip() for cell in line.split("|")] for line in out.splitlines() if line.startswith("| ")]
    at = next(i for i, title in enumerate(lines[0]) if "Janus" in title)
    cells = {line[1]: line[at] for line in lines if line[1] in ("SDS", "TraCe")}
    assert cells["SDS"].startswith("0.31")
    assert cells["TraCe"].startswith("_0.14")
    pairs = read(root, "pairs").set_index("metric").loc["janus"]
    assert pairs["better"] == "SDS"


@pytest.mark.slow
def test_pairs_that_nothing_could_decide_are_said_to_be_so(tmp_path, command):
    root = tmp_path / "outputs"
    for k, method in enumerate(["sds", "csd", "vsd", "sdi", "ism", "trace"]):
        add(root, method, np.linspace(0.1, 0.2, 8) + 0.1 * k)
    _, out, _ = command("tables", "table=[methods,pairs]", ONLY)
    pairs = read(root, "pairs")
    assert len(pairs) == 15 * 4
    assert not pairs["decided"].any()
    assert not pairs["can_be_decided"].any()
    assert "8 prompts cannot decide any of 15 pairs: their smallest p is .0078" in out
    assert "at most .0033; use 10 prompts or more, or compare at most 4 methods" in out
    assert "cannot be" in out
    assert "**" not in out
    _, out, _ = command("tables", "table=pairs", ONLY, "tables.methods=[sds,trace]")
    assert read(root, "pairs")["decided"].tolist() == [True, False, False, False]


def test_five_prompts_have_no_interval(tmp_path, command):
    root = tmp_path / "outputs"
    add(root, "sds", [0.1] * 5)
    add(root, "trace", [0.2, 0.3, 0.4, 0.5, 0.6])
    _, out, _ = command("tables", "table=pairs", ONLY)
    assert "Fewer than 6 prompts decide nothing; use 6 prompts or more" in out
    assert read(root, "pairs")["low"].isna().all()


def test_a_sweep_of_some_prompts_has_means(tmp_path, command):
    root = tmp_path / "outputs"
    add(root, "sds", [0.1, 0.2, 0.3], count=110)
    add(root, "trace", [0.5, 0.9], count=110, first=1)
    _, out, _ = command("tables", "table=methods", ONLY)
    assert "the 2 of 110 prompts that all rows have" in out
    assert read(root, "methods")["soft_iou_mean"].tolist() == pytest.approx([0.25, 0.7])
    command("tables", "table=methods", ONLY, "tables.over=all_prompts")
    assert read(root, "methods")["soft_iou_mean"].isna().all()


def test_common_prompts_where_one_row_is_complete(tmp_path, command):
    root = tmp_path / "outputs"
    add(root, "sds", [0.1, 0.2, 0.3], count=3)
    add(root, "trace", [0.5, 0.9], count=3)
    command("tables", "table=methods", ONLY)
    assert read(root, "methods")["soft_iou_mean"].isna().tolist() == [False, True]
    command("tables", "table=methods", ONLY, "tables.over=common_prompts")
    assert read(root, "methods")["soft_iou_mean"].tolist() == pytest.approx([0.15, 0.7])


@pytest.mark.slow
@pytest.mark.parametrize(("setting", "sentence"), [
    ("tables.over=some", "tables.over=some is invalid: use auto, all_prompts or common_prompts."),
    ("tables.over=common_prompts", "no prompt of toy has an asset of every row"),
    ("tables.methods=[sds,sdss]", "is invalid: use some of those with results here, sds, trace."),
    ("tables.methods=[]", "is invalid: use some of those with results here, sds, trace."),
])  # fmt: skip
def test_a_wrong_choice_is_one_sentence(tmp_path, command, setting, sentence):
    root = tmp_path / "outputs"
    add(root, "sds", [0.1], count=3)
    add(root, "trace", [0.5], count=3, first=1)
    code, _, err = command("tables", "table=methods", ONLY, setting)
    assert code == 2
    assert sentence in err
    assert err.count("\n") == 1
