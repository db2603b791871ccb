"""The rewards in conf/reward, against the metrics that show them; missing weights are one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from configured import CONF
from small_clip import save_clip

from evaluation.metrics.load import configured_metrics
from trace_bench.rewards.base import make_reward, pictures_of
from trace_bench.rewards.clip_model import ClipModel
from trace_bench.system.errors import Unavailable

FILES = sorted((CONF / "reward").glob("*.yaml"))


def spec_of(name: str) -> dict:
    return yaml.safe_load((CONF / "reward" / f"{name}.yaml").read_text())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_reward_is_cited_and_says_which_metrics_show_it(path: Path) -> None:
    assert path.read_text().startswith("# @package method.reward\n")
    reward = make_reward(yaml.safe_load(path.read_text()))
    assert yaml.safe_load(path.read_text())["citation"]
    assert reward.metrics
    known = {found.stem for found in (CONF / "metric").glob("*.yaml")}
    assert set(reward.metrics) <= known
    assert json.dumps(reward.identity())
    module = Path(*type(reward).__module__.split("."))
    assert module.with_suffix(".py").is_file()


def test_pictures_have_eight_bits() -> None:
    rgb = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    rgb[0, 0, 0, 0], rgb[0, 0, 0, 1] = 1.5, -0.5
    first, second = (np.asarray(picture) for picture in pictures_of(rgb))
    assert first[0, 0, 0] == 255
    assert first[0, 1, 0] == 0
    assert np.abs(second.transpose(2, 0, 1) / 255.0 - rgb[1].numpy()).max() <= 0.5 / 255 + 1e-6


def test_clip_gives_what_the_metric_gives() -> None:
    """The same cosine for the same picture, and one count for each."""
    rgb = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    reward = make_reward(spec_of("tiny_clip"))
    metric = configured_metrics(["clip_score"])["clip_score"]
    declared = {k: v for k, v in metric.models["tiny"].items() if k in ("model", "pretrained", "quick_gelu")}
    model = ClipModel("tiny", **declared)
    cosines = model.embed_images(pictures_of(rgb), 8) @ model.embed_texts(["a red cube"])[0]
    assert reward("a red cube", rgb) == pytest.approx(100.0 * cosines, abs=1e-4)
    assert reward.counter.reward == 2


def test_the_weights_of_a_folder_are_its_identity(tmp_path: Path) -> None:
    made = [
        make_reward(
            {"_target_": "trace_bench.rewards.clip.Clip"}
            | {"model": f"local-dir:{save_clip(tmp_path / str(i), seed=seed)}"}
        )
        for i, seed in enumerate((0, 0, 1))
    ]
    one, same, other = (reward.identity() for reward in made)
    assert one == same != other


def test_a_checkpoint_is_its_identity(tmp_path: Path) -> None:
    def identity(content: bytes, name: str) -> dict:
        path = tmp_path / name
        path.write_bytes(content)
        return make_reward(spec_of("image_reward") | {"checkpoint": str(path)}).identity()

    assert identity(b"1", "a.pt") == identity(b"1", "b.pt") != identity(b"2", "c.pt")
    assert make_reward(spec_of("image_reward")).identity()["repo"] == "THUDM/ImageReward"


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        (
            "clip",
            {},
            r"\(openai\) are not on this machine: run `python -m trace_bench.prefetch",
        ),
        (
            "image_reward",
            {},
            r"weights \(1.8 GB\) are not on this machine: with a network, run",
        ),
        (
            "image_reward",
            {"checkpoint": "/nowhere.pt"},
            r"does not exist: fix method\.reward\.checkpoint",
        ),
    ],
)
def test_missing_weights_are_one_sentence(
    name: str, changes: dict, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(Unavailable, match=words) as error:
        make_reward(spec_of(name) | changes).files(download=False)
    assert "\n" not in str(error.value)


def test_a_clip_without_a_folder_is_one_sentence() -> None:
    with pytest.raises(Unavailable, match=r"set its folder with method\.reward\.model=local-dir:FOLDER"):
        make_reward(spec_of("tiny_clip") | {"model": "local-dir:/nowhere"})


def test_operations_are_counted_without_weights() -> None:
    """A patch embedding, two layers of width 64 on 17 tokens, and a projection; kept in the cache."""
    reward = make_reward(spec_of("tiny_clip"))
    assert 1e-5 < reward.tflop() < 1e-4
