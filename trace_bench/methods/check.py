"""What must hold of every method; `trace-bench check method=NAME` and the tests run these checks."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from trace_bench.cameras import make_cameras
from trace_bench.methods.base import Distilled, Geometry, Method
from trace_bench.methods.cost import difference
from trace_bench.priors.base import Prior, Work
from trace_bench.priors.check import frozen_parameters
from trace_bench.priors.text import PromptText
from trace_bench.progress import Progress
from trace_bench.seeding import Rng
from trace_bench.system.checks import Check, CheckFailedError, require

STEPS, VIEWS = 3, 2


@dataclass(frozen=True)
class Trial:
    """STEPS steps of a fresh method."""

    answers: list[Distilled]
    costs: list[tuple[Work, Work]]  # declared and counted, of each step
    keeps_latents: bool
    checkpoint: bytes  # after step 0


@dataclass(frozen=True)
class Subject:
    """A method, and what its steps are given.

    make: a fresh method on `prior`; the adapter of the one before it is gone.
    text: embeddings of the prompt and of the method's negative prompt.
    settings: the method's YAML.
    """

    make: Callable[[], Method]
    prior: Prior
    text: PromptText
    settings: Mapping[str, Any]

    @cached_property
    def together(self) -> Trial:
        """A run with VIEWS views a step, which most checks look at."""
        return run(self, VIEWS)

    @cached_property
    def alone(self) -> Trial:
        """A run with the first of these views."""
        return run(self, 1)


def run(subject: Subject, n: int, seed: int = 1) -> Trial:
    """Trial a fresh method with `n` views a step; torch's global seed must not matter."""
    prior, file = subject.prior, io.BytesIO()
    answers, costs, keeps = [], [], True
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        method = subject.make()
        for k in range(STEPS):
            latents, before = _latents(prior, k, n), prior.counter + Work()
            answers.append(_take(subject, method, k, latents))
            counted = prior.counter - before
            costs.append((method.cost(Progress(k, STEPS), n, Rng(11).at(k)), counted))
            keeps = keeps and torch.equal(latents, _latents(prior, k, n))
            if k == 0:
                torch.save(method.state_dict(), file)
    return Trial(answers, costs, keeps, file.getvalue())


def _take(subject: Subject, method: Method, k: int, latents: Tensor) -> Distilled:
    """The method's answer at step `k` of STEPS."""
    n = len(latents)
    full = torch.ones(n)
    view = make_cameras(10.0 * full, torch.tensor([-100.0, 20.0])[:n], 2.0 * full, 45.0 * full, 8, 8)
    progress, rng = Progress(k, STEPS), Rng(11).at(k)
    answer = method.take_step(
        latents, subject.text, view.to(latents.device), progress, rng, _ball(n, latents.device)
    )
    require(
        isinstance(answer, Distilled), f"step() must return Distilled, but returned {type(answer).__name__}"
    )
    return answer


def _ball(n: int, device: torch.device) -> Geometry:
    """What `n` views of 8 x 8 pixels from distance 2 see of a ball of radius 0.6 around the origin."""
    at = (torch.arange(8) - 3.5) / 4.0 * 0.83
    inside = at[:, None] ** 2 + at[None, :] ** 2 < 0.6**2
    alpha = inside.float().expand(n, 8, 8)[..., None].to(device)
    return Geometry(depth=1.5 * alpha, alpha=alpha)


def _latents(prior: Prior, k: int, n: int) -> Tensor:
    """[n, C, h, w], the same in each call."""
    generator = torch.Generator().manual_seed(k)
    latents = torch.randn(VIEWS, *prior.latent_shape, generator=generator)[:n]
    return latents.to(prior.device, prior.alphas_cumprod.dtype)


def declared_cost(subject: Subject) -> str:
    """`cost` says what each step uses, to the item."""
    for n, made in ((1, subject.alone), (VIEWS, subject.together)):
        for k, (declared, counted) in enumerate(made.costs):
            differs = difference(declared, counted)
            require(differs is None, f"{differs} (step {k}, {n} view{'s' * (n > 1)})")
    return f"steps 0 to {STEPS - 1}, 1 and {VIEWS} views"


def gradient(subject: Subject) -> str:
    """The gradient is finite, not zero, without a graph, and has the latents' shape and type."""
    latents = _latents(subject.prior, 0, VIEWS)
    for k, answer in enumerate(subject.together.answers):
        grad = answer.grad
        require(grad.shape == latents.shape, f"shape {list(grad.shape)}, latents {list(latents.shape)}")
        require(grad.dtype == latents.dtype, f"{grad.dtype}, latents {latents.dtype}")
        require(not grad.requires_grad, "it has a graph: compute it under torch.no_grad or detach it")
        require(torch.isfinite(grad).all(), f"NaN or infinite at step {k}")
        require(grad.any(), f"zero at step {k}")
    return f"{list(latents.shape)}, finite, no graph"


