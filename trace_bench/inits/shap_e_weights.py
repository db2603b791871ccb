"""Loads Shap-E's text model from OpenAI's format, which Cap3D uses for its finetuned weights."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trace_bench.system.errors import TraceBenchError

if TYPE_CHECKING:
    from diffusers import PriorTransformer

#: diffusers' name -> OpenAI's; both have .weight and .bias
_TOP = {
    "time_embedding.linear_1": "time_embed.c_fc",
    "time_embedding.linear_2": "time_embed.c_proj",
    "proj_in": "input_proj",
    "embedding_proj": "clip_embed",
    "norm_in": "ln_pre",
    "norm_out": "ln_post",
    "proj_to_clip_embeddings": "output_proj",
}
_BLOCK = {
    "attn1.to_out.0": "attn.c_proj",
    "ff.net.0.proj": "mlp.c_fc",
    "ff.net.2": "mlp.c_proj",
    "norm1": "ln_1",
    "norm3": "ln_2",
}
_NOT_IN_SHAP_E = {"clip_mean", "clip_std"}  # diffusers' class has them for another model


def load_into(transformer: PriorTransformer, path: Path) -> None:
    """Replace the transformer's weights by a checkpoint's (at the top level or under `model_state_dict`)."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        state = content.get("model_state_dict", content)
        blocks, heads = len(transformer.transformer_blocks), int(transformer.num_attention_heads)
        converted = from_openai(state, blocks, heads)
        missing, unexpected = transformer.load_state_dict(converted, strict=False)
    except (OSError, pickle.UnpicklingError, EOFError, AttributeError, RuntimeError, KeyError) as error:
        words = " ".join(str(error).split())[:200]
        raise TraceBenchError(
            f"{path} contains no weights of Shap-E's text model ({type(error).__name__}: {words}); set "
            "init.weights to Cap3D's shapE_finetuned_with_330kdata.pth."
        ) from error
    if unexpected or set(missing) - _NOT_IN_SHAP_E:
        lacking = ", ".join(missing)
        raise TraceBenchError(f"{path} does not fit {type(transformer).__name__} (missing: {lacking}).")


def from_openai(state: dict[str, Tensor], blocks: int, heads: int) -> dict[str, Tensor]:
    """The state dict with diffusers' names."""
    prefix = "wrapped." if any(key.startswith("wrapped.") for key in state) else ""
    names = dict(_TOP)
    for i in range(blocks):
        names |= {
            f"transformer_blocks.{i}.{ours}": f"backbone.resblocks.{i}.{theirs}"
            for ours, theirs in _BLOCK.items()
        }
    found = {
        f"{ours}.{kind}": state[f"{prefix}{theirs}.{kind}"]
        for ours, theirs in names.items()
        for kind in ("weight", "bias")
    }
    found["positional_embedding"] = state[f"{prefix}pos_emb"][None]
    for i in range(blocks):
        for kind in ("weight", "bias"):
            joint = state[f"{prefix}backbone.resblocks.{i}.attn.c_qkv.{kind}"]
            # Rows are ordered by head; within a head: queries, keys, values.
            split = joint.reshape(heads, 3, -1, *joint.shape[1:]).unbind(dim=1)
            for name, part in zip(("to_q", "to_k", "to_v"), split, strict=True):
                found[f"transformer_blocks.{i}.attn1.{name}.{kind}"] = part.reshape(-1, *joint.shape[1:])
    return found
