"""Train the tiny diffusion prior and the tiny CLIP from the toy world and a seed.

    python scripts/train_tiny_prior.py --work outputs/tiny_training --export trace_bench/models
    python scripts/train_tiny_prior.py --stages clip,evaluate,export --threads 2

Stages, in order: data, prior (autoencoder, latents, unet, unet_v, decoder), clip, view_judge, evaluate,
flow (unet_flow and its scores), export. Each stage resumes from its last checkpoint; a finished stage is
loaded. The work folder holds logs (.log as text, .jsonl for programs), checkpoints and sample grids.
"""

from __future__ import annotations

import argparse
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.distributed as dist
from diffusers import AutoencoderKL
from open_clip import CLIP
from torchvision.models.resnet import ResNet
from transformers import CLIPTokenizer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.tiny_prior.cards import clip_card, prior_card
from scripts.tiny_prior.clip import train_clip
from scripts.tiny_prior.common import Settings
from scripts.tiny_prior.data import TrainingViews, make_views
from scripts.tiny_prior.evaluate import (
    evaluate_clip,
    evaluate_flow,
    evaluate_prior,
    read_results,
    write_results,
)
from scripts.tiny_prior.export import export_clip, export_prior
from scripts.tiny_prior.tokenizer import new_tokenizer
from scripts.tiny_prior.unet import Denoiser, Latents, Stage, train_denoiser
from scripts.tiny_prior.vae import encode_views, refine_decoder, train_vae
from scripts.tiny_prior.view_judge import evaluate_judge, obedience, train_judge

STAGES = ("data", "prior", "clip", "view_judge", "evaluate", "flow", "export")


def start_helpers(settings: Settings) -> list[subprocess.Popen[bytes]]:
    """Start the other workers (this command with a rank) and connect to them."""
    if settings.workers == 1:
        return []
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    helpers = [
        subprocess.Popen([sys.executable, *sys.argv, "--rank", str(rank), "--port", str(port)])
        for rank in range(1, settings.workers)
    ]
    meet(settings, port)
    return helpers


def meet(settings: Settings, port: int) -> None:
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=settings.rank, world_size=settings.workers)


@dataclass
class Prior:
    """The trained parts of the tiny prior."""

    vae: AutoencoderKL
    eps: Denoiser
    v: Denoiser


def train_autoencoder(settings: Settings, views: TrainingViews) -> AutoencoderKL:
    """Train the autoencoder on all workers; each worker then loads the finished checkpoint."""
    vae = train_vae(settings, views)
    if settings.workers > 1:
        dist.barrier()
        vae = train_vae(settings, views)
    return vae


def train_prior(settings: Settings, views: TrainingViews, tokenizer: CLIPTokenizer) -> Prior:
    """Train autoencoder, both UNets and text encoder, and export intermediate models."""
    vae = train_autoencoder(settings, views)
    if settings.rank == 0:
        encode_views(settings, vae, views)
    if settings.workers > 1:
        dist.barrier()
    latents, folder = Latents(*encode_views(settings, vae, views)), settings.export / "tiny_prior"

    def train(stage: Stage, interim: Callable[[Denoiser], None]) -> Denoiser:
        return train_denoiser(settings, views, latents, vae, tokenizer, stage, interim)

    eps = train(
        Stage("unet", settings.unet_steps, 1e-3),
        lambda denoiser: export_prior(folder, tokenizer, vae, denoiser, denoiser.unet),
    )
    v = train(
        Stage("unet_v", settings.unet_v_steps, 5e-4, eps.state_dict()),
        lambda denoiser: export_prior(folder, tokenizer, vae, eps, denoiser.unet),
    )
    vae = refine_decoder(settings, vae, views)
    if settings.rank == 0:
        export_prior(folder, tokenizer, vae, eps, v.unet)
    return Prior(vae, eps, v)


def train_flow(settings: Settings, prior: Prior, views: TrainingViews, tokenizer: CLIPTokenizer) -> Denoiser:
    """Fine-tune the v UNet to the velocity of a flow, or load the finished one."""
    latents = Latents(*encode_views(settings, prior.vae, views))
    stage = Stage("unet_flow", settings.unet_flow_steps, 5e-4, prior.v.state_dict())
    return train_denoiser(settings, views, latents, prior.vae, tokenizer, stage, lambda denoiser: None)


def score_flow(
    settings: Settings, flow: Denoiser, prior: Prior, clip: CLIP, judge: ResNet, tokenizer: CLIPTokenizer
) -> None:
    """Add the flow's scores to those of the others."""
    results = read_results(settings)
    results["prior"] |= evaluate_flow(settings, flow, prior.vae, clip, tokenizer)
    results["prior"]["views_flow"] = obedience(settings, judge, flow, prior.vae, tokenizer, "flow")
    write_results(settings, results)


