"""Writes the model cards from logs and evaluation results; no number is typed by hand."""

# ruff: noqa: E501 (tables in Markdown do not wrap)
from __future__ import annotations

import json
from itertools import pairwise
from statistics import median
from typing import Any

from scripts.tiny_prior.common import Settings
from scripts.tiny_prior.data import MIXTURE, OVERHEAD_SHARE, PHRASE_SHARE
from scripts.tiny_prior.unet import KINDS
from scripts.tiny_prior.view_judge import MARGIN, SAMPLES
from trace_bench.toyworld import VIEW_PHRASES, all_captions, held_out_prompts, training_prompts

_HEAD = """---
license: apache-2.0
library_name: {library}
tags: [{tags}]
---
"""


def _entries(settings: Settings, stage: str) -> list[dict[str, Any]]:
    path = settings.work / f"{stage}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _last(settings: Settings, stage: str, key: str) -> float:
    """The last value of a key in a stage's log."""
    return float([e for e in _entries(settings, stage) if key in e][-1][key])


def _minutes(settings: Settings, stage: str) -> float:
    """Steps times the median time of a step, from the log: without the pauses of an interrupted stage."""
    logged = [(e["time"], e["step"]) for e in _entries(settings, stage) if "seconds_per_step" in e]
    paces = [
        (later - time) / (next_ - step) for (time, step), (later, next_) in pairwise(logged) if next_ > step
    ]
    return logged[-1][1] * median(paces) / 60


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _sample_rows(result: dict[str, Any]) -> list[str]:
    names = {
        "held_in_epsilon_cfg4": ("training captions", "unet", "4"),
        "held_in_epsilon_cfg7.5": ("training captions", "unet", "7.5"),
        "held_out_epsilon_cfg5": ("held-out captions", "unet", "5"),
        "held_in_v_prediction_cfg5": ("training captions", "unet_v", "5"),
        "held_in_flow_cfg5": ("training captions", "unet_flow", "5"),
    }
    rows = [
        "| captions | network | guidance | samples | first of 32 | solids | objects | compositions | first of all |"
    ]
    rows.append("|---|---|---|---|---|---|---|---|---|")
    for key, (captions, network, scale) in names.items():
        if key not in result:
            continue
        r = result[key]
        kinds = " | ".join(_percent(r[k]) for k in ("solid", "object", "composition"))
        rows.append(
            f"| {captions} | {network} | {scale} | {r['pictures']} | {_percent(r['among_32'])} | {kinds} "
            f"| {_percent(r['among_all'])} |"
        )
    return rows


def _view_rows(result: dict[str, Any]) -> str:
    rows = ["| network | front view | side view | back view | overhead view |", "|---|---|---|---|---|"]
    for network, kind in KINDS.items():
        if f"views_{kind}" not in result:
            continue
        shares = result[f"views_{kind}"]
        rows.append(
            f"| {network} | "
            + " | ".join(_percent(shares[phrase.split()[0]]) for phrase in VIEW_PHRASES)
            + " |"
        )
    return "\n".join(rows)


def _data(settings: Settings) -> str:
    names = {"front": "objects with a front", "object": "other objects", "solid": "solids",
             "composition": "compositions"}  # fmt: skip
    kinds = ", ".join(f"{100 * share:.0f} % {names[kind]}" for kind, share in MIXTURE.items())
    return f"""## Data
{settings.views:,} renders of the toy world (`trace_bench/toyworld`) at 64 x 64 pixels, seed {settings.seed}: {kinds}, from the
training cameras of the toy world (distance 2.5 to 2.8, field of view 40 to 45 degrees, elevation -10 to 60), and
{100 * OVERHEAD_SHARE:.0f} % from 60 to 85 degrees, over random plain backgrounds (often white, black or grey). {100 * PHRASE_SHARE:.0f} % of the
captions end in "front view", "side view", "back view" or "overhead view". The grammar has {len(all_captions())} captions;
{len(held_out_prompts())} of them are held out (`trace_bench.toyworld.HELD_OUT`: one colour of every solid and coloured object, two
whole kinds of stack, a tenth of the other stacks) and {len(training_prompts())} were trained on. No picture or text from elsewhere.
"""


