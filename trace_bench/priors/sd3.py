"""Stable Diffusion 3 (Esser et al. 2024): a flow model with a transformer and two or three text encoders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import SD3Transformer2DModel
from torch import Tensor
from transformers import AutoTokenizer, CLIPTextModelWithProjection, T5EncoderModel

from trace_bench.priors.adapter import add_lora_to_transformer
from trace_bench.priors.base import TextEmbedding
from trace_bench.priors.flow import FlowDenoiser, LatentFlowPrior
from trace_bench.system.errors import UNREADABLE, TraceBenchError

T5_LENGTH = 256  # tokens of the third encoder, as in diffusers


class TransformerDenoiser(FlowDenoiser):
    """SD3's transformer."""

    def _network(self, x: Tensor, timestep: Tensor, text: TextEmbedding, camera: Tensor | None) -> Tensor:
        pooled = text.pooled
        assert pooled is not None
        pooled = pooled.to(self._dtype) if camera is None else torch.cat([pooled.to(camera), camera], dim=1)
        return self._run(
            hidden_states=x,
            timestep=timestep,
            encoder_hidden_states=text.tokens.to(self._dtype).contiguous(),
            pooled_projections=pooled.contiguous(),
        )


class StableDiffusion3Prior(LatentFlowPrior):
    """Tokens are both CLIPs' penultimate layers side by side, padded with zeros, and T5's behind them; the
    pooled embedding is that of both CLIPs. A model without T5 has zeros in its place.

    The VAE runs in float32, and so does T5 if `dtype` is float16, for which neither was made.
    """

    NETWORK: ClassVar[str] = "transformer"
    NETWORK_CLASS: ClassVar[type] = SD3Transformer2DModel
    DENOISER: ClassVar[type[FlowDenoiser]] = TransformerDenoiser
    TEXT_ENCODERS: ClassVar[tuple[str, ...]] = ("text_encoder", "text_encoder_2", "text_encoder_3")
    MORE_TOKENS: ClassVar[int] = T5_LENGTH

    def __init__(self, repo: str, *, vae_dtype: str = "float32", **settings: Any) -> None:
        super().__init__(repo, vae_dtype=vae_dtype, **settings)

    @classmethod
    def encoders_in(cls, folder: Path) -> tuple[str, ...]:
        """All three, or the two CLIPs if model_index.json has null for T5."""
        index = folder / "model_index.json"
        if not index.is_file():
            return cls.TEXT_ENCODERS
        named = _read(index).get("text_encoder_3")
        return cls.TEXT_ENCODERS if isinstance(named, list) and any(named) else cls.TEXT_ENCODERS[:2]

    @classmethod
    def check_resolution(cls, folder: Path, resolution: int) -> None:
        """Refuse latents that the transformer cannot cut into whole patches, or has no positions for."""
        transformer, vae = (_read(folder / name / "config.json") for name in (cls.NETWORK, "vae"))
        pixels = 2 ** (len(vae["block_out_channels"]) - 1) * transformer["patch_size"]
        largest = pixels * transformer["pos_embed_max_size"]
        if resolution % pixels or resolution > largest:
            raise TraceBenchError(
                f"prior.resolution={resolution} does not give whole patches of latents; "
                f"use a multiple of {pixels}, up to {largest}."
            )

    def _tokenizer(self, name: str) -> Any:
        if name != "tokenizer_3":
            return super()._tokenizer(name)
        tokenizer = AutoTokenizer.from_pretrained(self.folder, subfolder=name)
        tokenizer.model_max_length = T5_LENGTH
        return tokenizer

    def _add_lora(self, network: torch.nn.Module, rank: int) -> None:
        add_lora_to_transformer(network, rank)

    @torch.no_grad()
    def _encode_text(self, texts: list[str]) -> list[dict[str, Tensor]]:
        """Token states [L, C] and pooled embedding [P]; loads the encoders one after the other."""
        if not texts:
            return []
        states, pooled = [], []
        for name, tokenizer in zip(self.text_encoders[:2], self.tokenizers[:2], strict=True):
            clip = self._load(CLIPTextModelWithProjection, self.folder, name, torch.float32)
            out = clip(self._token_ids(tokenizer, texts), output_hidden_states=True)
            states.append(out.hidden_states[-2].float().cpu())
            pooled.append(out.text_embeds.float().cpu())
            del clip
        clips = torch.cat(states, dim=-1)
        width = self._denoiser.unet.config.joint_attention_dim
        padding = torch.zeros(*clips.shape[:2], width - clips.shape[2])
        tokens = torch.cat([torch.cat([clips, padding], dim=-1), self._t5(texts, width)], dim=1)
        return [
            {"tokens": row.contiguous(), "pooled": vector.contiguous()}
            for row, vector in zip(tokens, torch.cat(pooled, dim=-1), strict=True)
        ]

    @property
    def _t5_dtype(self) -> torch.dtype:
        return torch.float32 if self.dtype == torch.float16 else self.dtype

    def _text_key(self) -> str:
        kind = f"-t5-{str(self._t5_dtype).removeprefix('torch.')}" if len(self.text_encoders) > 2 else ""
        return super()._text_key() + kind

    def _t5(self, texts: list[str], width: int) -> Tensor:
        """The states of T5, without a mask for the padding, or zeros: [B, T5_LENGTH, width]."""
        if len(self.text_encoders) < 3:
            return torch.zeros(len(texts), T5_LENGTH, width)
        t5 = self._load(T5EncoderModel, self.folder, self.text_encoders[2], self._t5_dtype)
        return t5(self._token_ids(self.tokenizers[2], texts)).last_hidden_state.float().cpu()


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, *UNREADABLE) as error:
        raise TraceBenchError(
            f"{path} cannot be read as JSON ({error}); download the model again."
        ) from error
