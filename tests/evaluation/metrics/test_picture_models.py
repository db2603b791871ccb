"""HPSv2.1, PickScore and the aesthetic predictor with small random networks of the same classes."""

from __future__ import annotations

import json

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from run_folders import draw, only_run, write_run
from small_clip import save_clip
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as transform
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

from evaluation.metrics.aesthetic import Aesthetic, affine
from evaluation.metrics.base import score_run
from evaluation.metrics.hps import HPS
from evaluation.metrics.pick_score import PickScore
from trace_bench.system.errors import TraceBenchError, Unavailable
from trace_bench.system.model_files import resolve

SMALL = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}
HEAD = [(0, 1024), (2, 128), (4, 64), (6, 16), (7, 1)]  # layers of the aesthetic predictor


@pytest.fixture
def run(tmp_path):
    draw(write_run(tmp_path, prompt="a duck", prior="sd21"), "a duck", views=6)
    return only_run(tmp_path)


# --- HPSv2.1 ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def architecture(tmp_path_factory):
    """A small network by open_clip's name, and a file of random weights in the authors' form."""
    folder = tmp_path_factory.mktemp("configs")
    (folder / "hps-small.json").write_text(json.dumps(SMALL))
    open_clip.add_model_config(folder / "hps-small.json")
    torch.manual_seed(0)
    network = open_clip.create_model("hps-small", pretrained=None)
    for value in network.parameters():
        value.data += 0.05 * torch.randn_like(value)
    torch.save({"state_dict": network.state_dict()}, folder / "hps.pt")
    return network.eval(), folder / "hps.pt"


def hps(path, **settings):
    return HPS(checkpoint=str(path), architecture="hps-small", device="cpu", views=6, **settings)


def test_hps_is_the_cosine_of_pictures_resized_as_tensors(architecture, run):
    network, path = architecture
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    cosines = []
    with torch.no_grad():
        text = network.encode_text(open_clip.get_tokenizer("hps-small")(["a duck"]))[0]
        for i in range(6):
            pixels = transform.to_tensor(Image.open(run.rgb(i)))
            pixels = transform.resize(pixels, [32], InterpolationMode.BICUBIC, antialias=True)
            image = network.encode_image(transform.normalize(pixels, mean, std)[None])[0]
            cosines.append(float(torch.nn.functional.cosine_similarity(image, text, dim=0)))
    found = hps(path).score(run)
    assert [row["hps"] for row in found.rows] == pytest.approx([100 * c for c in cosines], abs=1e-4)
    assert found.values["hps"] == pytest.approx(100 * np.mean(cosines), abs=1e-4)
    assert found.details["prompt_cut"] is False


def test_hps_puts_a_picture_that_is_not_square_on_black(architecture):
    pixels = hps(architecture[1]).pixels(Image.new("RGB", (64, 32), "white"))
    black, white = (-0.48145466 / 0.26862954, (1.0 - 0.48145466) / 0.26862954)
    assert pixels.shape == (3, 32, 32)
    assert pixels[0, :8] == pytest.approx(black, abs=1e-4)
    assert pixels[0, 24:] == pytest.approx(black, abs=1e-4)
    assert pixels[0, 8:24] == pytest.approx(white, abs=1e-4)


def test_hps_does_not_depend_on_the_batch(architecture, run):
    path = architecture[1]
    alone, together = (hps(path, batch_size=size).score(run) for size in (1, 16))
    assert alone.values == pytest.approx(together.values, abs=1e-4)


def test_hps_refuses_other_weights(architecture, run, tmp_path):
    path = tmp_path / "other.pt"
    torch.save({"state_dict": {"logit_scale": torch.zeros(())}}, path)
    with pytest.raises(TraceBenchError, match=r"it is not HPSv2\.1"):
        hps(path).score(run)


def test_nothing_but_tensors_is_loaded(run, tmp_path):
    class Surprise:
        def __reduce__(self):
            return (print, ("loaded",))

    path = tmp_path / "odd.pt"
    torch.save({"state_dict": Surprise()}, path)
    with pytest.raises(TraceBenchError, match="is not a file of tensors"):
        hps(path).score(run)


def test_other_weights_make_the_score_new(architecture, run, tmp_path):
    path = architecture[1]
    assert score_run(hps(path), run)
    assert not score_run(hps(path), run)
    state = torch.load(path, weights_only=True)["state_dict"]
    torch.save({"state_dict": {key: value + 0.01 for key, value in state.items()}}, tmp_path / "new.pt")
    assert score_run(hps(tmp_path / "new.pt"), run)


# --- PickScore --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pick_folder(tmp_path_factory):
    """A small random CLIPModel with the tiny prior's tokenizer."""
    folder = tmp_path_factory.mktemp("pick")
    shared = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 4}
    tokenizer = CLIPTokenizer.from_pretrained(
        resolve("pkg://trace_bench/models/tiny_prior", None, []), subfolder="tokenizer"
    )
    config = CLIPConfig(
        text_config=shared | {"vocab_size": len(tokenizer), "max_position_embeddings": 77, "bos_token_id": 0,
                              "eos_token_id": tokenizer.eos_token_id},
        vision_config=shared | {"image_size": 32, "patch_size": 8}, projection_dim=16,
    )  # fmt: skip
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(folder)
    pictures = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(pictures, tokenizer).save_pretrained(folder)
    return folder