def prior_card(settings: Settings, result: dict[str, Any]) -> str:
    """README.md of tiny_prior; with the flow UNet if `result` has its scores."""
    has_flow = "views_flow" in result
    views = _view_rows(result)
    judge = result["view_judge"]
    rows = "\n".join(_sample_rows(result))
    minutes = {s: _minutes(settings, s) for s in ("vae", "unet", "unet_v", "vae_decoder")}
    flow_part = flow_stage = flow_schedule = ""
    if has_flow:
        flow_part = """
| `unet_flow` | the same, fine-tuned from `unet_v` to the velocity of a flow (`prior=tiny_flow`) | 2.76 M |"""
        flow_schedule = """
| `scheduler_flow` | SD 3's noise levels (shift 3) | |"""
        flow_stage = f"""
| `unet_flow` | {settings.unet_flow_steps:,} | {_minutes(settings, "unet_flow"):.0f} \
| MSE {_last(settings, "unet_flow", "mse"):.4f} of the velocity |"""
    head = _HEAD.format(library="diffusers", tags="text-to-image, stable-diffusion, toy")
    return f"""{head}
# tiny_prior

A text-to-image diffusion model of the toy world in the format of Stable Diffusion 2.1, small enough for a laptop's
CPU: score distillation can be tried with it in seconds, without a download.

```python
import torch
from diffusers import StableDiffusionPipeline

folder = "trace_bench/models/tiny_prior"
pipeline = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
pipeline("a duck, side view", guidance_scale=5).images[0].save("duck.png")
```

The weights are stored in half precision, so name the dtype. Every part also loads by itself with `subfolder=`.

![samples](samples.png)

*DDIM, 50 steps, guidance 7.5, training captions: a third solids, a third objects, a third compositions.*

## Parts
| folder | what | parameters |
|---|---|---|
| `unet` | `UNet2DConditionModel`, epsilon prediction, 16 x 16 x 4 latents, levels of 32, 64, 96 channels | 2.76 M |
| `unet_v` | the same, fine-tuned to v prediction (the base of VSD's and TraCe's LoRA, as SD 2.1-v is) | 2.76 M |{flow_part}
| `vae` | `AutoencoderKL`, 64 x 64 x 3 to 16 x 16 x 4; its scaling factor makes the latents' deviation 1 | 0.23 M |
| `text_encoder` | `CLIPTextModel`, width 96, two layers, trained together with `unet` | 0.24 M |
| `tokenizer` | `CLIPTokenizer`, 16 tokens; every word of the grammar is one token, foreign words are several | |
| `scheduler`, `scheduler_v` | SD's noise schedule (scaled linear 0.00085 to 0.012, 1000 steps) | |{flow_schedule}

{_data(settings)}
## Training
`scripts/train_tiny_prior.py`, AdamW, batches of 32, min-SNR weighting (5), 10 % empty captions, averaged weights,
learning rate to zero over the last 45 %. Minutes: steps times the median time of a step, on two cores that had other
work too.

| stage | steps | minutes | at the end |
|---|---|---|---|
| autoencoder | {settings.vae_steps:,} | {minutes["vae"]:.0f} | MSE {_last(settings, "vae", "mse"):.4f} on [-1, 1] |
| its decoder alone | {settings.decoder_steps:,} | {minutes["vae_decoder"]:.0f} | MSE {_last(settings, "vae_decoder", "mse"):.4f} |
| `unet` and text encoder | {settings.unet_steps:,} | {minutes["unet"]:.0f} | MSE {_last(settings, "unet", "mse"):.4f} of epsilon |
| `unet_v` | {settings.unet_v_steps:,} | {minutes["unet_v"]:.0f} | MSE {_last(settings, "unet_v", "mse"):.4f} of v |{flow_stage}

## Scores
DDIM, 50 steps{"; for the flow Euler's method" if has_flow else ""}. "First of 32": the tiny CLIP (`tiny_clip`) ranks the
sample's own caption above 31 others drawn from all {len(all_captions())}; "first of all": above every other caption.

{rows}

Captions with a view phrase, objects with a front, guidance 5, {SAMPLES} samples a phrase: share that shows the view asked
for. The judge is a small network that sees azimuth and elevation (`scripts/tiny_prior/view_judge.py`). On {judge["renders"]:,}
fresh true renders it names the view of {_percent(judge["right"])} of those that are not at a border between two phrases
(median error {judge["azimuth_error"]:.1f} degrees of azimuth, {judge["elevation_error"]:.1f} of elevation). At a border ({MARGIN[0]:.0f} degrees of azimuth, {MARGIN[1]:.0f} of
elevation to either side) both phrases count as right.

{views}

![views](samples_views.png)

*Rows: front, side, back, overhead view.*

## Limits
It knows the words of the toy grammar and nothing else. Small features (eyes, windows) are soft and outlines wobble, more
so at high guidance. How far a view phrase is obeyed is in the scores above: read them before measuring the Janus problem
with it.

Licence: Apache-2.0.
"""


def clip_card(settings: Settings, result: dict[str, Any]) -> str:
    """README.md of tiny_clip."""
    rows = ["| true renders of | first of 32 | first of all | view phrase first of 4 |", "|---|---|---|---|"]
    for key, name in (
        ("held_in", "training captions"), ("held_in_degraded", "training captions, half resolution and noise"),
        ("held_out", "held-out captions"), ("held_out_degraded", "held-out captions, half resolution and noise"),
    ):  # fmt: skip
        r = result[key]
        view = _percent(r["view"]) if "view" in r else ""
        rows.append(f"| {name} | {_percent(r['among_32'])} | {_percent(r['among_all'])} | {view} |")
    table = "\n".join(rows)
    head = _HEAD.format(library="open_clip", tags="clip, toy")
    return f"""{head}
# tiny_clip

A CLIP of the toy world in open_clip's format: `open_clip.create_model_and_transforms("local-dir:<this folder>")` and
`open_clip.get_tokenizer("local-dir:<this folder>")`. It scores renders of distilled assets against their captions.

A ResNet of width 16 for 64 x 64 pixels and a text tower of width 96 with two layers, 96-dimensional embeddings,
trained on augmented true renders (blur, noise, blotches, shifts, zoom, colour changes) for {settings.clip_steps:,} steps of 64
distinct captions; every picture is also told from captions that differ from its own in one word, and from the other
view phrases. {_minutes(settings, "clip"):.0f} minutes on two shared cores; training top-1 at the end
{_percent(_last(settings, "clip", "top1"))} among 192 captions.

{_data(settings)}
## Scores
256 fresh true renders each.

{table}

Objects with a front: own view phrase first of four in {_percent(result["view_of_objects_with_a_front"])} (chance 25 %).

## Limits
A judge of this one small world. It compares captions of the grammar; its similarity to any other text means nothing.

Licence: Apache-2.0.
"""
