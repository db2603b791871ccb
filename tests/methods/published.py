"""Replays what the published codes computed (data/published) through the methods as conf/ configures them."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch
from configured import configured
from hydra.utils import get_class
from safetensors.torch import load_file

from trace_bench.cameras import make_cameras
from trace_bench.priors.base import TextEmbedding
from trace_bench.priors.text import PromptText
from trace_bench.progress import Progress

DATA = Path(__file__).parent / "data" / "published"
INDEX = json.loads((DATA / "cases.json").read_text(encoding="utf-8"))
CASES = {case["name"]: case for case in INDEX["cases"]}
load = cache(load_file)


class RecordedDraws:
    """Stands in for `StepRng` and hands out the recorded draws of one step. `problems` lists the draws whose
    range is not the recorded one: a run would get another number there."""

    def __init__(self, step):
        draws = load(DATA / "draws.safetensors")
        self.draws = {purpose: draws[key] for purpose, key in step["draws"].items()}
        self.bounds = step["bounds"]
        self.unused = set(self.draws)
        self.problems = []

    def _take(self, purpose, asked=None):
        self.unused.discard(purpose)
        if asked != self.bounds.get(purpose):
            self.problems.append(f"{purpose} is drawn from {asked}, not from {self.bounds.get(purpose)}")
        return self.draws[purpose]

    def randn(self, purpose, shape, device=None, dtype=torch.float32):
        draw = self._take(purpose)
        assert draw.shape == tuple(shape), purpose
        return draw.to(device, dtype)

    def randint(self, purpose, low, high, n, device=None):
        draw = self._take(purpose, [low, high])
        assert draw.shape == (n,), purpose
        return draw.to(device)

    def chance(self, purpose, probability):
        return bool(self._take(purpose, probability))


@dataclass
class Replayed:
    """One step: relative L2 errors by quantity, and what is wrong with its draws."""

    step: int
    errors: dict[str, float]
    problems: list[str]


@cache
def prior_of(name, take_v_as_epsilon=False):
    """A recorded checkpoint in double precision; on request, a v model is declared an epsilon model."""
    spec = INDEX["priors"][name]
    base = {"adapter_repo": str(DATA / spec["adapter_repo"])} if "adapter_repo" in spec else {}
    cls = get_class(spec["target"])
    if not take_v_as_epsilon:
        return cls(str(DATA / spec["repo"]), **spec["arguments"], **base)
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(DATA / spec["repo"], Path(folder) / "model")
        path = copy / "scheduler" / "scheduler_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"prediction_type": "epsilon"}))
        return cls(str(copy), **spec["arguments"], **base)


@cache
def inputs_of(name, angles):
    """Latents [4, 4, 16, 16], texts and four cameras with angles in the peer's precision."""
    data = load(DATA / INDEX["priors"][name]["inputs"])
    texts = {
        part: TextEmbedding(data[f"text/{part}/tokens"], data.get(f"text/{part}/pooled"))
        for part in ("plain", "views", "negative", "empty")
    }
    elevation, azimuth, distance, fovy = (
        data[f"camera/{part}"] for part in ("elevation_deg", "azimuth_deg", "distance", "fovy_deg")
    )
    dtype = getattr(torch, angles)
    cameras = replace(
        make_cameras(elevation, azimuth, distance, fovy, 64, 64),
        c2w=data["camera/c2w"],
        elevation_deg=elevation.to(dtype),
        azimuth_deg=azimuth.to(dtype),
    )
    return data["latents"], PromptText(**texts), cameras


def alternate_pooled(text):
    """The empty text of four views, with the pooled vectors negative, empty, negative, empty."""
    pooled = torch.cat([text.negative.pooled, text.empty.pooled]).repeat(2, 1)
    return replace(text, empty=TextEmbedding(text.empty.tokens.expand(4, -1, -1), pooled))


def relative_error(ours, theirs):
    """L2 distance relative to theirs; where theirs is zero, the largest of ours."""
    ours, theirs = ours.double(), theirs.double()
    return float((ours - theirs).norm() / theirs.norm() if theirs.any() else ours.abs().max())


def compare(result, method, expected, i, views):
    """Errors of all that was recorded at step `i`; an adapter's is the largest over its tensors."""
    errors = {"grad": relative_error(result.grad / views, expected["grad"][i])}
    if "lora_loss" not in result.log:
        return errors
    errors["lora_loss"] = relative_error(result.log["lora_loss"], expected["lora_loss"][i])
    names = method.adapter.state_dict()
    trained = dict(zip(names, method.adapter.parameters(), strict=True))
    for quantity, of in (("adapter_after", lambda p: p.detach()), ("adapter_grad", lambda p: p.grad)):
        recorded = {key for key in expected if key.startswith(f"{quantity}/")}
        if recorded:
            assert recorded == {f"{quantity}/{name}" for name in trained}
            errors[quantity] = max(
                relative_error(of(p), expected[f"{quantity}/{name}"][i]) for name, p in trained.items()
            )
    return errors


def replay(case, *, as_published=True, config=None, **changes) -> Iterator[Replayed]:
    """Each step of a case; with `as_published`, the deliberate difference `differs_by` is undone."""
    undo = case.get("differs_by") if as_published else None
    latents, text, cameras = inputs_of(case["prior"], case.get("angles", "float32"))
    if undo == "alternate_pooled":
        text = alternate_pooled(text)
    prior = prior_of(case["prior"], undo == "take_v_as_epsilon")
    method = configured(config or case["config"], prior, **case["overrides"] | changes)
    expected = load(DATA / "cases" / f"{case['name']}.safetensors")
    start = load(DATA / "inputs" / "adapter.safetensors")
    for i, step in enumerate(case["steps"]):
        draws = RecordedDraws(step)
        if "cds_noise" in draws.draws:
            method.noise = draws.randn("cds_noise", method.noise.shape, dtype=method.noise.dtype)
        if hasattr(method, "adapter") and (i == 0 or case["adapter_between_steps"] == "reset"):
            method.adapter.load_state_dict(start)
        chosen = slice(step["views"][0], step["views"][-1] + 1)
        progress = Progress(step["step"], case["total_steps"])
        result = method.step(latents[chosen], text, cameras[chosen], progress, draws)
        problems = [*draws.problems, *(f"{purpose} is not drawn" for purpose in sorted(draws.unused))]
        errors = compare(result, method, expected, i, len(step["views"]))
        yield Replayed(step["step"], errors, problems)


def largest(steps):
    """Largest error over the steps, by quantity."""
    return {quantity: max(step.errors[quantity] for step in steps) for quantity in steps[0].errors}
