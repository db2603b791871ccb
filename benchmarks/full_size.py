"""One step of SDS, VSD and TraCe on the full networks of SD 2.1: `python -m benchmarks.full_size`.

The networks have the published configuration, random weights in bfloat16, and a tokenizer without CLIP's
vocabulary. `prior=sd21` loads them from two local folders, SD 2.1-base and SD 2.1 for the adapter. A step
has one view and runs on the CPU without torch.compile. Prints for each method the CPU seconds, the peak
memory, and the TFLOP as the harness and as torch counts them, then the cost of an item of SD 3, counted
without weights. Exits with 1 if something is out of bounds. Needs 3 GB of disk and 9 GiB of memory.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from omegaconf import OmegaConf
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel
from transformers.utils import logging as transformers_logging

from benchmarks.arguments import parser_of
from benchmarks.step import compose_job
from trace_bench.cameras import CameraRange
from trace_bench.distill import distill
from trace_bench.priors.base import Work
from trace_bench.priors.text import embed_prompt
from trace_bench.runs.build import (
    load_prior,
    make_init,
    make_method,
    make_representation,
    peak_memory_gb,
    resolve_device,
    tflop_of,
)
from trace_bench.runs.checkpoint import first_non_finite
from trace_bench.seeding import Rng
from trace_bench.sweeps.budget import unit_costs
from trace_bench.system.config_path import conf_dir

METHODS = ("sds", "vsd", "trace")
PROMPT = "a candelabra with many candles on a red velvet tablecloth"
#: Bounds: GiB of the whole process, and the difference between the two counts of TFLOP.
PEAK_GIB, TFLOP_DIFFERENCE = 10.0, 0.02

#: The text encoder of SD 2.1, 340 M parameters. `conf/architecture/sd21.yaml` has UNet and VAE.
TEXT_ENCODER = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "hidden_act": "gelu",
    "projection_dim": 512,
    "vocab_size": 49408,
    "max_position_embeddings": 77,
    "bos_token_id": 0,
    "eos_token_id": 2,
}


def sd21() -> tuple[dict[str, Any], dict[str, Any]]:
    """The configs of SD 2.1's UNet and VAE in diffusers' terms."""
    architecture = OmegaConf.to_container(OmegaConf.load(Path(conf_dir()) / "architecture" / "sd21.yaml"))
    assert isinstance(architecture, dict)
    return architecture["unet"], architecture["vae"] | {"sample_size": 512, "scaling_factor": 0.18215}


def write_checkpoints(
    folder: Path,
    unet: Mapping[str, Any],
    vae: Mapping[str, Any],
    text_encoder: Mapping[str, Any],
    dtype: torch.dtype = torch.bfloat16,
) -> tuple[Path, Path]:
    """Write an eps-prediction model and, with the same UNet, a v-prediction model for the adapter.

    Args:
        unet, vae, text_encoder: configs of diffusers' UNet2DConditionModel and AutoencoderKL, and of
            transformers' CLIPTextModel.
        dtype: of the weights, which have torch's initial distributions. At most one network is in memory.

    Returns:
        The folders of the two models, in diffusers' format.
    """
    base, adapter = folder / "base", folder / "adapter"
    torch.manual_seed(0)
    with torch.device("meta"):
        networks: dict[str, Any] = {
            "unet": UNet2DConditionModel.from_config(dict(unet)),
            "vae": AutoencoderKL.from_config(dict(vae)),
            "text_encoder": CLIPTextModel(CLIPTextConfig(**text_encoder)),
        }
    for name in list(networks):
        network = networks.pop(name)
        torch.nn.Module.to(network, dtype)  # diffusers' own `to` warns without a reason
        network.to_empty(device="cpu")
        for module in network.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        network.save_pretrained(base / name, variant="fp16")  # as in the published repositories
        del network
    save_tokenizer(base / "tokenizer", text_encoder["max_position_embeddings"])
    adapter.mkdir()
    (adapter / "unet").symlink_to(base / "unet")
    for model, prediction_type in ((base, "epsilon"), (adapter, "v_prediction")):
        save_scheduler(model / "scheduler", prediction_type)
    return base, adapter


def save_scheduler(folder: Path, prediction_type: str) -> None:
    """Stable Diffusion's noise schedule; `prediction_type` is epsilon or v_prediction."""
    DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction_type,
    ).save_pretrained(folder)


