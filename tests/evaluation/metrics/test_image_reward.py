"""ImageReward: the mapped network against recorded outputs of the package, the loader, and scoring a run."""

from __future__ import annotations

import logging
import re
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from bert_vocabulary import save_tokenizer
from PIL import Image
from run_folders import draw, only_run, write_run

from evaluation.metrics.base import score_run
from evaluation.metrics.image_reward.metric import ImageReward
from trace_bench.rewards.image_reward.network import RewardNetwork, Sizes, load_checkpoint, map_key
from trace_bench.system.errors import TraceBenchError, Unavailable

SMALL = Sizes(
    image=48, vision=(32, 2, 4), text=(24, 2, 4), vocabulary=48, positions=16, head=(16, 8, 8, 4, 1)
)
#: Small, but with BERT's vocabulary size and pictures of 224 pixels.
FULL_INPUTS = Sizes(vision=(32, 1, 4), text=(24, 1, 4), vocabulary=30524, positions=64, head=(16, 8, 8, 4, 1))


@pytest.fixture(scope="module")
def recorded() -> dict[str, torch.Tensor]:
    """Weights, inputs and outputs recorded from the package (image_reward_reference.py small)."""
    with np.load(Path(__file__).parent / "data" / "image_reward_small.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def save(recorded, path: Path, **changes) -> Path:
    state = {key: value for key, value in recorded.items() if not key.startswith("case_")} | changes
    unused = {
        "blip.vision_proj.weight": torch.zeros(8, 32), "blip.vision_proj.bias": torch.zeros(8),
        "blip.text_proj.weight": torch.zeros(8, 24), "blip.text_proj.bias": torch.zeros(8),
    }  # fmt: skip
    torch.save({key: value for key, value in (state | unused).items() if value is not None}, path)
    return path


@pytest.fixture
def network(recorded, tmp_path) -> RewardNetwork:
    return load_checkpoint(save(recorded, tmp_path / "weights.pt"), SMALL)


def outputs(network, recorded):
    with torch.inference_mode():
        image = network.image_features(recorded["case_pixels"])
        text = network.text_features(recorded["case_ids"], recorded["case_mask"], image)
        return image, text, network.mlp(text)


def test_the_network_gives_what_the_package_gave(network, recorded):
    for found, name in zip(outputs(network, recorded), ("image", "text", "reward"), strict=True):
        wanted = recorded[f"case_{name}"]
        assert (found - wanted).abs().max() < 1e-6 * wanted.abs().max().clamp(min=1.0), name


@pytest.mark.parametrize("mistake", ["eps", "padding", "decoder", "heads", "token"])
def test_the_recorded_case_sees_every_known_mistake(network, recorded, mistake, monkeypatch):
    ids, mask = recorded["case_ids"].clone(), recorded["case_mask"].clone()
    if mistake == "eps":
        for module in network.vision.modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.eps = 1e-5
    elif mistake == "padding":
        mask[:] = 1
    elif mistake == "token":
        ids[0, 0] = 40
    elif mistake == "heads":
        for layer in network.text.encoder.layer:
            layer.attention.self.num_attention_heads, layer.attention.self.attention_head_size = 2, 12
    else:
        real = network.text.forward
        monkeypatch.setattr(network.text, "forward", lambda **given: real(**given | {"is_decoder": True}))
    wrong = recorded | {"case_ids": ids, "case_mask": mask}
    found = outputs(network, wrong)[0 if mistake == "eps" else 1]
    assert (found - recorded["case_image" if mistake == "eps" else "case_text"]).abs().max() > 2e-6


def official_keys() -> dict[str, tuple[int, ...]]:
    """Names and shapes of ImageReward.pt."""
    keys: dict[str, tuple[int, ...]] = {}

    def linear(name: str, rows: int, columns: int) -> None:
        keys.update({f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)})

    def norm(name: str, width: int) -> None:
        keys.update({f"{name}.weight": (width,), f"{name}.bias": (width,)})

    see, read = "blip.visual_encoder.", "blip.text_encoder."
    keys |= {
        f"{see}cls_token": (1, 1, 1024), f"{see}pos_embed": (1, 197, 1024),
        f"{see}patch_embed.proj.weight": (1024, 3, 16, 16), f"{see}patch_embed.proj.bias": (1024,),
        f"{read}embeddings.word_embeddings.weight": (30524, 768),
        f"{read}embeddings.position_embeddings.weight": (512, 768),
        f"{read}embeddings.position_ids": (1, 512),
    }  # fmt: skip
    for i in range(24):
        for name, rows, columns in (
            ("attn.qkv", 3072, 1024), ("attn.proj", 1024, 1024),
            ("mlp.fc1", 4096, 1024), ("mlp.fc2", 1024, 4096),
        ):  # fmt: skip
            linear(f"{see}blocks.{i}.{name}", rows, columns)
        norm(f"{see}blocks.{i}.norm1", 1024)
        norm(f"{see}blocks.{i}.norm2", 1024)
    norm(f"{see}norm", 1024)
    norm(f"{read}embeddings.LayerNorm", 768)
    for i in range(12):
        layer = f"{read}encoder.layer.{i}."
        for kind, width in (("attention", 768), ("crossattention", 1024)):
            linear(f"{layer}{kind}.self.query", 768, 768)
            linear(f"{layer}{kind}.self.key", 768, width)
            linear(f"{layer}{kind}.self.value", 768, width)
            linear(f"{layer}{kind}.output.dense", 768, 768)
            norm(f"{layer}{kind}.output.LayerNorm", 768)
        linear(f"{layer}intermediate.dense", 3072, 768)
        linear(f"{layer}output.dense", 768, 3072)
        norm(f"{layer}output.LayerNorm", 768)
    linear("blip.vision_proj", 256, 1024)
    linear("blip.text_proj", 256, 768)
    for place, rows, columns in ((0, 1024, 768), (2, 128, 1024), (4, 64, 128), (6, 16, 64), (7, 1, 16)):
        linear(f"mlp.layers.{place}", rows, columns)
    return keys


