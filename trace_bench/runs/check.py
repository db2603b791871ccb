"""What must hold of a method and a representation together, in the core that runs them."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch

from trace_bench.cameras import CameraRange
from trace_bench.distill import distill
from trace_bench.methods.base import Method
from trace_bench.methods.cost import difference
from trace_bench.priors.base import Prior, Work
from trace_bench.priors.check import frozen_parameters
from trace_bench.progress import Progress
from trace_bench.representations.base import Representation
from trace_bench.representations.check import tensors
from trace_bench.runs.checkpoint import first_non_finite
from trace_bench.seeding import Rng
from trace_bench.system.checks import Check, require

STEPS, STOP, VIEWS = 3, 1, 2
Pair = tuple[Method, Representation]


@dataclass(frozen=True)
class Whole:
    """A run of STEPS steps."""

    pair: Pair
    counted: list[Work]  # of each step
    tensors: list[torch.Tensor]  # of both states, copied


@dataclass(frozen=True)
class Subject:
    """A method and a representation, and the prior between them.

    make: a fresh pair; the adapter of the method before is gone.
    settings: the representation's settings, as in its YAML.
    prompt: a text that the prior knows.
    resolution: pixels a side of the renders.
    """

    make: Callable[[], Pair]
    prior: Prior
    settings: Mapping[str, Any]
    prompt: str
    resolution: int

    @cached_property
    def whole(self) -> Whole:
        """A run that was never stopped."""
        pair = self.make()
        seen = [self.prior.counter + Work()]
        self.run(pair, on_step=lambda k, log: seen.append(self.prior.counter + Work()))
        counted = [after - before for before, after in pairwise(seen)]
        return Whole(pair, counted, [value.clone() for part in pair for value in tensors(part.state_dict())])

    def run(self, pair: Pair, **options: Any) -> None:
        """STEPS steps in the core; the options are `distill`'s."""
        text = pair[0].embed(self.prompt)
        distill(
            self.prior,
            *pair,
            text,
            CameraRange(),
            steps=STEPS,
            views_per_step=VIEWS,
            resolution=self.resolution,
            background="random",
            rng=Rng(0),
            **options,
        )


def cost(subject: Subject) -> str:
    """The counted work of each step is the method's declared work and the encoding of its views."""
    method, representation = subject.whole.pair
    encoded = 0 if type(representation).is_latent(subject.settings) else VIEWS
    encoder = Work(vae_enc_fwd=encoded, vae_enc_bwd=encoded)
    for k, counted in enumerate(subject.whole.counted):
        declared = method.cost(Progress(k, STEPS), VIEWS, Rng(0).at(k)) + encoder
        differs = difference(declared, counted)
        require(differs is None, f"with the encoder, {differs} (step {k}, {VIEWS} views)")
    return f"steps 0 to {STEPS - 1}, {VIEWS} views, encoder included"


def finite_and_frozen(subject: Subject) -> str:
    """After a run all states are finite, and the prior is as it was."""
    method, representation = subject.whole.pair
    for name, state in (("method", method.state_dict()), ("representation", representation.state_dict())):
        bad = first_non_finite(state, name)
        require(bad is None, f"{bad} is NaN or infinite")
    parameters = frozen_parameters(subject.prior)
    frozen = all(p.grad is None and not p.requires_grad for p in parameters)
    require(frozen, "a backward pass reaches the prior's parameters")
    return f"{STEPS} steps"


def resume(subject: Subject) -> str:
    """A run that was stopped, saved and resumed ends like an uninterrupted one."""
    expected = subject.whole.tensors
    asked = iter(range(STEPS + 1))
    pair: Pair = subject.make()
    subject.run(pair, should_stop=lambda: next(asked) >= STOP)
    file = io.BytesIO()
    torch.save([pair[0].state_dict(), pair[1].state_dict()], file)
    file.seek(0)
    resumed = subject.make()
    of_method, of_representation = torch.load(file, weights_only=True)
    resumed[0].load_state_dict(of_method)
    resumed[1].load_state_dict(of_representation)
    subject.run(resumed, first_step=STOP)
    found = [value for part in resumed for value in tensors(part.state_dict())]
    require(len(found) == len(expected) > 0, "the states have another number of tensors")
    same = all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    require(same, "a resumed run ends elsewhere")
    return f"stopped after step {STOP - 1}, equal bit for bit"


CHECKS: tuple[Check[Subject], ...] = (
    Check("in the core: declared cost = counted cost", cost),
    Check("in the core: finite, prior frozen", finite_and_frozen),
    Check("in the core: resume", resume),
)