def log_and_target(subject: Subject) -> str:
    """Logged values are scalars without a graph; a target is like the latents."""
    for answer in subject.together.answers:
        for name, value in answer.log.items():
            require(isinstance(value, Tensor) and value.dim() == 0, f"log[{name!r}] is no scalar tensor")
            require(not value.requires_grad, f"log[{name!r}] has a graph")
        if answer.target is not None:
            fits = answer.target.shape == answer.grad.shape and torch.isfinite(answer.target).all()
            require(fits, "the target is not finite, or does not have the latents' shape")
            require(not answer.target.requires_grad, "the target has a graph")
        if answer.t is not None:
            require(answer.t.shape == answer.grad.shape[:1], "t does not have one timestep per latent")
    there = [
        f"{'no ' * (value is None)}{name}" for name, value in (("target", answer.target), ("t", answer.t))
    ]
    return f"{', '.join(answer.log) or 'nothing logged'}; {', '.join(there)}"


def inputs_are_kept(subject: Subject) -> str:
    """A step leaves the latents unchanged, because the core still uses them."""
    require(subject.together.keeps_latents, "a step changes the latents in place")
    return f"{STEPS} steps"


def one_seed_one_run(subject: Subject) -> str:
    """Two runs with one seed are equal, whatever torch's global seed is."""
    again = run(subject, VIEWS, seed=2).answers
    for k, (one, other) in enumerate(zip(subject.together.answers, again, strict=True)):
        require(
            torch.equal(one.grad, other.grad), f"two runs differ from step {k} on: draw from `rng`, by name"
        )
    return f"{STEPS} steps, twice"


def resume(subject: Subject) -> str:
    """A run resumed from a checkpoint equals one that was never stopped."""
    whole = subject.together
    resumed = subject.make()
    resumed.load_state_dict(torch.load(io.BytesIO(whole.checkpoint), weights_only=True))
    for k in range(1, STEPS):
        answer = _take(subject, resumed, k, _latents(subject.prior, k, VIEWS))
        same = torch.equal(answer.grad, whole.answers[k].grad)
        require(same, f"a resumed run differs at step {k}: state_dict must hold all that moves")
    return "stopped after step 0, equal bit for bit"


def views_apart(subject: Subject) -> str:
    """A view's direction does not depend on the other views of the batch; it may be multiplied by B."""
    whole, alone = subject.together.answers[0].grad, subject.alone.answers[0].grad
    tolerance = 1e-3 * whole.detach().abs().max().item()
    for factor, says in ((1, "the same"), (VIEWS, f"{VIEWS} times as large: a sum over the batch")):
        if torch.allclose(whole[:1], factor * alone, rtol=1e-3, atol=tolerance):
            return f"in a batch of {VIEWS} {says}"
    raise CheckFailedError(f"a view's gradient depends on the other views of a batch of {VIEWS}")


def frozen_prior(subject: Subject) -> str:
    """Nothing of the prior trains or collects gradients."""
    before = [p.detach().clone() for p in frozen_parameters(subject.prior)]
    run(subject, 1)
    after = frozen_parameters(subject.prior)
    require(all(not p.requires_grad for p in after), "parameters of the prior require a gradient")
    require(all(p.grad is None for p in after), "a backward pass reaches the prior's parameters")
    same = all(torch.equal(old, new) for old, new in zip(before, after, strict=True))
    require(same, "a step changes the prior's parameters")
    return f"{len(after)} tensors unchanged"


def settings_say_who(subject: Subject) -> str:
    """The YAML names the method, cites it and gives its own budget and guidance scale."""
    for key in ("display_name", "citation", "reference"):
        require(subject.settings.get(key), f"the YAML has no {key}")
    reference, scale = subject.settings["reference"], subject.settings.get("guidance_scale")
    known = {"steps", "views_per_step", "nerf"}
    require(set(reference) <= known, f"reference has {', '.join(sorted(set(reference) - known))}")
    require(scale is None or scale > 0, f"guidance_scale is {scale}; use null if there is none")
    return f"{subject.settings['display_name']}, {reference['steps']} steps"


CHECKS: tuple[Check[Subject], ...] = (
    Check("YAML: name, citation, budget", settings_say_who),
    Check("declared cost = counted cost", declared_cost),
    Check("gradient", gradient),
    Check("log and target", log_and_target),
    Check("latents left alone", inputs_are_kept),
    Check("one seed, one run", one_seed_one_run),
    Check("resume", resume),
    Check("views are independent", views_apart),
    Check("prior stays frozen", frozen_prior),
)
