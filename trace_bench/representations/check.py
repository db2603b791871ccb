"""What must hold of every representation; `trace-bench check representation=NAME` and the tests run these
checks.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from trace_bench.cameras import Cameras, make_cameras
from trace_bench.progress import Progress
from trace_bench.render import Render
from trace_bench.representations.base import InitialPoints, Representation
from trace_bench.representations.points import PointCloud
from trace_bench.system.checks import Check, require
from trace_bench.system.errors import TraceBenchError

STEPS, STOP, VIEWS = 3, 1, 2


@dataclass(frozen=True)
class Trained:
    """A representation after STEPS steps."""

    representation: Representation
    before: Tensor  # its picture before the first step
    checkpoint: bytes  # the state after STOP steps, as a file
    state: dict[str, Any]  # the same as state_dict gave it
    kept: list[Tensor]  # copies of its tensors, made at once


@dataclass(frozen=True)
class Subject:
    """A representation and what a run gives it.

    make: a fresh one of the same seed from initial points, or from none.
    cls: its class.
    points: initial points; None if it takes none.
    settings: the representation's settings, as in its YAML.
    latent_shape: (C, h, w) of the prior.
    resolution: pixels a side of the renders.
    """

    make: Callable[[PointCloud | None], Representation]
    cls: type[Representation]
    points: PointCloud | None
    settings: Mapping[str, Any]
    latent_shape: tuple[int, int, int]
    resolution: int

    def fresh(self) -> Representation:
        """One from what a run would give."""
        return self.make(None if self.cls.initial_points == "unused" else self.points)

    @cached_property
    def trained(self) -> Trained:
        """A whole run, which most checks look at."""
        return _train(self, 1)

    def cameras(self, n: int = VIEWS) -> Cameras:
        """The first n of VIEWS cameras."""
        azimuth = torch.tensor([-100.0, 20.0])[:n]
        return make_cameras(15.0, azimuth, 2.6, 42.5, self.resolution, self.resolution)


def canvas(render: Render) -> Tensor:
    """What the core distils into: rgb [B, H, W, 3] or latents [B, C, h, w]."""
    found = render.latents if render.rgb is None else render.rgb
    if found is None:
        raise ValueError("a Render needs rgb or latents")
    return found


def train(representation: Representation, subject: Subject, first: int = 0, last: int = STEPS) -> None:
    """Steps [first, last) of a run of STEPS, as the core makes them, towards a grey picture."""
    for k in range(first, last):
        progress = Progress(k, STEPS)
        render = representation.render(subject.cameras(), torch.full((VIEWS, 3), 0.8))
        representation.pre_backward(render)
        picture = canvas(render)
        grad = picture.detach() - 0.3
        grad_rms = grad.square().mean().sqrt() / VIEWS
        regularisation = representation.regularisation(render, progress, grad_rms)
        require(regularisation.dim() == 0, "regularisation is no scalar")
        require(torch.isfinite(regularisation), f"regularisation is NaN or infinite at step {k}")
        ((picture * grad).sum() / VIEWS + regularisation).backward()
        representation.post_backward(render, progress, grad_rms)


def _train(subject: Subject, seed: int) -> Trained:
    """A whole run of a fresh representation; torch's global seed must not matter."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        representation, file = subject.fresh(), io.BytesIO()
        before = _picture(representation, subject)
        train(representation, subject, 0, STOP)
        state = representation.state_dict()
        torch.save(state, file)
        kept = [value.clone() for value in tensors(state)]
        train(representation, subject, STOP, STEPS)
    return Trained(representation, before, file.getvalue(), state, kept)


@torch.no_grad()
def _picture(representation: Representation, subject: Subject, n: int = VIEWS) -> Tensor:
    return canvas(representation.render(subject.cameras(n), torch.ones(3))).clone()


def tensors(state: Any) -> Iterator[Tensor]:
    """Every tensor in nested dicts, lists and tuples."""
    if isinstance(state, Tensor):
        yield state
    values = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    for value in values:
        yield from tensors(value)


def _same(one: Any, other: Any) -> bool:
    first, second = list(tensors(one)), list(tensors(other))
    return len(first) == len(second) and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def initial_points(subject: Subject) -> str:
    """`initial_points` is right: the class fails without points exactly if they are needed."""
    declared = subject.cls.initial_points
    require(
        declared in get_args(InitialPoints),
        f"initial_points is {declared!r}, not one of {', '.join(get_args(InitialPoints))}",
    )
    if declared != "needed":
        subject.make(None)
    if declared != "unused":
        subject.make(subject.points)
    if declared == "needed":
        try:
            subject.make(None)
        except TraceBenchError:
            return "needed"
        require(False, 'initial_points is "needed", but it is made without points too')
    return str(declared)


