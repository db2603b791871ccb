"""A random checkpoint with the classes and config keys of openai/shap-e, small enough for tests."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import HeunDiscreteScheduler, PriorTransformer, ShapEPipeline
from diffusers.pipelines.shap_e import ShapERenderer
from sd_checkpoint import TEXT_LENGTH, _text_config
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from benchmarks.full_size import save_tokenizer

WIDTH = 16  # of text and latents


def transformer() -> PriorTransformer:
    return PriorTransformer(
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        embedding_dim=WIDTH,
        num_embeddings=32,
        additional_embeddings=0,
        time_embed_dim=24,
        embedding_proj_dim=WIDTH,
        clip_embed_dim=2 * WIDTH,
        time_embed_act_fn="gelu",
        norm_in_type="layer",
        encoder_hid_proj_type=None,
        added_emb_type=None,
    )


def lookup_table() -> tuple[torch.Tensor, torch.Tensor]:
    """A marching-cubes table, [256, 5, 3] edges and [256, 5] masks, with every crossed edge of a cube.

    Its triangles are meaningless, but its vertices are right, and an init uses only those.
    """
    corner = [(x, y, z) for z in range(2) for y in range(2) for x in range(2)]  # bit i of a case
    edges = []
    for axis in range(3):
        others = [a for a in range(3) if a != axis]
        for second in range(2):
            for first in range(2):
                low, high = [0, 0, 0], [0, 0, 0]
                for point in (low, high):
                    point[others[0]], point[others[1]] = first, second
                high[axis] = 1
                edges.append((corner.index(tuple(low)), corner.index(tuple(high))))
    cases, masks = torch.zeros(256, 5, 3, dtype=torch.long), torch.zeros(256, 5, dtype=torch.bool)
    for case in range(256):
        crossed = [i for i, (a, b) in enumerate(edges) if (case >> a & 1) != (case >> b & 1)]
        for k in range(0, len(crossed), 3):
            three = (crossed[k : k + 3] * 3)[:3]
            cases[case, k // 3], masks[case, k // 3] = torch.tensor(three), True
    return cases, masks


def renderer() -> ShapERenderer:
    """A field of the latents, with a signed distance that is positive in about half of the cube."""
    made = ShapERenderer(
        param_shapes=((8, 93), (8, 8), (8, 8), (8, 8)), d_latent=WIDTH, d_hidden=8, n_output=12,
        background=(0.1, 0.1, 0.1),
    )  # fmt: skip
    made.mesh_decoder.cases, made.mesh_decoder.masks = lookup_table()
    with torch.no_grad():
        made.mlp.mlp[-1].weight.mul_(4.0)
        made.mlp.mlp[-1].bias[0] = 0.0
    return made


def make_shap_e(folder: Path, seed: int = 0) -> Path:
    """Write the folder and return it; the same seed gives the same weights."""
    torch.manual_seed(seed)
    save_tokenizer(folder / "words", TEXT_LENGTH)
    ShapEPipeline(
        prior=transformer(),
        text_encoder=CLIPTextModelWithProjection(_text_config(WIDTH, projection_dim=WIDTH)),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "words", model_max_length=TEXT_LENGTH),
        scheduler=HeunDiscreteScheduler(
            beta_schedule="exp", num_train_timesteps=1024, prediction_type="sample", use_karras_sigmas=True,
            clip_sample=True, clip_sample_range=1.0,
        ),
        shap_e_renderer=renderer(),
    ).save_pretrained(folder / "model")  # fmt: skip
    return folder / "model"
