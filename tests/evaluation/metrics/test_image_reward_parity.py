"""The mapped network against the image-reward package, with 446 million random weights.

The package needs transformers 4 and a separate environment (dependency group `imagereward`); the test
installs one, or uses the interpreter in TRACE_BENCH_IMAGEREWARD_PYTHON. It needs the network to install, 8 GB
of memory and some minutes: `TRACE_BENCH_TEST_NETWORK=1 pytest -m long
tests/evaluation/metrics/test_image_reward_parity.py`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from bert_vocabulary import save_tokenizer, save_vocabulary
from PIL import Image

from evaluation.metrics.image_reward.metric import ImageReward
from trace_bench.rewards.image_reward.native import TOKENS
from trace_bench.rewards.image_reward.network import MEAN, STD

pytestmark = [pytest.mark.long, pytest.mark.network]
ROOT = Path(__file__).parents[3]
PROMPTS = [
    "a red cube",
    "a photo of a cat, detailed",
    "a candelabra with many candles on a red velvet tablecloth, highly detailed photo of an ocean, a castle",
]
SIZES = [(224, 224), (512, 512), (300, 260)]


@pytest.fixture(scope="module")
def interpreter(tmp_path_factory) -> str:
    """A Python with image-reward."""
    named = os.environ.get("TRACE_BENCH_IMAGEREWARD_PYTHON")
    if named:
        return named
    uv = [shutil.which("uv")] if shutil.which("uv") else [sys.executable, "-m", "uv"]
    python = tmp_path_factory.mktemp("imagereward") / "venv" / "bin" / "python"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    subprocess.run([*uv, "venv", "--python", version, str(python.parents[1])], check=True, cwd=ROOT)
    subprocess.run([*uv, "pip", "install", "-p", str(python), "--group", "imagereward"], check=True, cwd=ROOT)
    return str(python)


@pytest.fixture(scope="module")
def case(interpreter, tmp_path_factory) -> Path:
    """Inputs, random weights and the package's outputs."""
    folder = tmp_path_factory.mktemp("parity")
    rng = np.random.default_rng(0)
    for i, (width, height) in enumerate(SIZES):
        blocks = rng.integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST).save(folder / f"{i}.png")
    (folder / "prompts.json").write_text(json.dumps(PROMPTS))
    save_vocabulary(folder)
    script = Path(__file__).with_name("image_reward_reference.py")
    environment = os.environ | {"OMP_NUM_THREADS": str(os.cpu_count())}
    subprocess.run([interpreter, str(script), "full", str(folder)], check=True, env=environment, cwd=folder)
    return folder


def test_features_and_rewards_are_those_of_the_package(case, tmp_path):
    judge = ImageReward(
        checkpoint=str(case / "weights.pt"),
        tokenizer=str(save_tokenizer(tmp_path / "tokenizer")),
        device="cpu",
    )
    native = judge.network.network
    network, tokenizer, transform = native.network, native.tokenizer, native.transform
    expected = np.load(case / "expected.npz")
    pictures = [Image.open(case / f"{i}.png") for i in range(len(SIZES))]
    largest = dict.fromkeys(("image", "text", "reward", "score", "batched"), 0.0)

    def compare(name: str, found: torch.Tensor | np.ndarray, wanted: np.ndarray) -> None:
        largest[name] = max(largest[name], float(np.abs(np.asarray(found) - wanted).max()))

    with torch.inference_mode():
        images = [network.image_features(transform(picture)[None]) for picture in pictures]
        for j, image in enumerate(images):
            compare("image", image, expected[f"image_{j}"])
        for i, prompt in enumerate(PROMPTS):
            tokens = tokenizer(
                prompt, padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt"
            )
            for j, image in enumerate(images):
                text = network.text_features(tokens.input_ids, tokens.attention_mask, image)
                compare("text", text, expected[f"text_{i}_{j}"])
                reward = (network.mlp(text)[0, 0] - MEAN) / STD
                compare("reward", reward, expected[f"reward_{i}_{j}"])
                compare("score", reward if i == j else expected[f"score_{i}"], expected[f"score_{i}"])
    rewards, cut = judge.rewards(PROMPTS[2], [case / f"{i}.png" for i in range(len(SIZES))])
    compare("batched", rewards, np.array([expected[f"reward_2_{j}"] for j in range(3)]))
    print("largest differences:", largest)
    assert cut
    assert np.ptp([expected[f"reward_{i}_{j}"] for i in range(3) for j in range(3)]) > 0.01
    for name, most in {"image": 1e-6, "text": 1e-6, "reward": 1e-6, "score": 1e-6, "batched": 1e-5}.items():
        assert largest[name] < most, name


def test_both_ways_give_the_same_rewards(case, interpreter, tmp_path):
    tokenizer = save_tokenizer(tmp_path / "tokenizer")
    done = subprocess.run(
        [
            sys.executable, "scripts/compare_image_reward.py", str(case), "--prompt", PROMPTS[1],
            "--official-python", interpreter, "--checkpoint", str(case / "weights.pt"),
            "--tokenizer", str(tokenizer),
        ],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    *rows, last = done.stdout.splitlines()
    assert len(rows) == 1 + len(SIZES)
    assert float(last.split()[-1]) < 1e-5