def save_tokenizer(folder: Path, length: int) -> None:
    """A byte-level BPE without merges, 190 tokens: every text has tokens, padded to `length`."""
    folder.mkdir(parents=True)
    printable = [chr(c) for c in range(33, 127)]
    vocabulary = printable + [f"{c}</w>" for c in printable] + ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    config = {
        **special,
        "pad_token": "!",
        "model_max_length": length,
        "tokenizer_class": "CLIPTokenizer",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


@dataclass(frozen=True)
class Step:
    """What one step used."""

    cpu_seconds: float
    peak_gib: float  # of the process so far
    tflop: float  # as the harness counts it, in the manifest
    torch_tflop: float  # as torch counts it while the step runs
    work: Work
    non_finite: str | None  # the first state that is not finite

    def problems(self) -> list[str]:
        """What is out of bounds, in words."""
        found = [] if self.non_finite is None else [f"{self.non_finite} is not finite"]
        if self.work.vae_dec:
            found.append(f"it decoded {self.work.vae_dec} latents")
        if abs(self.tflop / self.torch_tflop - 1) > TFLOP_DIFFERENCE:
            found.append(f"the counts of TFLOP differ by more than {100 * TFLOP_DIFFERENCE:.0f} %")
        if self.peak_gib > PEAK_GIB:
            found.append(f"it needs more than {PEAK_GIB:g} GiB")
        return found


def run_step(method_name: str, overrides: list[str]) -> Step:
    """The only step of a run of length 1.

    Args:
        method_name: a method of conf/method/.
        overrides: those of `python -m trace_bench`.

    Raises:
        NonFiniteError: its render, latents, gradient or loss is not finite.
        CostError: its work is not what the method declares.
    """
    job, _ = compose_job(method_name, overrides)
    device = resolve_device(job.device)
    prior = load_prior(job, device)
    method = make_method(job, prior)
    representation = make_representation(job, prior, make_init(job, PROMPT, device), device)
    text = embed_prompt(prior, PROMPT, method.negative_prompt)
    before, start = prior.counter + Work(), time.process_time()
    with FlopCounterMode(display=False) as flops:
        distill(
            prior, method, representation, text, CameraRange.of(job.cameras), steps=1,
            views_per_step=job.views_per_step, resolution=job.resolution, background=job.background,
            rng=Rng(job.seed),
        )  # fmt: skip
    seconds, work = time.process_time() - start, prior.counter - before
    return Step(
        cpu_seconds=seconds,
        peak_gib=peak_memory_gb(device),
        tflop=tflop_of(prior, work, method) or 0.0,
        torch_tflop=flops.get_total_flops() / 1e12,
        work=work,
        non_finite=first_non_finite(representation.state_dict(), "representation")
        or first_non_finite(method.state_dict(), "method"),
    )


def sd3_tflop(resolution: int) -> dict[str, float]:
    """TFLOP per item of SD 3 medium, on the meta device."""
    architecture = OmegaConf.to_container(OmegaConf.load(Path(conf_dir()) / "architecture" / "sd3.yaml"))
    return unit_costs(json.dumps({"architecture": architecture, "resolution": resolution}))


def main() -> int:
    """Print one line per method; 1 if something is out of bounds."""
    parser_of("full_size", __doc__).parse_args()
    failed = False
    transformers_logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as name:
        os.environ["TRACE_BENCH_CACHE"] = str(Path(name) / "cache")  # random weights leave nothing behind
        start = time.perf_counter()
        base, adapter = write_checkpoints(Path(name), *sd21(), TEXT_ENCODER)
        print(f"two checkpoints written in {time.perf_counter() - start:.0f} s")
        print(f"bounds: {PEAK_GIB:g} GiB, and {100 * TFLOP_DIFFERENCE:.0f} % between the counts of TFLOP")
        print(f"{'method':8} {'CPU s':>6} {'peak GiB':>9} {'TFLOP':>7} {'by torch':>9}   work", flush=True)
        repos = [f"prior.repo={base}", f"prior.adapter_repo={adapter}"]
        settings = [
            "prior=sd21",
            *repos,
            "prior.compile=false",
            "device=cpu",
            "init=sphere",
            "views_per_step=1",
        ]
        for method in METHODS:
            step = run_step(method, settings)
            used = ", ".join(f"{what} {count}" for what, count in step.work.as_dict().items() if count)
            print(f"{method:8} {step.cpu_seconds:6.1f} {step.peak_gib:9.2f} {step.tflop:7.3f} "
                  f"{step.torch_tflop:9.3f}   {used}", flush=True)  # fmt: skip
            for problem in step.problems():
                print(f"  {problem}", flush=True)
                failed = True
        for resolution in (512, 1024):
            counted = ", ".join(f"{name} {tflop:.3f}" for name, tflop in sd3_tflop(resolution).items())
            print(f"SD 3 at {resolution} pixels, TFLOP per item: {counted}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
