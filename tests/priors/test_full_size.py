"""One step of SDS, VSD and TraCe on networks of SD 2.1's size, with random weights."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from benchmarks.full_size import TEXT_ENCODER, sd21

ROOT = Path(__file__).parents[2]


def test_the_networks_have_the_published_size():
    unet, vae = sd21()
    with torch.device("meta"):
        networks = (
            UNet2DConditionModel.from_config(unet),
            AutoencoderKL.from_config(vae),
            CLIPTextModel(CLIPTextConfig(**TEXT_ENCODER)),
        )
    parameters = [sum(p.numel() for p in network.parameters()) for network in networks]
    assert parameters == [865_910_724, 83_653_863, 340_387_840]


@pytest.mark.long
def test_a_step_at_full_size_stays_in_bounds(capsys):
    """Two to four minutes on two cores; needs 3 GB of disk and 9 GiB of memory."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.full_size"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": str(os.cpu_count())},
    )
    with capsys.disabled():
        print(f"\n{done.stdout}")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = re.findall(r"^(sds|vsd|trace) +[\d.]+ +[\d.]+ +[\d.]+ +[\d.]+ ", done.stdout, re.MULTILINE)
    assert rows == ["sds", "vsd", "trace"]