def pick(folder, **settings):
    return PickScore(repo=str(folder), processor=str(folder), device="cpu", views=6, **settings)


def test_pick_score_is_the_logit_of_the_model(pick_folder, run):
    network = CLIPModel.from_pretrained(pick_folder).eval()
    processor = CLIPProcessor.from_pretrained(pick_folder)
    pictures = [Image.open(run.rgb(i)) for i in range(6)]
    with torch.no_grad():
        inputs = processor(text="a duck", images=pictures, return_tensors="pt")
        expected = network(**inputs).logits_per_text[0]
    found = pick(pick_folder).score(run)
    assert [row["pick_score"] for row in found.rows] == pytest.approx(expected.tolist(), abs=1e-4)
    assert found.values["pick_score"] == pytest.approx(float(expected.mean()), abs=1e-4)


def test_pick_score_refuses_a_network_without_a_part(pick_folder, run, tmp_path):
    from safetensors.torch import load_file, save_file

    for path in pick_folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    state = load_file(tmp_path / "model.safetensors")
    del state["logit_scale"]
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(TraceBenchError, match="lacks logit_scale, so it is not PickScore"):
        pick(tmp_path).score(run)


def test_pick_score_says_if_a_prompt_is_cut(pick_folder):
    judge = pick(pick_folder)
    assert not judge.is_cut("a duck")
    assert judge.is_cut(" ".join(["red"] * 80))


# --- LAION aesthetic --------------------------------------------------------------------------------------


def head(seed=0, width=768):
    """Random layers of the published shape: 768-1024-128-64-16-1."""
    rng = torch.Generator().manual_seed(seed)
    state, before = {}, width
    for i, after in HEAD:
        state[f"layers.{i}.weight"] = torch.randn(after, before, generator=rng) / before**0.5
        state[f"layers.{i}.bias"] = torch.randn(after, generator=rng)
        before = after
    return state


def test_the_head_is_one_affine_map():
    state = head()
    layers = torch.nn.Sequential()
    for i, _ in HEAD:
        weight = state[f"layers.{i}.weight"]
        layers.append(torch.nn.Linear(weight.shape[1], weight.shape[0]))
        layers[-1].load_state_dict({"weight": weight, "bias": state[f"layers.{i}.bias"]})
    features = torch.nn.functional.normalize(
        torch.randn(10, 768, generator=torch.Generator().manual_seed(1)), dim=-1
    )
    weight, bias = affine(state)
    with torch.no_grad():
        assert features.numpy() @ weight + bias == pytest.approx(layers(features)[:, 0].numpy(), abs=1e-5)


def test_aesthetic_is_the_head_of_the_features(run, tmp_path):
    folder = save_clip(tmp_path / "clip")
    probe = open_clip.create_model(f"local-dir:{folder}")
    state = head(width=probe.visual.output_dim)
    torch.save(state, tmp_path / "head.pth")
    judge = Aesthetic(
        url="file:///nowhere", sha256="0" * 64, checkpoint=str(tmp_path / "head.pth"),
        clip={"model": f"local-dir:{folder}"}, device="cpu", views=3,
    )  # fmt: skip
    found = judge.score(run)
    weight, bias = affine(state)
    features = judge.clip.embed_images([Image.open(run.rgb(i)) for i in (0, 2, 4)], 8)
    assert np.linalg.norm(features, axis=1) == pytest.approx(1.0, abs=1e-5)
    assert [row["aesthetic"] for row in found.rows] == pytest.approx(list(features @ weight + bias), abs=1e-5)
    assert [row["view"] for row in found.rows] == [0, 2, 4]


def test_aesthetic_refuses_another_network(run, tmp_path):
    torch.save({"layers.0.weight": torch.zeros(4, 4)}, tmp_path / "head.pth")
    judge = Aesthetic(
        url="file:///nowhere", sha256="0" * 64, checkpoint=str(tmp_path / "head.pth"),
        clip={"model": f"local-dir:{save_clip(tmp_path / 'clip')}"}, device="cpu",
    )  # fmt: skip
    with pytest.raises(TraceBenchError, match="does not have the layers of the aesthetic predictor"):
        judge.score(run)


# --- what is missing --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("judge", "words"),
    [
        (HPS(checkpoint="nowhere.pt"), r"fix metrics\.hps\.checkpoint"),
        (HPS(repo="nobody/nothing"), r"prefetch metric=hps"),
        (PickScore(repo="nobody/nothing"), r"prefetch metric=pick_score"),
        (
            Aesthetic(url="file:///nowhere.pth", sha256="0" * 64, clip={"model": "ViT-L-14-quickgelu"}),
            r"metrics\.aesthetic\.checkpoint=FILE",
        ),
    ],
)
def test_missing_weights_are_one_sentence(judge, words, run, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(Unavailable, match=words):
        score_run(judge, run)


@pytest.mark.parametrize("name", ["hps", "pick_score", "aesthetic", "clip_r_precision"])
def test_they_are_not_computed_unless_asked_for(name):
    from evaluation.metrics.load import configured_metrics

    assert name not in configured_metrics()
    assert name in configured_metrics(["default", name])


def test_toy_renders_are_left_out():
    for judge in (HPS(skip_priors=["tiny"]), PickScore(skip_priors=["tiny"])):
        assert not judge.concerns("tiny")
        assert judge.concerns("sd21")
