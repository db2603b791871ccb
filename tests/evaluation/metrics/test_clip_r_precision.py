"""CLIP R-Precision with the tiny CLIP: candidates, ties, both models."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from run_folders import draw, only_run, write_run
from small_clip import save_clip

from evaluation.metrics.base import score_run
from evaluation.metrics.clip_r_precision import ClipRPrecision
from evaluation.metrics.load import configured_metrics
from evaluation.results.collect import collect
from trace_bench.rewards.clip_model import ClipModel
from trace_bench.run_folder.index import read_index
from trace_bench.system.errors import TraceBenchError, Unavailable

TINY = {"model": "pkg://trace_bench/models/tiny_clip"}


PROMPTS = ["a red cube", "a duck", "a tree", "a blue torus"]


@pytest.fixture
def run(tmp_path):
    folder = write_run(tmp_path, prompt="a duck", prompt_set="mine")
    draw(folder, "a duck", views=6)
    (folder / "config.yaml").write_text(yaml.safe_dump({"prompt_set": {"prompts": PROMPTS}}))
    return only_run(tmp_path)


def metric(**settings):
    models = {"b32": TINY, "l14": TINY}
    return ClipRPrecision(models, {}, {}, views=6, device="cpu", **settings)


def test_candidates_are_the_prompts_of_the_set(run):
    texts = metric().texts(run)
    assert texts == ["a duck", "a red cube", "a tree", "a blue torus"]
    found = metric().score(run)
    assert found.details["captions"] == len(texts)
    assert found.details["chance_percent"] == pytest.approx(100 / len(texts), abs=1e-3)


def test_the_share_of_views_by_hand(run, monkeypatch):
    """The spec's example: by view two of three hit, by the mean of the cosines the prompt is first."""
    cosines = np.array([[0.31, 0.30, 0.20, 0.10], [0.25, 0.27, 0.26, 0.10], [0.40, 0.10, 0.20, 0.30]])
    monkeypatch.setattr(ClipModel, "embed_images", lambda self, images, size: np.repeat(cosines, 2, axis=0))
    monkeypatch.setattr(ClipModel, "embed_texts", lambda self, texts: np.eye(4))
    captions = ["a duck", "a", "b", "c"]
    by_view = metric(captions=captions).score(run)
    assert by_view.values["r_precision_first"] == pytest.approx(200 / 3, abs=1e-3)
    assert [row["first_b32"] for row in by_view.rows] == [True, True, False, False, True, True]
    assert metric(captions=captions, aggregate="mean").score(run).values["r_precision_first"] == 100.0


def test_a_prior_with_one_model_has_no_second_number(run):
    judge = configured_metrics(["clip_r_precision"])["clip_r_precision"]
    found = judge.score(run)
    assert found.inapplicable == ("r_precision_second",)
    assert found.values["r_precision_second"] is None
    assert found.values["r_precision_first"] > 50.0, "the truth is found among its prompts"


def test_all_prompts_of_a_set_have_one_judge(tmp_path):
    for i, prompt in enumerate(PROMPTS[:2]):
        folder = write_run(tmp_path, prompt=prompt, prompt_id=str(i), prompt_set="mine")
        draw(folder, prompt, views=2)
        (folder / "config.yaml").write_text(yaml.safe_dump({"prompt_set": {"prompts": PROMPTS}}))
    judge = metric()
    for run in read_index(tmp_path).runs.values():
        score_run(judge, run)
    frame = collect(tmp_path, {"clip_r_precision": judge}).frame
    assert frame["clip_r_precision_judge"].nunique() == 1
    assert frame["r_precision_first"].notna().all()


def test_captions_from_a_file(run, tmp_path):
    path = tmp_path / "captions.txt"
    path.write_text("a red cube\n\na duck\na tree\n")
    assert metric(captions=str(path)).texts(run) == ["a duck", "a red cube", "a tree"]
    path.write_text("a duck\n")
    with pytest.raises(TraceBenchError, match="fewer than two captions"):
        metric(captions=str(path)).texts(run)
    with pytest.raises(TraceBenchError, match="use prompt_set, or a text file"):
        metric(captions=str(tmp_path / "none.txt")).texts(run)


def test_other_captions_and_other_weights_make_the_score_new(run, tmp_path):
    judge = metric(captions=["a duck", "a tree"])
    assert score_run(judge, run)
    assert not score_run(metric(captions=["a duck", "a tree"], batch_size=2), run)
    assert score_run(metric(captions=["a duck", "a bear"]), run)
    judge.models["l14"]["model"] = f"local-dir:{save_clip(tmp_path / 'other', seed=1)}"
    judge._loaded.clear()
    assert score_run(judge, run)


@pytest.mark.parametrize(
    "config", [None, "prompt_set: 3", "prompt_set: {file: nowhere.txt}", "prompt_set: {"]
)
def test_prompts_that_are_not_at_hand_are_told(run, config):
    path = run.folder / "config.yaml"
    path.unlink() if config is None else path.write_text(config)
    with pytest.raises(Unavailable, match=r"clip_r_precision\.captions=FILE"):
        score_run(metric(), run)


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"aggregate": "max"}, "use view or mean"), ({"batch_size": 0}, "batch_size >= 1")],
)
def test_mistakes_are_refused(settings, words):
    with pytest.raises(TraceBenchError, match=words):
        metric(**settings)