def rendering(subject: Subject) -> str:
    """Pictures, alpha, depth and normals, if any, have their shapes and ranges."""
    with torch.no_grad():
        render = subject.fresh().render(subject.cameras(), torch.ones(3), with_normals=True)
        require((render.rgb is None) != (render.latents is None), "rgb or latents, exactly one of them")
        if render.latents is not None:
            shape = (VIEWS, *subject.latent_shape)
            require(tuple(render.latents.shape) == shape, f"latents are {list(render.latents.shape)}")
        height, width = render.alpha.shape[1:3]
        if render.rgb is not None:
            require(tuple(render.rgb.shape) == (VIEWS, height, width, 3), f"rgb is {list(render.rgb.shape)}")
            require(render.rgb.min() >= -1e-4 and render.rgb.max() <= 1.0001, "rgb leaves [0, 1]")
        for name in ("alpha", "depth"):
            found = getattr(render, name)
            require(tuple(found.shape) == (VIEWS, height, width, 1), f"{name} is {list(found.shape)}")
            require(torch.isfinite(found).all(), f"{name} is NaN or infinite")
        require(render.alpha.min() >= -1e-4 and render.alpha.max() <= 1.0001, "alpha leaves [0, 1]")
        if render.normal is not None:
            wanted = (VIEWS, height, width, 3)
            require(tuple(render.normal.shape) == wanted, f"normal is {list(render.normal.shape)}")
    return f"{list(canvas(render).shape)}"


def latent_or_not(subject: Subject) -> str:
    """`is_latent` says what `render` does: whether there is anything to encode depends on it."""
    says = subject.cls.is_latent(subject.settings)
    does = subject.fresh().render(subject.cameras(), torch.ones(3)).rgb is None
    require(says == does, f"is_latent is {says}, but render gives {'latents' if does else 'rgb'}")
    return "latents" if says else "rgb"


def learning(subject: Subject) -> str:
    """Steps change the picture, and everything stays finite."""
    trained = subject.trained
    require(len(trained.representation.optimizers) > 0, "optimizers is empty")
    after = _picture(trained.representation, subject)
    require(not torch.equal(trained.before, after), f"{STEPS} steps change nothing in the picture")
    state = list(tensors(trained.representation.state_dict()))
    finite = all(torch.isfinite(value).all() for value in [*state, after] if value.is_floating_point())
    require(finite, "a tensor of the state is NaN or infinite")
    return f"{STEPS} steps, {len(state)} tensors"


def one_seed_one_run(subject: Subject) -> str:
    """Two runs with one seed are equal, whatever torch's global seed is."""
    one, other = subject.trained.representation, _train(subject, 2).representation
    same = _same(one.state_dict(), other.state_dict())
    require(same, "two runs of one seed differ: draw from seeding.StepRng(seed, step)")
    return f"{STEPS} steps, twice"


def resume(subject: Subject) -> str:
    """A run resumed from a checkpoint equals one that was never stopped."""
    resumed = subject.fresh()
    resumed.load_state_dict(torch.load(io.BytesIO(subject.trained.checkpoint), weights_only=True))
    train(resumed, subject, STOP, STEPS)
    same = _same(subject.trained.representation.state_dict(), resumed.state_dict())
    require(same, "a resumed run ends elsewhere: state_dict must hold all that moves, optimisers included")
    return f"stopped after step {STOP - 1}, equal bit for bit"


def state_is_a_copy(subject: Subject) -> str:
    """Further training leaves a state that was taken before unchanged."""
    kept = subject.trained.kept
    same = _same(kept, list(tensors(subject.trained.state)))
    require(same, "state_dict gives the tensors that train: clone them")
    return f"{len(kept)} tensors"


def views_apart(subject: Subject) -> str:
    """A view's picture does not depend on the other views of the batch."""
    representation = subject.fresh()
    whole, alone = _picture(representation, subject), _picture(representation, subject, 1)
    require(torch.allclose(whole[:1], alone, atol=1e-4), f"a view looks different in a batch of {VIEWS}")
    return f"a batch of {VIEWS}"


def exporting(subject: Subject) -> str:
    """`export` writes files into the folder and returns their paths."""
    representation = subject.trained.representation
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = representation.export(folder)
        require(paths, "export returns no path")
        for path in paths:
            require(path.is_relative_to(folder), f"export writes {path.name} outside the folder")
            require(path.is_file() and path.stat().st_size > 0, f"{path.name} is missing or empty")
        written = {path for path in folder.rglob("*") if path.is_file()}
        require(written == set(paths), f"not returned: {', '.join(p.name for p in written - set(paths))}")
    size = representation.n_primitives
    require(isinstance(size, int) and size > 0, f"n_primitives is {size!r}")
    return f"{', '.join(sorted(path.name for path in paths))}; {size} primitives"


CHECKS: tuple[Check[Subject], ...] = (
    Check("initial points", initial_points),
    Check("render", rendering),
    Check("is_latent", latent_or_not),
    Check("learning", learning),
    Check("one seed, one run", one_seed_one_run),
    Check("resume", resume),
    Check("state_dict is a copy", state_is_a_copy),
    Check("views are independent", views_apart),
    Check("export", exporting),
)