def test_every_tensor_of_the_official_checkpoint_has_its_place():
    official = official_keys()
    assert len(official) == 625
    assert sum(int(np.prod(shape)) for shape in official.values()) == 446_666_465
    with torch.device("meta"):
        ours = {key: tuple(value.shape) for key, value in RewardNetwork().state_dict().items()}
    mapped = {map_key(key): shape for key, shape in official.items() if map_key(key)}
    assert mapped == ours
    assert len(official) - len(mapped) == 5


@pytest.mark.parametrize(
    "changes",
    [
        {"mlp.layers.0.weight": None},
        {"mlp.layers.9.weight": torch.zeros(1)},
        {"blip.visual_encoder.cls_token": torch.zeros(1, 1, 8)},
    ],
)
def test_a_checkpoint_that_is_another_is_refused(recorded, tmp_path, changes):
    path = save(recorded, tmp_path / "weights.pt", **changes)
    with pytest.raises(TraceBenchError, match=re.escape("is not ImageReward's checkpoint: 1 of its tensors")):
        load_checkpoint(path, SMALL)


def test_a_checkpoint_never_runs_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "touched",))

    torch.save({"mlp.layers.0.weight": Evil()}, tmp_path / "weights.pt")
    with pytest.raises(TraceBenchError, match="cannot be read as ImageReward's checkpoint"):
        load_checkpoint(tmp_path / "weights.pt")
    assert not (tmp_path / "touched").exists()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> str:
    return str(save_tokenizer(tmp_path_factory.mktemp("bert")))


@pytest.fixture
def judge(tokenizer, tmp_path, monkeypatch):
    """`judge(batch_size=1)` creates an ImageReward with a small random network."""
    torch.manual_seed(0)
    network = RewardNetwork(FULL_INPUTS)
    for value in network.parameters():
        torch.nn.init.normal_(value, std=0.2)
    official = {map_key(key): key for key in official_keys() if map_key(key)}
    state = {official[key]: value for key, value in network.state_dict().items()}
    unused = {key: torch.zeros(1) for key in official_keys() if map_key(key) is None}
    torch.save(state | unused, tmp_path / "reward.pt")
    monkeypatch.setattr("trace_bench.rewards.image_reward.network.Sizes", lambda: FULL_INPUTS)
    return lambda **given: ImageReward(
        **{"checkpoint": str(tmp_path / "reward.pt"), "tokenizer": tokenizer, "device": "cpu"} | given
    )


@pytest.fixture
def run(tmp_path):
    draw(write_run(tmp_path / "outputs", prompt="a duck"), "a duck", views=8)
    return only_run(tmp_path / "outputs")


def test_a_run_is_scored_by_the_mean_over_its_views(judge, run):
    found = judge().score(run)
    assert [row["view"] for row in found.rows] == [0, 2, 4, 6]
    rewards = [row["reward"] for row in found.rows]
    assert found.values["image_reward"] == pytest.approx(np.mean(rewards), abs=1e-6)
    assert len(set(rewards)) == 4
    assert found.details["prompt_cut"] is False


def test_batches_do_not_change_the_score(judge, run):
    scores = [judge(batch_size=size, views=8).score(run) for size in (1, 3, 8)]
    for other in scores[1:]:
        assert other.values == pytest.approx(scores[0].values, abs=1e-5)


def test_a_score_stands_until_the_weights_change(judge, run, tmp_path):
    assert score_run(judge(), run)
    assert not score_run(judge(batch_size=1), run)
    assert score_run(judge(views=2), run)
    state = torch.load(tmp_path / "reward.pt", weights_only=True)
    torch.save(state | {"mlp.layers.7.bias": torch.ones(1)}, tmp_path / "reward.pt")
    assert score_run(judge(views=2), run)


