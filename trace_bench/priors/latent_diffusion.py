"""Shared code of the priors in diffusers' folder format: loading, images, noise, adapter and cost."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load, save
from torch import Tensor
from transformers import CLIPTokenizer
from transformers.utils import logging as transformers_logging

from trace_bench.diffusion.schedules import scaled_linear_alphas_cumprod
from trace_bench.priors.adapter import LoraAdapter, LoraNetwork, add_lora
from trace_bench.priors.base import TextEmbedding, Work, guided, pull_back
from trace_bench.priors.denoiser import Denoiser, as_compiled
from trace_bench.priors.flops import unit_tflop
from trace_bench.priors.traced import Traced
from trace_bench.system.cache import entry_path, keep, kept
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.model_files import (
    check_complete,
    check_whole,
    file_patterns,
    resolve,
    scheduler_config,
    weight_files,
    weights_sha256,
)

#: Compilations that torch allows in a process for all UNets, and for all encoders. One UNet needs two, its
#: adapter four (with a backward pass and without), and in lanes two for each number of adapters in a batch;
#: torch's default of 8 is too few.
COMPILATIONS = 64


class LatentDiffusionPrior(ABC):
    """A frozen latent diffusion model; subclasses implement the text conditioning.

    Args:
        repo: folder, `pkg://` folder or hub repository with unet, vae, text encoders, tokenizers, scheduler.
        revision: commit of `repo`; unused for folders.
        resolution: side in pixels of the VAE's input; other renders are resized bilinearly.
        dtype, vae_dtype: torch dtypes of the networks; latents and gradients outside them are float32.
        variant: file variant, such as fp16, if the repository has one.
        adapter_repo, adapter_revision, adapter_unet, adapter_scheduler: the base model for the LoRA of VSD
            and TraCe, and the folders of its network and scheduler; by default those of `repo`.
        compile: run the networks and the VAE encoder with torch.compile, for any number of views.
        gradient_checkpointing: compute again in the backward passes of adapter and encoder what would need
            memory until then.
        device: device of all networks and tensors.
    """

    #: Whether the network predicts the velocity of a flow (`priors.flow.LatentFlowPrior`).
    is_flow: ClassVar[bool] = False
    #: Folder and class of the network that predicts, and the folder of its scheduler.
    NETWORK: ClassVar[str] = "unet"
    NETWORK_CLASS: ClassVar[type] = UNet2DConditionModel
    SCHEDULER: ClassVar[str] = "scheduler"
    #: Folders of the text encoders, in the order of their embeddings' channels.
    TEXT_ENCODERS: ClassVar[tuple[str, ...]] = ("text_encoder",)
    #: Tokens that the network attends to behind those of the first text encoder.
    MORE_TOKENS: ClassVar[int] = 0
    #: SDXL's size and crop conditioning, [1, 6]; None for a UNet without it.
    time_ids: Tensor | None = None

    def __init__(
        self,
        repo: str,
        *,
        revision: str | None = None,
        resolution: int = 512,
        dtype: str = "float32",
        vae_dtype: str | None = None,
        variant: str | None = None,
        adapter_repo: str | None = None,
        adapter_revision: str | None = None,
        adapter_unet: str | None = None,
        adapter_scheduler: str | None = None,
        compile: bool = False,
        gradient_checkpointing: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        self.repo, self.revision, self.variant = repo, revision, variant
        self.resolution = resolution
        self.device = torch.device(device)
        self.dtype = _dtype(dtype)
        self.vae_dtype = _dtype(vae_dtype or dtype)
        self.compile, self.gradient_checkpointing = compile, gradient_checkpointing
        self.adapter_repo = adapter_repo or repo
        self.adapter_revision = adapter_revision if adapter_repo else revision
        self.adapter_unet = adapter_unet or self.NETWORK
        self.adapter_scheduler = adapter_scheduler or self.SCHEDULER
        self.counter = Work()
        self.adapters_made = 0

        self.folder, self.files = self._found(repo, revision, variant)
        self.check_resolution(self.folder, resolution)
        _check_memory(
            [path for path in self.files if path.parent.name in (self.NETWORK, "vae")],
            self.dtype,
            self.device,
        )
        scheduler = scheduler_config(self.folder / self.SCHEDULER)
        self.alphas_cumprod = self._alphas_cumprod(scheduler).to(self.device)
        unet = self._load(self.NETWORK_CLASS, self.folder, self.NETWORK, self.dtype)
        self._denoiser = self._make_denoiser(unet, scheduler)
        self._vae = self._load(AutoencoderKL, self.folder, "vae", self.vae_dtype)
        if gradient_checkpointing:
            self._vae.enable_gradient_checkpointing()
        self._traced = Traced(self._vae)
        if compile:
            _compile(self._denoiser, self._vae.encoder)
        side = resolution // 2 ** (len(self._vae.config.block_out_channels) - 1)
        self.latent_shape = (self._vae.config.latent_channels, side, side)

    @classmethod
    def _found(
        cls, repo: str, revision: str | None, variant: str | None, download: bool = True
    ) -> tuple[Path, list[Path]]:
        """The folder of a prior and its weight files, all of them there."""
        wanted = [cls.NETWORK, "vae", *cls.TEXT_ENCODERS]
        folder = resolve(repo, revision, file_patterns(wanted, variant), download)
        encoders = cls.encoders_in(folder)
        components = [cls.NETWORK, "vae", *encoders]
        tokenizers = [name.replace("text_encoder", "tokenizer") for name in encoders]
        check_complete(folder, [*components, *tokenizers, cls.SCHEDULER], repo, revision)
        return folder, weight_files(folder, components, variant)

    @classmethod
    def encoders_in(cls, folder: Path) -> tuple[str, ...]:
        """The text encoders of a folder: TEXT_ENCODERS, without those that a model may lack."""
        return cls.TEXT_ENCODERS

    @classmethod  # noqa: B027  (most networks take any size)
    def check_resolution(cls, folder: Path, resolution: int) -> None:
        """Raise TraceBenchError if the network in `folder` cannot take pictures of this size."""

    @classmethod
    def check_files(
        cls,
        repo: str,
        *,
        revision: str | None = None,
        variant: str | None = None,
        adapter_repo: str | None = None,
        adapter_revision: str | None = None,
        adapter_unet: str | None = None,
        adapter_scheduler: str | None = None,
        resolution: int = 512,
        adapter: bool,
        download: bool,
        **others: object,
    ) -> None:
        """Check, without loading, that the files of a prior are there and not cut off.

        Args:
            repo, revision, variant, adapter_repo, adapter_revision: see the class.
            adapter_unet, adapter_scheduler, resolution: see the class.
            adapter: check the adapter's base too.
            download: fetch missing files from the hub; False only looks into the local cache.

        Raises:
            TraceBenchError: names the file or the repository.
        """
        found, files = cls._found(repo, revision, variant, download)
        cls.check_resolution(found, resolution)
        if adapter:
            base = adapter_repo or repo
            adapter_unet, adapter_scheduler = adapter_unet or cls.NETWORK, adapter_scheduler or cls.SCHEDULER
            base_revision = adapter_revision if adapter_repo else revision
            folder = resolve(base, base_revision, file_patterns([adapter_unet], variant), download)
            check_complete(folder, [adapter_unet, adapter_scheduler], base, base_revision)
            files = [*files, *weight_files(folder, [adapter_unet], variant)]
        check_whole(files)

    def _load(self, cls: type, folder: Path, subfolder: str, dtype: torch.dtype) -> torch.nn.Module:
        """One frozen component in evaluation mode, on the device; uses the file variant if it exists."""
        names = [p.name for p in weight_files(folder, [subfolder], self.variant)]
        variant = self.variant if any(f".{self.variant}." in name for name in names) else None
        with _quiet():
            model = cls.from_pretrained(
                folder, subfolder=subfolder, torch_dtype=dtype, variant=variant, use_safetensors=True
            )
        model = model.to(self.device).eval().requires_grad_(False)
        if self.device.type == "cuda":
            model = model.to(memory_format=torch.channels_last)
        return model

    def _alphas_cumprod(self, config: dict[str, Any]) -> Tensor:
        """The noise schedule of a scheduler config, on the CPU, in float32 or float64: [T]."""
        if config.get("beta_schedule") != "scaled_linear":
            raise TraceBenchError(
                f"{config.get('_class_name')} with beta_schedule {config.get('beta_schedule')!r} is not "
                "supported; use a model with scaled_linear, such as Stable Diffusion."
            )
        n, dtype = config["num_train_timesteps"], torch.promote_types(self.dtype, torch.float32)
        return scaled_linear_alphas_cumprod(config["beta_start"], config["beta_end"], n, dtype)

    def _make_denoiser(self, network: torch.nn.Module, scheduler: dict[str, Any]) -> Denoiser:
        """The network with its parametrisation."""
        return Denoiser(
            network, scheduler["prediction_type"], self.alphas_cumprod, self.counter, self.time_ids
        )

    def sha256(self, adapter: bool) -> str:
        """Hash of every weight file that affects an asset: those of the prior, and of the adapter's base if
        the run has an adapter."""
        paths = list(self.files)
        if adapter:
            paths += weight_files(self._adapter_folder(), [self.adapter_unet], self.variant)
        return weights_sha256(paths)

    def describe(self, adapter: bool) -> dict[str, str | None]:
        """The prior's entry in the manifest; with the adapter's base if the run has an adapter."""
        base = {"adapter_repo": self.adapter_repo, "adapter_revision": self.adapter_revision}
        return {
            "repo": self.repo,
            "revision": self.revision,
            **(base if adapter else {}),
            "sha256": self.sha256(adapter),
        }

    # --- text ---------------------------------------------------------------------------------------------

    @cached_property
    def text_encoders(self) -> tuple[str, ...]:
        """The folders of the text encoders that this model has."""
        return self.encoders_in(self.folder)

    @cached_property
    def tokenizers(self) -> list[Any]:
        """One tokenizer per text encoder, loaded on first use."""
        return [self._tokenizer(name.replace("text_encoder", "tokenizer")) for name in self.text_encoders]

    def _tokenizer(self, name: str) -> Any:
        """The tokenizer in folder `name`; its `model_max_length` is the number of tokens that are read."""
        return CLIPTokenizer.from_pretrained(self.folder, subfolder=name)

    @property
    def tokenizer(self) -> CLIPTokenizer:
        """The first encoder's tokenizer."""
        return self.tokenizers[0]

    def check_prompt(self, text: str) -> None:
        """Raise if the tokenizer has no token for a word of `text`; name these words."""
        unk = self.tokenizer.unk_token_id
        words = text.replace(",", " ").split()
        unknown = [w for w in words if unk in self.tokenizer(w, add_special_tokens=False).input_ids]
        if unknown:
            named = ", ".join(repr(word) for word in dict.fromkeys(unknown))
            raise TraceBenchError(
                f"The prior {self.repo} does not know the word{'s' if ',' in named else ''} {named} of the "
                f"prompt {text!r}; use words of its vocabulary, or a prior for free text such as prior=sd21."
            )

    def fit(self, text: str, ending: str = "") -> str:
        """`text` without its last words, so that every encoder reads all of it and `ending`; `text` itself if
        both fit. A first word that is too long alone loses its last letters."""
        if self._fits(text + ending):
            return text
        words = [word.end() for word in re.finditer(r"\S+", text)]
        for ends in (words, range(1, words[0]) if words else ()):
            n = bisect_left(ends, True, key=lambda end: not self._fits(_beginning(text, end) + ending))
            if n:
                return _beginning(text, ends[n - 1])
        return ""

    def _fits(self, text: str) -> bool:
        """Whether every encoder reads the whole text."""
        return all(
            len(tokenizer(text, verbose=False).input_ids) <= tokenizer.model_max_length
            for tokenizer in self.tokenizers
        )

    def embed(self, texts: Sequence[str]) -> TextEmbedding:
        """Embeddings of the texts, padded to the encoders' full length: B = len(texts). Cached on disk."""
        paths = [entry_path(f"embeddings/{self._text_key()}", text) for text in texts]
        found = {i: row for i, path in enumerate(paths) if (row := kept(path, load)) is not None}
        missing = [i for i in range(len(paths)) if i not in found]
        computed = self._encode_text([texts[i] for i in missing]) if missing else []
        for i, row in zip(missing, computed, strict=True):
            keep(paths[i], save(row))
            found[i] = row
        rows = [found[i] for i in range(len(paths))]
        fields = {
            name: torch.stack([row[name] for row in rows]).to(self.device, torch.float32) for name in rows[0]
        }
        return TextEmbedding(**fields)

    def _text_key(self) -> str:
        """A hash of all that an embedding depends on besides its text: weights, configs and tokenizers."""
        files = weight_files(self.folder, list(self.text_encoders), self.variant)
        for name in self.text_encoders:
            files.append(self.folder / name / "config.json")
            files += sorted((self.folder / name.replace("text_encoder", "tokenizer")).iterdir())
        return weights_sha256([path for path in files if path.is_file()])

    @abstractmethod
    def _encode_text(self, texts: list[str]) -> list[dict[str, Tensor]]:
        """The fields of `TextEmbedding` for each text, on the CPU, without a batch dimension."""

    def _token_ids(self, tokenizer: Any, texts: list[str]) -> Tensor:
        """Token ids, padded to the tokenizer's full length: [B, L]."""
        ids = tokenizer(
            texts,
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        return ids.to(self.device)

    # --- images -------------------------------------------------------------------------------------------

    def encode(self, rgb: Tensor, noise: Tensor) -> Tensor:
        """Scaled latents [B, C, h, w] of rgb [B, 3, H, W] in [0, 1]: one posterior sample."""
        size = (self.resolution, self.resolution)
        if rgb.shape[-2:] != size:
            rgb = torch.nn.functional.interpolate(rgb, size, mode="bilinear", align_corners=False)
        pixels = (2.0 * rgb - 1.0).to(self.vae_dtype)
        if self.compile:
            mean, std = self._posterior(as_compiled(pixels))
        else:
            mean, std = self._traced(self._posterior, "encode", pixels)
        sample = mean.float() + std.float() * noise
        latents = (sample - self._vae_shift) * self._vae.config.scaling_factor
        self.counter.vae_enc_fwd += rgb.shape[0]
        if latents.requires_grad:
            latents.register_hook(self._count_encoder_backward)
        return latents

    def _posterior(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the VAE's posterior."""
        posterior = self._vae.encode(pixels).latent_dist
        return posterior.mean, posterior.std

    @property
    def _vae_shift(self) -> float:
        """The mean of the VAE's samples; 0 before SD 3."""
        return float(self._vae.config.shift_factor or 0.0)

    def _count_encoder_backward(self, grad: Tensor) -> None:
        self.counter.vae_enc_bwd += grad.shape[0]

    def encode_backward(self, rgb: Tensor, latents: Tensor, grad: Tensor, keep: bool = False) -> Tensor:
        """The gradient in rgb that belongs to `grad` in latents = encode(rgb, noise)."""
        return pull_back(rgb, latents, grad, keep)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """rgb [B, 3, H, W] in [0, 1] of scaled latents [B, C, h, w]."""
        self.counter.vae_dec += latents.shape[0]
        unscaled = latents / self._vae.config.scaling_factor + self._vae_shift
        image = self._vae.decode(unscaled.to(self.vae_dtype)).sample
        return (image.float() / 2.0 + 0.5).clamp(0.0, 1.0)

    # --- noise --------------------------------------------------------------------------------------------

    @torch.no_grad()
    def eps(self, latents: Tensor, t: Tensor, text: TextEmbedding) -> Tensor:
        """Noise prediction, converted from v if needed: [B, C, h, w]."""
        return self._denoiser.to_eps(self._denoiser.predict(latents, t, text), latents, t)

    def eps_cfg(
        self,
        latents: Tensor,
        t: Tensor,
        cond: TextEmbedding,
        uncond: TextEmbedding,
        guidance_scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Guided, conditional and unconditional prediction from one call of 2 B items."""
        return guided(self.eps, latents, t, cond, uncond, guidance_scale)

    # --- adapter ------------------------------------------------------------------------------------------

    def _adapter_folder(self) -> Path:
        return resolve(
            self.adapter_repo, self.adapter_revision, file_patterns([self.adapter_unet], self.variant)
        )

    @cached_property
    def _adapter_network(self) -> LoraNetwork:
        folder = self._adapter_folder()
        scheduler = scheduler_config(folder / self.adapter_scheduler)
        own = scheduler_config(self.folder / self.SCHEDULER)
        if not torch.allclose(self._alphas_cumprod(scheduler), self._alphas_cumprod(own)):
            raise TraceBenchError(
                f"{self.adapter_repo} and {self.repo} have different noise schedules; "
                "choose an adapter base with the same schedule."
            )
        unet = self._load(self.NETWORK_CLASS, folder, self.adapter_unet, self.dtype)
        if self.gradient_checkpointing:
            unet.enable_gradient_checkpointing()
        network = LoraNetwork(self._make_denoiser(unet, scheduler), self._add_lora)
        if self.compile:
            network.denoiser.compile()
        return network

    def adapter(self, rank: int, seed: int) -> LoraAdapter:
        """A new LoRA adapter with camera conditioning: weights of its own for a shared network."""
        self.adapters_made += 1
        return LoraAdapter(self._adapter_network, rank, seed)

    def _add_lora(self, network: torch.nn.Module, rank: int) -> None:
        """Freeze the adapter's network and add LoRA layers and a camera MLP."""
        add_lora(network, rank)

    # --- cost ---------------------------------------------------------------------------------------------

    def tflop(self, work: Work) -> float:
        """TFLOP of the prior's part of counted work (`system.flops`)."""
        unit = unit_tflop(
            json.dumps(dict(self._denoiser.unet.config), default=str, sort_keys=True),
            json.dumps(dict(self._vae.config), default=str, sort_keys=True),
            self.tokenizer.model_max_length + self.MORE_TOKENS,
            self.resolution,
        )
        return sum(getattr(work, name) * cost for name, cost in unit.items())


def _compile(denoiser: Denoiser, encoder: torch.nn.Module) -> None:
    """Compile the whole network and the VAE encoder: for a batch of 1, for 64 rows and more, for all others.

    `fullgraph` makes torch raise an error instead of running uncompiled.
    """
    # torch counts for the whole process, so several priors add up. Old versions know the limit by this name.
    torch._dynamo.config.cache_size_limit = max(torch._dynamo.config.cache_size_limit, COMPILATIONS)
    denoiser.compile()
    encoder.compile(fullgraph=True)  # `encode` makes its batch dynamic, the size of the pictures stays fixed


def _check_memory(files: Sequence[Path], dtype: torch.dtype, device: torch.device) -> None:
    """Raise if the networks cannot fit on a GPU, even if their files have twice the precision of `dtype`."""
    if device.type != "cuda":
        return
    needed = sum(path.stat().st_size for path in files) * min(1.0, dtype.itemsize / 4)
    free, _ = torch.cuda.mem_get_info(device)
    if needed > free:
        raise TraceBenchError(
            f"The networks in {files[0].parent.parent} need at least {needed / 2**30:.1f} GiB of GPU memory, "
            f"but {device} has {free / 2**30:.1f} GiB free; use a larger GPU, prior.dtype=bfloat16 or "
            "device=cpu."
        )


def _beginning(text: str, end: int) -> str:
    """The first `end` characters, without a comma at their end."""
    return text[:end].rstrip(" ,;")


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the progress bar of each component: loading takes a few seconds at most."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def _dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise TraceBenchError(
            f"dtype {name!r} is not a floating-point dtype of torch; use float32 or bfloat16."
        )
    return dtype