def evaluate(settings: Settings, prior: Prior, clip: CLIP, judge: ResNet, tokenizer: CLIPTokenizer) -> None:
    """Score both models and draw the grids for their cards."""
    made = evaluate_prior(settings, prior.eps, prior.v, prior.vae, clip, tokenizer)
    made["view_judge"] = evaluate_judge(settings, judge)
    for kind, denoiser in (("epsilon", prior.eps), ("v_prediction", prior.v)):
        made[f"views_{kind}"] = obedience(settings, judge, denoiser, prior.vae, tokenizer, kind)
    write_results(settings, {"clip": evaluate_clip(settings, clip, tokenizer), "prior": made})


def export(
    settings: Settings, prior: Prior, clip: CLIP, tokenizer: CLIPTokenizer, flow: Denoiser | None = None
) -> None:
    """Export the model folders of the package, with scores in their cards."""
    scores, samples = read_results(settings), settings.work / "samples.png"
    shutil.copy(settings.work / "samples_held_in_epsilon_cfg7.5.png", samples)
    views = settings.work / "samples_views.png"
    shutil.copy(settings.work / "samples_views_epsilon.png", views)
    card, pictures = prior_card(settings, scores["prior"]), [samples, views]
    export_prior(
        settings.export / "tiny_prior", tokenizer, prior.vae, prior.eps, prior.v.unet, card, pictures,
        None if flow is None else flow.unet,
    )  # fmt: skip
    export_clip(settings.export / "tiny_clip", clip, tokenizer, clip_card(settings, scores["clip"]))


def finish(settings: Settings, stages: set[str], views: TrainingViews, tokenizer: CLIPTokenizer) -> None:
    """The stages that need the trained models: evaluate, flow, export."""
    prior, clip = train_prior(settings, views, tokenizer), train_clip(settings, views, tokenizer)
    if "evaluate" in stages:
        evaluate(settings, prior, clip, train_judge(settings, views), tokenizer)
    flow = None
    if "flow" in stages or "views_flow" in read_results(settings)["prior"]:
        flow = train_flow(settings, prior, views, tokenizer)
    if "flow" in stages and flow is not None:
        score_flow(settings, flow, prior, clip, train_judge(settings, views), tokenizer)
    if "export" in stages:
        export(settings, prior, clip, tokenizer, flow)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--work", type=Path, default=Path("outputs/tiny_training"), help="checkpoints, logs, grids"
    )
    parser.add_argument(
        "--export", type=Path, default=Path("trace_bench/models"), help="output folder of the models"
    )
    parser.add_argument(
        "--stages", default=",".join(STAGES), help="comma-separated, from " + ", ".join(STAGES)
    )
    parser.add_argument("--threads", type=int, default=2, help="total over all workers")
    parser.add_argument(
        "--workers", type=int, default=1, help="processes that split each batch of the prior's stages"
    )
    parser.add_argument(
        "--compile", action="store_true", help="torch.compile the UNet: a quarter less time per step"
    )
    parser.add_argument("--rank", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    for name in (
        "seed", "views", "vae_steps", "decoder_steps", "unet_steps", "unet_v_steps",
        "unet_flow_steps", "clip_steps", "judge_steps",
    ):  # fmt: skip
        parser.add_argument("--" + name.replace("_", "-"), type=int, default=getattr(Settings, name))
    options = vars(parser.parse_args())
    threads, port, stages = options.pop("threads"), options.pop("port"), options.pop("stages").split(",")
    if unknown := set(stages) - set(STAGES):
        parser.error(f"unknown stages {sorted(unknown)}: choose from {', '.join(STAGES)}")
    settings = Settings(**options)
    torch.set_num_threads(max(threads // settings.workers, 1))
    torch.set_flush_denormal(True)
    views = make_views(settings)
    tokenizer = new_tokenizer()
    if settings.rank > 0:
        meet(settings, port)
        train_prior(settings, views, tokenizer)
        return
    if "prior" in stages:
        helpers = start_helpers(settings)
        train_prior(settings, views, tokenizer)
        for helper in helpers:
            helper.wait()
    alone = replace(settings, workers=1)
    torch.set_num_threads(threads)
    if "clip" in stages:
        clip = train_clip(alone, views, tokenizer)
        export_clip(settings.export / "tiny_clip", clip, tokenizer, None)
    if "view_judge" in stages:
        train_judge(alone, views)
    if {"evaluate", "flow", "export"} & set(stages):
        finish(alone, set(stages), views, tokenizer)


if __name__ == "__main__":
    main()