def test_a_prompt_that_is_cut_is_said_so(judge, run, caplog):
    with caplog.at_level(logging.WARNING):
        _, cut = judge().rewards("red " * 40, [run.rgb(0)])
    assert cut
    assert "only the beginning" in caplog.text


def test_weights_that_are_not_at_hand_take_one_line(tokenizer, run, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    judge = ImageReward(tokenizer=tokenizer)
    for _ in range(2):
        with pytest.raises(Unavailable, match=r"trace_bench\.prefetch metric=image_reward") as error:
            score_run(judge, run)
        assert "\n" not in str(error.value)
    with pytest.raises(Unavailable, match=r"fix metrics\.image_reward\.checkpoint"):
        score_run(ImageReward(checkpoint=str(tmp_path / "nowhere.pt"), tokenizer=tokenizer), run)


def test_a_tokenizer_that_is_not_berts_is_refused(tmp_path, clip_folder):
    from transformers import BertTokenizer

    BertTokenizer({"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4}).save_pretrained(
        tmp_path / "other"
    )
    with pytest.raises(TraceBenchError, match="is not bert-base-uncased"):
        ImageReward(tokenizer=str(tmp_path / "other")).network.tokenizer()
    with pytest.raises(Unavailable, match=r"metrics\.image_reward\.tokenizer=FOLDER"):
        ImageReward(tokenizer=str(tmp_path / "nothing")).network.tokenizer()


def test_toy_runs_are_left_out_where_the_config_says_so(run):
    assert ImageReward().applies(run)
    assert not ImageReward(skip_priors=["tiny"]).applies(run)


# --- the package in a separate process, replaced by a stand-in with the worker's protocol ------------------


@pytest.fixture
def interpreter(tmp_path):
    """`interpreter(body)` is an executable that receives the worker's arguments but runs `body`."""

    def make(body: str) -> str:
        path = tmp_path / "python"
        path.write_text(f"#!{sys.executable} -I\nimport json, sys\n{textwrap.dedent(body)}")
        path.chmod(0o755)
        return str(path)

    return make


SCORES = """
    print(json.dumps({"rewards": []}), flush=True)
    _, _, checkpoint, vocabulary, device = sys.argv[1:]
    words = open(vocabulary).read().split("\\n")
    assert (words[101], device) == ("[CLS]", "cpu"), (words[101], device)
    for line in sys.stdin:
        asked = json.loads(line)
        known = words.index(asked["prompt"].split()[-1])
        rewards = [known / 1024 + i for i, _ in enumerate(asked["pictures"])]
        print(json.dumps({"rewards": rewards}), flush=True)
"""
DIES_LATER = """
    print(json.dumps({"rewards": []}), flush=True)
    sys.stdin.readline()
    sys.exit("out of memory")
"""


@pytest.fixture
def official(judge, interpreter):
    """ImageReward whose package is `body`."""
    return lambda body: judge(official_python=interpreter(body))


def test_the_package_can_be_asked_instead(official, judge, run, tokenizer):
    by_package = official(SCORES)
    base = judge().network.tokenizer().get_vocab()["duck"] / 1024
    assert [row["reward"] for row in by_package.score(run).rows] == pytest.approx(
        [base + i for i in range(4)], abs=1e-6
    )
    assert score_run(judge(), run)
    assert score_run(by_package, run), "computed by something else"
    assert not score_run(by_package, run)


def test_a_checkpoint_is_looked_at_before_the_package_gets_it(official, run, tmp_path):
    torch.save({}, tmp_path / "reward.pt")
    with pytest.raises(TraceBenchError, match="is not ImageReward's checkpoint"):
        official(SCORES).score(run)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("""print(json.dumps({"error": "ImportError: no timm"}))""", "ImportError: no timm"),
        ("""sys.exit("Illegal instruction")""", "its process ended: Illegal instruction"),
        ("", "no error message"),
    ],
)
def test_a_package_that_does_not_work_takes_one_line(official, run, body, reason):
    broken = official(body)
    for _ in range(2):
        with pytest.raises(Unavailable, match=re.escape(reason)) as error:
            score_run(broken, run)
        assert "\n" not in str(error.value)


def test_a_python_that_is_not_there_is_named(run, judge):
    with pytest.raises(Unavailable, match=r"official_python=/nowhere cannot be started"):
        judge(official_python="/nowhere").score(run)


def test_a_package_that_dies_over_a_run_says_why(official, run):
    with pytest.raises(TraceBenchError, match="its process ended: out of memory"):
        official(DIES_LATER).score(run)


def test_the_package_gets_no_transparent_picture_either(official, run):
    picture = run.rgb(0)
    with Image.open(picture) as image:
        image.convert("RGBA").save(picture)
    with pytest.raises(TraceBenchError, match="has mode RGBA, not RGB on white"):
        official(SCORES).score(run)
