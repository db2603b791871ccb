"""Priors in Stable Diffusion's folder format: SD 1.5, SD 2.1, and the tiny prior of this package."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import CLIPTextModel

from trace_bench.priors.latent_diffusion import LatentDiffusionPrior


class StableDiffusionPrior(LatentDiffusionPrior):
    """One text encoder; its last hidden states condition the UNet."""

    @torch.no_grad()
    def _encode_text(self, texts: list[str]) -> list[dict[str, Tensor]]:
        """Last hidden states, [L, C] each; loads the text encoder for this call only."""
        if not texts:
            return []
        encoder = self._load(CLIPTextModel, self.folder, "text_encoder", torch.float32)
        hidden = encoder(self._token_ids(self.tokenizer, texts)).last_hidden_state
        return [{"tokens": row.contiguous()} for row in hidden.float().cpu()]
