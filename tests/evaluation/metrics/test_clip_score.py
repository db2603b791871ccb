"""The CLIP score against direct open_clip calls, and the choice of model by prior."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from run_folders import draw, only_run, write_run
from small_clip import save_clip

from evaluation.metrics.base import score_run
from evaluation.metrics.clip_score import ClipScore
from trace_bench.rewards.clip_model import ClipModel
from trace_bench.run_folder.manifest import read_manifest
from trace_bench.run_folder.reading import Run
from trace_bench.system.config_path import conf_dir
from trace_bench.system.errors import TraceBenchError, Unavailable
from trace_bench.toyworld.captions import parse

CAPTIONS = ["a red cube", "a blue cube", "a duck", "a tree"]


@pytest.fixture
def run(tmp_path):
    folder = write_run(tmp_path, prompt="a duck")
    draw(folder, "a duck", views=6)
    return only_run(tmp_path)


def metric(folder, **model) -> ClipScore:
    kept = {key: model.pop(key) for key in ("batch_size",) if key in model}
    return ClipScore({"own": {"model": f"local-dir:{folder}"} | model}, {"tiny": "own"}, device="cpu", **kept)


def cosines_by_hand(folder, run, texts) -> np.ndarray:
    """[V, T], one picture at a time."""
    network, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    network.eval()
    with torch.no_grad():
        text = network.encode_text(open_clip.get_tokenizer(f"local-dir:{folder}")(texts))
        pictures = [Image.open(run.rgb(i)) for i in range(len(run.cameras))]
        image = torch.cat([network.encode_image(preprocess(picture)[None]) for picture in pictures])
    image, text = image / image.norm(dim=-1, keepdim=True), text / text.norm(dim=-1, keepdim=True)
    return (image @ text.T).numpy()


def test_the_score_is_the_formula(clip_folder, run):
    found = metric(clip_folder).score(run)
    cosines = cosines_by_hand(clip_folder, run, ["a duck"])[:, 0]
    assert [row["cosine"] for row in found.rows] == pytest.approx(cosines, abs=2e-6)
    assert found.values == {"clip_score": pytest.approx(100 * np.maximum(cosines, 0).mean(), abs=2e-4)}


def test_negative_cosines_count_as_zero(clip_folder, run, monkeypatch):
    monkeypatch.setattr(ClipModel, "embed_images", lambda self, images, size: np.eye(2)[[0, 0, 0, 0, 1, 1]])
    monkeypatch.setattr(ClipModel, "embed_texts", lambda self, texts: np.array([[0.6, -0.8]]))
    found = metric(clip_folder).score(run)
    assert found.values["clip_score"] == pytest.approx(100 * 0.6 * 4 / 6, abs=1e-4)
    assert found.rows[5]["cosine"] == pytest.approx(-0.8)


def test_batches_do_not_change_the_score(clip_folder, run):
    scores = [metric(clip_folder, batch_size=size, captions=CAPTIONS).score(run) for size in (1, 4, 64)]
    for other in scores[1:]:
        assert other.values == pytest.approx(scores[0].values, abs=1e-4)
        assert [row["cosine"] for row in other.rows] == pytest.approx(
            [r["cosine"] for r in scores[0].rows], abs=2e-6
        )


@pytest.mark.parametrize("prompt", ["a duck", "a purple ring"])
def test_rank_among_as_many_captions_as_the_list_has(clip_folder, tmp_path, prompt):
    draw(write_run(tmp_path, prompt=prompt), "a duck", views=6)
    run = only_run(tmp_path)
    found = metric(clip_folder, captions=CAPTIONS).score(run)
    others = [caption for caption in CAPTIONS if caption != prompt][:3]
    cosines = cosines_by_hand(clip_folder, run, [prompt, *others])
    rank = 1 + int((cosines.mean(0)[1:] > cosines.mean(0)[0]).sum())
    assert found.values["clip_rank"] == rank
    assert found.values["recognised"] == int(rank == 1)
    assert found.values["r_precision"] == pytest.approx((cosines.argmax(1) == 0).mean())
    assert found.details["captions"] == 4
    assert found.details["taken_for"] == [prompt, *others][int(cosines.mean(0).argmax())]


def test_the_views_of_a_model_are_limited(clip_folder, run):
    found = metric(clip_folder, views=2).score(run)
    assert [row["view"] for row in found.rows] == [0, 3]


def test_the_prior_chooses_the_model(clip_folder, tmp_path):
    models = {
        name: {"model": f"local-dir:{clip_folder}", "views": n} for name, n in (("small", 1), ("large", 2))
    }
    draw(write_run(tmp_path, prior="sd21"), "a red cube", views=4)
    run = only_run(tmp_path)
    assert len(ClipScore(models, {"tiny": "small"}, default="large").files(run)) == 2
    assert len(ClipScore(models, {"sd21": "small"}, default="large").files(run)) == 1
    assert not ClipScore(models, {"tiny": "small"}).applies(run)
    with pytest.raises(TraceBenchError, match="uses the model medium"):
        ClipScore(models, {"tiny": "medium"})


def test_other_weights_make_the_score_new(clip_folder, run, tmp_path):
    assert score_run(metric(clip_folder), run)
    assert not score_run(metric(clip_folder, batch_size=1), run)
    other = metric(save_clip(tmp_path / "other", seed=1))
    other.models["own"]["model"] = metric(clip_folder).models["own"][
        "model"
    ]  # the same settings, other weights
    other._loaded["own"] = ClipModel("own", f"local-dir:{tmp_path / 'other'}")
    assert score_run(other, run)


@pytest.mark.parametrize("declared", [True, False])
def test_an_activation_that_is_not_the_declared_one_is_refused(tmp_path, run, declared):
    folder = save_clip(tmp_path / "gelu", quick_gelu=not declared)
    with pytest.raises(TraceBenchError, match=f"declared with quick_gelu={str(declared).lower()}"):
        metric(folder, quick_gelu=declared).score(run)
    assert metric(folder, quick_gelu=not declared).score(run).values["clip_score"] is not None


def test_a_transparent_render_is_refused(clip_folder, run):
    Image.open(run.rgb(1)).convert("RGBA").save(run.rgb(1))
    with pytest.raises(TraceBenchError, match=r"rgb_1.png has mode RGBA"):
        metric(clip_folder).score(run)


def test_a_model_that_is_not_there_is_unavailable(tmp_path, run):
    with pytest.raises(Unavailable, match=r"models\.own\.model=local-dir:FOLDER"):
        score_run(metric(tmp_path / "nowhere"), run)


def test_weights_that_cannot_be_fetched_are_asked_for_once(run, monkeypatch):
    import open_clip.pretrained

    calls = []

    def offline(config):
        calls.append(config)
        raise ConnectionError("no network")

    monkeypatch.setattr(open_clip.pretrained, "download_pretrained", offline)
    judge = ClipScore({"own": {"model": "ViT-B-32-quickgelu", "pretrained": "openai"}}, {"tiny": "own"})
    for _ in range(3):
        with pytest.raises(Unavailable, match=r"models\.own\.pretrained=FILE"):
            score_run(judge, run)
    assert len(calls) == 1


def test_an_unknown_tag_is_refused(run):
    judge = ClipScore({"own": {"model": "ViT-B-32-quickgelu", "pretrained": "mine"}}, {"tiny": "own"})
    with pytest.raises(TraceBenchError, match="no weights 'mine'"):
        score_run(judge, run)


def test_a_prompt_that_is_cut_is_said_so(clip_folder, caplog):
    model = ClipModel("own", f"local-dir:{clip_folder}", device="cpu")
    with caplog.at_level(logging.WARNING):
        model.embed_texts(["a red cube"])
        assert not caplog.records
        model.embed_texts([" ".join(["word"] * 40)])
    assert "only the beginning" in caplog.text


def test_the_score_file_says_that_the_prompt_was_cut(clip_folder, tmp_path):
    """14 tokens and the two ends fill the tiny context of 16, and one more is too many."""
    for i, (words, cut) in enumerate(((14, False), (15, True))):
        folder = write_run(tmp_path, prompt=" ".join(["red"] * words), prompt_id=str(i))
        draw(folder, "a red cube", views=2)
        score = metric(clip_folder).score(Run(folder, read_manifest(folder)))
        assert score.details["prompt_cut"] is cut


def test_the_declared_captions_are_32_different_toy_captions():
    declared = OmegaConf.load(Path(conf_dir()) / "metric" / "clip_score.yaml")
    captions = list(declared.models.tiny.captions)
    assert len(captions) == len(set(captions)) == 32
    assert [parse(caption)[0].text for caption in captions] == captions
