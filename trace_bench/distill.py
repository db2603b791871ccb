"""The distillation loop, shared by every method and representation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from trace_bench.cameras import CameraRange, Cameras, sample_cameras
from trace_bench.methods.base import Distilled, Geometry, Method
from trace_bench.methods.cost import check_cost
from trace_bench.priors.base import Prior, Work
from trace_bench.priors.text import PromptText
from trace_bench.progress import Progress
from trace_bench.render import Render
from trace_bench.representations.base import Representation
from trace_bench.seeding import Rng, StepData, StepRng
from trace_bench.system.errors import TraceBenchError

Background = Literal["random", "black", "white"]


class NonFiniteError(TraceBenchError):
    """A value of the run became NaN or infinite; `untouched` if no step had changed the init yet."""

    def __init__(self, step: int, name: str, untouched: bool = False) -> None:
        if not untouched:
            how = "lower the learning rate or the guidance scale, or inspect the last checkpoint"
        elif name == "render":
            how = "the init itself cannot be rendered; use another init, or repair its file"
        else:
            how = "nothing was optimised yet, so look at the prior (its weights and dtype) and the method"
        super().__init__(f"The {name} became non-finite at step {step}; {how}.")
        self.step = step
        self.name = name


@dataclass(frozen=True)
class DistillResult:
    """Result of the loop: `step` steps are done; `stopped` if it was asked to stop before the last one."""

    step: int
    stopped: bool


@dataclass(frozen=True)
class Encoding:
    """A render as latents, and the way back for their gradient. Nothing of the encoder is inside autograd,
    because a prior that several runs share waits there for the others."""

    prior: Prior
    picture: Tensor  # [B, 3, H, W] in [0, 1], with the graph back to the render; or the rendered latents
    pixels: Tensor | None  # what was encoded: `picture` without its graph; None for rendered latents
    latents: Tensor  # [B, C, h, w], as the prior gave them

    def pull_back(self, grad: Tensor, keep: bool = False) -> Tensor:
        """The gradient in `picture` that belongs to one in the latents; `keep` it possible to ask again."""
        if self.pixels is None:
            return grad
        return self.prior.encode_backward(self.pixels, self.latents, grad, keep)


@dataclass(frozen=True)
class Observation:
    """The state of a step before its backward pass."""

    progress: Progress
    view: Cameras
    rng: StepRng
    render: Render
    encoding: Encoding
    distilled: Distilled
    background: Tensor  # [B, 3], behind the asset


class FiniteMonitor:
    """Stores on the device the first step at which each named value was not finite."""

    NAMES = ("render", "latents", "latent gradient", "loss")

    def __init__(self) -> None:
        self._never = torch.iinfo(torch.int64).max
        self._first: dict[tuple[str, ...], Tensor] = {}  # of the values of these names: [len(names)]

    def record(self, step: int, values: dict[str, Tensor]) -> None:
        """Check this step's values without waiting for the device."""
        names = tuple(values)
        largest = torch._foreach_norm(list(values.values()), ord=math.inf)  # NaN if a value is
        first = torch.where(torch.stack(largest).isfinite(), self._never, step)
        self._first[names] = torch.minimum(self._first[names], first) if names in self._first else first

    def check(self) -> None:
        """Raise NonFiniteError for the earliest bad value; on a tie, the first one computed."""
        bad = [
            (step, self.NAMES.index(name))
            for names, first in self._first.items()
            for name, step in zip(names, first.tolist(), strict=True)
        ]
        step, name = min(bad, default=(self._never, 0))
        if step < self._never:
            raise NonFiniteError(step, self.NAMES[name], untouched=step == 0)


def distill(
    prior: Prior,
    method: Method,
    representation: Representation,
    text: PromptText,
    camera_range: CameraRange,
    *,
    steps: int,
    views_per_step: int,
    resolution: int,
    background: Background,
    rng: Rng,
    first_step: int = 0,
    log_every: int = 10,
    on_step: Callable[[int, dict[str, float]], None] = lambda step, log: None,
    should_stop: Callable[[], bool] = lambda: False,
    observe: Callable[[Observation], None] = lambda seen: None,
) -> DistillResult:
    """`steps` times: render, encode, compute the direction, one backward pass, optimise, densify.

    Args:
        text: the prompt's embeddings.
        camera_range: distribution of the training views.
        steps: length of the run; every schedule is relative to it.
        resolution: side of the training renders in pixels.
        background: colour behind the asset; `random` draws one per view and step.
        first_step: the first step to run, after a resume.
        on_step: called after each step with its index and a log. The log is filled every `log_every` steps
            and after the last step, else empty. A filled log means that all steps so far were finite.
        should_stop: called before each step; True ends the loop early.
        observe: called in each step before its backward pass; must not change the graph.

    Raises:
        NonFiniteError: a render, latent, gradient or loss was NaN or infinite; names the step.
        CostError: the method's first step did other work than the method declares.
    """
    monitor, data = FiniteMonitor(), StepData(rng, prior.device)
    check_every = 1 if prior.device.type == "cpu" else log_every
    for k in range(first_step, steps):
        if should_stop():
            monitor.check()
            return DistillResult(k, stopped=True)
        view = sample_cameras(views_per_step, rng.at(k), camera_range, resolution, resolution)
        tensors, draws = data.at(k, view.tensors())
        distilled, loss = _step(
            prior,
            method,
            representation,
            text,
            view.replaced(tensors),
            background,
            Progress(k, steps),
            draws,
            monitor,
            observe,
            is_first=k == first_step,
        )
        log_now = (k + 1) % log_every == 0 or k + 1 == steps
        if log_now or (k + 1) % check_every == 0:
            monitor.check()
        on_step(k, _log(distilled, loss, representation) if log_now else {})
    return DistillResult(steps, stopped=False)


