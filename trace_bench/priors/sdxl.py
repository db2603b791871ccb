"""Stable Diffusion XL (Podell et al. 2023): two text encoders, a pooled embedding, and size conditioning."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from trace_bench.priors.latent_diffusion import LatentDiffusionPrior


class StableDiffusionXLPrior(LatentDiffusionPrior):
    """Concatenates both encoders' penultimate layers; the pooled embedding is the second encoder's.

    The VAE runs in float32, because it overflows in half precision. The UNet is conditioned on an original
    and a target size of `conditioned_size` pixels a side, without cropping.
    """

    TEXT_ENCODERS: ClassVar[tuple[str, ...]] = ("text_encoder", "text_encoder_2")

    def __init__(
        self,
        repo: str,
        *,
        resolution: int = 1024,
        vae_dtype: str = "float32",
        conditioned_size: int = 1024,
        **settings: Any,
    ) -> None:
        size = [conditioned_size] * 2
        self.time_ids = torch.tensor([[*size, 0, 0, *size]], device=settings.get("device", "cpu"))
        super().__init__(repo, resolution=resolution, vae_dtype=vae_dtype, **settings)

    @torch.no_grad()
    def _encode_text(self, texts: list[str]) -> list[dict[str, Tensor]]:
        """Token states [L, C] and pooled embedding [P]; loads the encoders for this call only."""
        if not texts:
            return []
        first = self._load(CLIPTextModel, self.folder, "text_encoder", torch.float32)
        out = first(self._token_ids(self.tokenizers[0], texts), output_hidden_states=True)
        states = [out.hidden_states[-2]]
        del first
        second = self._load(CLIPTextModelWithProjection, self.folder, "text_encoder_2", torch.float32)
        out = second(self._token_ids(self.tokenizers[1], texts), output_hidden_states=True)
        tokens = torch.cat([*states, out.hidden_states[-2]], dim=-1).float().cpu()
        pooled = out.text_embeds.float().cpu()
        return [
            {"tokens": row.contiguous(), "pooled": vector.contiguous()}
            for row, vector in zip(tokens, pooled, strict=True)
        ]
