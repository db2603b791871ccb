"""SDS as a short script on diffusers would do it, beside ours: `python -m benchmarks.plain_sds [--steps 60]`.

Both distil the tiny prior into the same 3D Gaussians, with the same renderer, cameras, losses and settings of
`method=sds`; the script calls diffusers' and transformers' classes itself and checks nothing. Prints the
milliseconds of CPU per step of both, measured in turns in one process, and their ratio.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import Tensor
from torch.nn.functional import interpolate, mse_loss
from transformers import CLIPTextModel, CLIPTokenizer

from benchmarks.arguments import parser_of
from benchmarks.step import compose_job
from trace_bench.cameras import CameraRange, sample_cameras
from trace_bench.distill import distill
from trace_bench.priors.base import Prior
from trace_bench.progress import Progress
from trace_bench.representations.base import Representation
from trace_bench.runs.build import load_prior, make_init, make_method, make_representation
from trace_bench.seeding import Rng
from trace_bench.settings.config import Job
from trace_bench.system.model_files import resolve

CPU = torch.device("cpu")
SIDE = 64  # pixels of the VAE's input


class Script:
    """What a user would write: networks, embeddings of one prompt, and a step."""

    def __init__(self, folder: Path, prompt: str, job: Job, representation: Representation) -> None:
        self.job, self.representation = job, representation
        single = {"torch_dtype": torch.float32}  # the files have half precision
        self.unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", **single)
        self.vae = AutoencoderKL.from_pretrained(folder, subfolder="vae", **single)
        self.unet.requires_grad_(False)
        self.vae.requires_grad_(False)
        self.scheduler = DDPMScheduler.from_pretrained(folder, subfolder="scheduler")
        tokenizer = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer")
        encoder = CLIPTextModel.from_pretrained(folder, subfolder="text_encoder", **single)
        words = tokenizer(["", prompt], padding="max_length", truncation=True, return_tensors="pt")
        with torch.no_grad():
            self.text = encoder(words.input_ids).last_hidden_state

    def step(self, progress: Progress) -> None:
        job = self.job
        rng = Rng(job.seed).at(progress.k)
        view = sample_cameras(1, rng, CameraRange.of(job.cameras), job.resolution, job.resolution)
        render = self.representation.render(view, torch.rand(1, 3))
        self.representation.pre_backward(render)
        assert render.rgb is not None
        pixels = interpolate(render.rgb.permute(0, 3, 1, 2), (SIDE, SIDE), mode="bilinear")
        latents = self.vae.encode(2.0 * pixels - 1.0).latent_dist.sample() * self.vae.config.scaling_factor
        grad = self.direction(latents.detach())
        loss = 0.5 * mse_loss(latents, (latents - grad).detach(), reduction="sum")
        grad_rms = grad.square().mean().sqrt()
        loss = loss + self.representation.regularisation(render, progress, grad_rms)
        loss.backward()
        self.representation.post_backward(render, progress, grad_rms)

    @torch.no_grad()
    def direction(self, latents: Tensor) -> Tensor:
        """DreamFusion's w(t) (eps_cfg - eps)."""
        t = torch.randint(20, 980, (1,))
        noise = torch.randn_like(latents)
        noisy = self.scheduler.add_noise(latents, noise, t)
        pair = self.unet(torch.cat([noisy, noisy]), torch.cat([t, t]), self.text).sample
        uncond, cond = pair.chunk(2)
        guided = uncond + self.job.scale * (cond - uncond)
        return (1.0 - self.scheduler.alphas_cumprod[t]) * (guided - noise)


def ours(job: Job, prior: Prior, prompt: str, representation: Representation) -> Callable[[int, int], None]:
    """Our loop from one step to another."""
    method = make_method(job, prior)
    text = method.embed(prompt)
    done = 0

    def go(first: int, end: int) -> None:
        distill(
            prior, method, representation, text, CameraRange.of(job.cameras), steps=job.steps,
            views_per_step=1, resolution=job.resolution, background="random", rng=Rng(job.seed),
            first_step=first, log_every=job.log_every, should_stop=lambda: done >= end, on_step=count,
        )  # fmt: skip

    def count(k: int, log: dict[str, float]) -> None:
        nonlocal done
        done = k + 1

    return go


def main() -> None:
    parser = parser_of("plain_sds", __doc__)
    parser.add_argument("--steps", type=int, default=60, help="of each, at most 240")
    parser.add_argument("--at-once", type=int, default=10, help="steps in a turn")
    args = parser.parse_args()
    torch.set_num_threads(1)
    job, prompt = compose_job("sds", ["prior=tiny", "device=cpu"])
    prior = load_prior(job, CPU)

    def representation() -> Representation:
        return make_representation(job, prior, make_init(job, prompt, CPU), CPU)

    script = Script(resolve(str(job.prior["repo"]), None, []), prompt, job, representation())
    go = ours(job, prior, prompt, representation())

    def plain(first: int, end: int) -> None:
        for k in range(first, end):
            script.step(Progress(k, job.steps))

    spent: dict[str, list[float]] = {"plain script": [], "ours": []}
    for first in range(0, args.steps, args.at_once):
        end = min(first + args.at_once, args.steps)
        for name, steps in (("plain script", plain), ("ours", go)):
            began = time.process_time()
            steps(first, end)
            spent[name].append((time.process_time() - began) / (end - first))
    taken = {name: statistics.median(each[1:] or each) for name, each in spent.items()}  # the first compiles
    for name, seconds in taken.items():
        print(f"{name:14} {1e3 * seconds:7.1f} ms a step")
    print(f"{'ratio':14} {taken['ours'] / taken['plain script']:7.2f}")


if __name__ == "__main__":
    main()
