"""Writes the trained parts to the model folders of the package (fp16 safetensors)."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from open_clip import CLIP
from torch.nn import Module
from transformers import CLIPTokenizer

from scripts.tiny_prior.clip import write_clip
from scripts.tiny_prior.unet import Denoiser, scheduler


def replace_folder(target: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a new folder, then replace ``target`` by it in one rename."""
    fresh, old = target.with_name(f".{target.name}.new"), target.with_name(f".{target.name}.old")
    for folder in (fresh, old):
        shutil.rmtree(folder, ignore_errors=True)
    fresh.mkdir(parents=True)
    write(fresh)
    _readable(fresh)
    if target.exists():
        target.replace(old)
    fresh.replace(target)
    shutil.rmtree(old, ignore_errors=True)


def save_tokenizer(tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Save the fast tokenizer's file, and vocab.json + merges.txt for older libraries."""
    tokenizer.backend_tokenizer.no_padding()  # what the last call asked for would be saved too
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.save_pretrained(folder)
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False))
    merges = [" ".join(m) if isinstance(m, list) else m for m in model["merges"]]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")


def _half(module: Module) -> Any:
    """A half-precision copy; the training weights stay unchanged.

    It is a deep copy, because diffusers' ``from_config`` resets values registered after construction, such as
    the autoencoder's scaling factor.
    """
    return copy.deepcopy(module).half().eval()


def _readable(folder: Path) -> None:
    """Make files readable for all; safetensors makes them readable only for the owner."""
    for path in folder.rglob("*.safetensors"):
        path.chmod(0o644)


def export_prior(
    target: Path,
    tokenizer: CLIPTokenizer,
    vae: AutoencoderKL,
    eps: Denoiser,
    v_unet: UNet2DConditionModel,
    card: str | None = None,
    pictures: list[Path] | None = None,
    flow_unet: UNet2DConditionModel | None = None,
) -> None:
    """Write a Stable Diffusion folder, plus v UNet, flow UNet (if there is one), and their schedulers."""
    noise = scheduler("epsilon").config
    keys = (
        "num_train_timesteps",
        "beta_start",
        "beta_end",
        "beta_schedule",
        "set_alpha_to_one",
        "steps_offset",
    )
    pndm = PNDMScheduler(**{k: noise[k] for k in keys}, skip_prk_steps=True, prediction_type="epsilon")
    pndm.register_to_config(clip_sample=False)

    def write(folder: Path) -> None:
        save_tokenizer(tokenizer, folder / "tokenizer")
        _half(eps.text).save_pretrained(folder / "text_encoder")
        _half(eps.unet).save_pretrained(folder / "unet")
        _half(v_unet).save_pretrained(folder / "unet_v")
        _half(vae).save_pretrained(folder / "vae")
        pndm.save_pretrained(folder / "scheduler")
        scheduler("v_prediction").save_pretrained(folder / "scheduler_v")
        if flow_unet is not None:
            _half(flow_unet).save_pretrained(folder / "unet_flow")
            scheduler("flow").save_pretrained(folder / "scheduler_flow")
        index = {
            "_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.21.0",
            "feature_extractor": [None, None], "image_encoder": [None, None],
            "requires_safety_checker": False,
            "safety_checker": [None, None], "scheduler": ["diffusers", "PNDMScheduler"],
            "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
        }  # fmt: skip
        (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
        (folder / "prompts.json").write_text('{"grammar": "toyworld"}\n')  # trace_bench.runs.known_prompts
        if card is not None:
            (folder / "README.md").write_text(card)
        for picture in pictures or []:
            shutil.copy(picture, folder / picture.name)

    replace_folder(target, write)


def export_clip(target: Path, model: CLIP, tokenizer: CLIPTokenizer, card: str | None) -> None:
    """Write open_clip's local folder."""

    def write(folder: Path) -> None:
        write_clip(folder, model, tokenizer)
        save_tokenizer(tokenizer, folder)
        if card is not None:
            (folder / "README.md").write_text(card)

    replace_folder(target, write)
