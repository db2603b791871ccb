"""HPSv2.1, PickScore and the aesthetic predictor against the authors' packages, with random weights.

Each package has an environment of its own (dependency groups `hps` and `pick_score`); the tests install it,
or use the interpreters in TRACE_BENCH_HPS_PYTHON and TRACE_BENCH_PICK_SCORE_PYTHON. HPSv2.1 needs 12 GB of
memory: `TRACE_BENCH_TEST_NETWORK=1 pytest -m long tests/evaluation/metrics/test_preference_parity.py`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

from evaluation.metrics.aesthetic import Aesthetic
from evaluation.metrics.hps import HPS
from evaluation.metrics.pick_score import PickScore
from trace_bench.system.model_files import resolve

pytestmark = [pytest.mark.long, pytest.mark.network]
ROOT = Path(__file__).parents[3]
PROMPT = "a red cube on a blue sphere"
SIZES = [
    (224, 224),
    (512, 512),
    (300, 260),
    (128, 128),
    (256, 300),
    (224, 300),
    (640, 480),
    (64, 64),
    (225, 225),
    (512, 384),
]


def interpreter(group: str, folder: Path) -> str:
    """A Python with the packages of a dependency group."""
    if named := os.environ.get(f"TRACE_BENCH_{group.upper()}_PYTHON"):
        return named
    uv = [shutil.which("uv")] if shutil.which("uv") else [sys.executable, "-m", "uv"]
    python = folder / "venv" / "bin" / "python"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    subprocess.run([*uv, "venv", "--python", version, str(python.parents[1])], check=True, cwd=ROOT)
    subprocess.run([*uv, "pip", "install", "-p", str(python), "--group", group], check=True, cwd=ROOT)
    return str(python)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Ten pictures of blocks and a prompt."""
    rng = np.random.default_rng(0)
    for i, size in enumerate(SIZES):
        blocks = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
        blocks.resize(size, Image.Resampling.NEAREST).save(tmp_path / f"{i}.png")
    (tmp_path / "prompt.txt").write_text(PROMPT)
    return tmp_path


def expected(name: str, group: str, folder: Path) -> np.ndarray:
    script = Path(__file__).with_name("preference_reference.py")
    environment = os.environ | {"OMP_NUM_THREADS": str(os.cpu_count())}
    subprocess.run(
        [interpreter(group, folder), str(script), name, str(folder)], check=True, env=environment, cwd=folder
    )
    return np.load(folder / "expected.npy")


def pictures(folder: Path) -> list[Image.Image]:
    return [Image.open(folder / f"{i}.png") for i in range(len(SIZES))]


def test_hps(folder):
    vocabulary = Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    shutil.copy(vocabulary, folder)  # the same that the package's wheel lacks
    wanted = expected("hps", "hps", folder)
    found = (
        HPS(checkpoint=str(folder / "hps.pt"), device="cpu", batch_size=2).rate(PROMPT, pictures(folder))
        / 100
    )
    print("largest difference", np.abs(found - wanted).max())
    assert np.ptp(wanted) > 1e-3, "the pictures differ"
    assert found == pytest.approx(wanted, abs=1e-3)


def test_pick_score(folder):
    tiny = resolve("pkg://trace_bench/models/tiny_prior", None, [])
    tokenizer = CLIPTokenizer.from_pretrained(tiny, subfolder="tokenizer")
    shared = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = CLIPConfig(
        text_config=shared | {"vocab_size": len(tokenizer), "bos_token_id": 0,
                              "eos_token_id": tokenizer.eos_token_id},
        vision_config=shared | {"patch_size": 32}, projection_dim=32, logit_scale_init_value=4.0,
    )  # fmt: skip
    torch.manual_seed(0)
    network = CLIPModel(config)
    network.save_pretrained(folder / "model")
    torch.save(network.state_dict(), folder / "model" / "pytorch_model.bin")  # all that the old version reads
    CLIPProcessor(CLIPImageProcessor(), tokenizer).save_pretrained(folder / "model")
    for path in (tiny / "tokenizer").iterdir():
        shutil.copy(path, folder / "model")
    wanted = expected("pick_score", "pick_score", folder)
    judge = PickScore(repo=str(folder / "model"), processor=str(folder / "model"), device="cpu")
    found = judge.rate(PROMPT, pictures(folder))
    print("largest difference", np.abs(found - wanted).max())
    assert np.ptp(wanted) > 1e-2
    assert found == pytest.approx(wanted, abs=1e-3)


def test_aesthetic(folder):
    wanted = expected("aesthetic", "pick_score", folder)
    judge = Aesthetic(
        url="file:///nowhere", sha256="0" * 64, checkpoint=str(folder / "head.pth"), device="cpu",
        clip={"model": "ViT-L-14-quickgelu", "pretrained": str(folder / "clip.pt"), "quick_gelu": True},
    )  # fmt: skip
    found = judge.rate(PROMPT, pictures(folder))
    print("largest difference", np.abs(found - wanted).max())
    assert np.ptp(wanted) > 1e-3
    assert found == pytest.approx(wanted, abs=1e-3)
