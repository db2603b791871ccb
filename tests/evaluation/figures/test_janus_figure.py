"""The figure of view phrases and Perp-Neg, from run folders with given scores."""

from __future__ import annotations

import pytest
from run_folders import write_run, write_score

from evaluation.figures import style
from evaluation.figures.base import Data, NothingToDraw
from evaluation.figures.janus import PERP_NEG, WITH, WITHOUT, compared, draw
from evaluation.metrics.load import configured_metrics
from evaluation.results.collect import collect
from evaluation.results.names import display_names

PROMPTS = 8
TEXTS = {WITH: "view_phrases: true\n", WITHOUT: "view_phrases: false\n",
         PERP_NEG: "view_phrases: true\nmethod:\n  perp_neg: true\n"}  # fmt: skip


def runs(root, values, seed=0):
    """A run per method, text and prompt; None is an asset without a front."""
    metrics = configured_metrics(["ground_truth"])
    for (method, text), numbers in values.items():
        for i, number in enumerate(numbers):
            folder = write_run(
                root, method=method, prompt_set="toy_janus", prior="tiny", prompt_id=str(i),
                prompt=f"a duck {i}", representation="gaussians", variant=text, seed=seed,
            )  # fmt: skip
            (folder / "config.yaml").write_text(TEXTS[text])
            write_score(folder, metrics["ground_truth"], janus=number, no_front=int(number is None))
    results = collect(root, metrics)
    assert not results.problems
    return Data(results, metrics, display_names(results.frame), ["sds", "ism"], root)


@pytest.fixture
def data(tmp_path):
    low = [0.1 + 0.01 * i for i in range(PROMPTS)]
    values = {
        ("ism", WITH): low, ("ism", WITHOUT): [v + 0.2 for v in low],
        ("ism", PERP_NEG): [v + 0.001 for v in low],
        ("sds", WITH): low, ("sds", WITHOUT): [None, None, *(v + 0.3 for v in low[2:])],
        ("vsd", WITH): low,
    }  # fmt: skip
    return runs(tmp_path, values)


def test_numbers(data):
    numbers = compared(data, "toy_janus", "tiny").set_index(["method", "text"])
    assert list(dict.fromkeys(numbers.index.get_level_values(0))) == ["sds", "ism"], "vsd has no second text"
    row = numbers.loc[("ism", WITHOUT)]
    assert row["difference"] == pytest.approx(0.2)
    assert row["both"] == PROMPTS
    assert row["p"] <= 0.05
    row = numbers.loc[("sds", WITHOUT)]
    assert row["difference"] == pytest.approx(0.3), "only prompts where both have a front"
    assert (row["both"], row["no_front"], row["janus_prompts"]) == (PROMPTS - 2, 2, PROMPTS - 2)
    lost = [(1.0 - 0.1) + (1.0 - 0.11), 0.3 * (PROMPTS - 2)]
    assert row["fault_difference"] == pytest.approx(sum(lost) / PROMPTS), "a lost front counts as 1"


def test_drawing(data):
    with style.style():
        drawing = draw(data)
    left, right = drawing.figure.axes
    assert [tick.get_text() for tick in left.get_yticklabels()] == ["SDS", "ISM"]
    assert {text.get_text() for text in left.texts} >= {"0 · 2", "0 · 0 · 0"}
    assert len(right.lines) == 1 + 2 * 3
    assert "8 objects with a front), prior tiny, one seed" in drawing.caption
    assert "over all prompts, the differences without view phrases are SDS +0.45 [" in drawing.caption


def test_seeds_are_no_objects(tmp_path):
    values = {("ism", text): [0.1, 0.2, 0.3] for text in (WITH, WITHOUT)}
    runs(tmp_path, values)
    drawing = draw(runs(tmp_path, values, seed=1))
    assert "3 objects with a front), prior tiny, 2 seeds" in drawing.caption
    assert drawing.numbers["runs"].tolist() == [6, 6]


def test_nothing_to_draw(tmp_path):
    with pytest.raises(NothingToDraw, match="experiment=janus"):
        draw(runs(tmp_path, {("sds", WITH): [0.1]}))