def _step(
    prior: Prior,
    method: Method,
    representation: Representation,
    text: PromptText,
    view: Cameras,
    background: Background,
    progress: Progress,
    rng: StepRng,
    monitor: FiniteMonitor,
    observe: Callable[[Observation], None],
    is_first: bool,
) -> tuple[Distilled, Tensor]:
    """Run one step; returns the method's result and the regularisation loss.

    The first step compares the declared with the counted cost of the method.
    """
    n = len(view)
    colour = background_colour(background, n, rng, prior.device)
    render = representation.render(view, colour)
    representation.pre_backward(render)
    habits = (method.encode_depth_probability, method.flip_probability, method.pixel_gradient_limit)
    encoding = encode(prior, render, rng, *habits)
    latents = encoding.latents.detach()
    counted = prior.counter + Work()
    geometry = Geometry(render.depth.detach(), render.alpha.detach())
    distilled = method.take_step(latents, text, view, progress, rng, geometry)
    if is_first:
        check_cost(method, prior.counter - counted, n, progress, rng)
    observe(Observation(progress, view, rng, render, encoding, distilled, colour))
    grad_rms = distilled.grad.square().mean().sqrt() / n
    regularisation = representation.regularisation(render, progress, grad_rms)
    loss = (latents * distilled.grad).sum() / n + regularisation.detach()
    backward(encoding, distilled.grad * (1.0 / n), regularisation)
    values = {"latents": latents, "latent gradient": distilled.grad, "loss": loss}
    if render.rgb is not None:
        values["render"] = render.rgb.detach()
    monitor.record(progress.k, values)
    representation.post_backward(render, progress, grad_rms)
    return distilled, regularisation.detach()


def encode(
    prior: Prior,
    render: Render,
    rng: StepRng,
    depth_probability: float = 0.0,
    flip_probability: float = 0.0,
    pixel_gradient_limit: float | None = None,
) -> Encoding:
    """The render as latents; unchanged if the representation renders latents.

    With `depth_probability`, the depth is encoded instead of the colours, if it is differentiable. With
    `flip_probability`, the images are mirrored. `pixel_gradient_limit` limits the gradient that reaches the
    colours.
    """
    if render.latents is not None:
        return Encoding(prior, render.latents, None, render.latents)
    if render.rgb is None:
        raise ValueError("a Render needs rgb or latents")
    picture = render.rgb
    if render.depth.requires_grad and rng.chance("encode_depth", depth_probability):
        picture = depth_picture(render.depth, render.alpha)
    elif pixel_gradient_limit is not None and picture.requires_grad:
        picture.register_hook(partial(limited, limit=pixel_gradient_limit))
    if rng.chance("flip", flip_probability):
        picture = picture.flip(2)
    noise = rng.randn("posterior", (len(picture), *prior.latent_shape), prior.device)
    picture = picture.permute(0, 3, 1, 2)
    pixels = picture.detach().requires_grad_(picture.requires_grad)
    return Encoding(prior, picture, pixels, prior.encode(pixels, noise))


def backward(encoding: Encoding, grad: Tensor, regularisation: Tensor) -> None:
    """One backward pass of the latents, with the gradient `grad`, and of the regularisation loss."""
    roots: list[Tensor] = []
    grads: list[Tensor | None] = []
    if encoding.picture.requires_grad:
        roots.append(encoding.picture)
        grads.append(encoding.pull_back(grad))
    if regularisation.requires_grad:
        roots.append(regularisation)
        grads.append(None)
    torch.autograd.backward(roots, grads)  # type: ignore[arg-type]  # its stub forbids None in a list


def limited(grad: Tensor, limit: float) -> Tensor:
    """Each pixel's gradient [..., 3], scaled so that every channel is within +-limit (Dreamer XL's code)."""
    largest = grad.abs().amax(dim=-1, keepdim=True)
    return grad * (limit / largest.clamp(min=limit))


def depth_picture(depth: Tensor, alpha: Tensor) -> Tensor:
    """Depth [B, H, W, 1] as a grey disparity image [B, H, W, 3]: 1 at each view's nearest point, 0 if empty.
    Depth is ignored where alpha is near 0, because it is undefined there."""
    disparity = alpha / torch.where(alpha > 1e-3, depth, torch.ones_like(depth))
    nearest = disparity.detach().amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-6)
    return (disparity / nearest).expand(-1, -1, -1, 3)


def background_colour(background: Background, n: int, rng: StepRng, device: torch.device) -> Tensor:
    """One colour per view: [B, 3] in [0, 1]."""
    if background == "random":
        return rng.uniform("background", (n, 3), device)
    return torch.full((n, 3), 1.0 if background == "white" else 0.0, device=device)


def _log(distilled: Distilled, regularisation: Tensor, representation: Representation) -> dict[str, float]:
    """Scalars of a step, and mean and range of its timesteps; reading them waits for the device."""
    log = {
        "grad_rms": float(distilled.grad.square().mean().sqrt()),
        "regularisation": float(regularisation),
        "n_primitives": float(representation.n_primitives),
    }
    if distilled.t is not None:
        drawn = distilled.t.double()
        mean, low, high = torch.stack([drawn.mean(), drawn.min(), drawn.max()]).tolist()
        log |= {"t": mean, "t_min": low, "t_max": high}
    return log | {name: float(value) for name, value in distilled.log.items()}
