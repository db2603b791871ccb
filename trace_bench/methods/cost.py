"""The declared cost of a method's step against the counted cost."""

from __future__ import annotations

from trace_bench.methods.base import Method
from trace_bench.priors.base import Work
from trace_bench.progress import Progress
from trace_bench.seeding import StepRng
from trace_bench.system.errors import TraceBenchError

_ITEMS = {
    "unet_fwd": "UNet item",
    "unet_bwd": "UNet backward item",
    "vae_enc_fwd": "VAE encoder item",
    "vae_enc_bwd": "VAE encoder backward item",
    "vae_dec": "VAE decoder item",
    "reward": "rated picture",
}


class CostError(TraceBenchError):
    """A step did other work than its method declares."""

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step


def difference(declared: Work, counted: Work) -> str | None:
    """The difference between two costs, in words; None if they are equal."""
    pairs = {
        name: (count, counted.as_dict()[name])
        for name, count in declared.as_dict().items()
        if count != counted.as_dict()[name]
    }
    if not pairs:
        return None
    said = " and ".join(_count(pair[0], _ITEMS[name]) for name, pair in pairs.items())
    found = " and ".join(
        str(pair[1]) if len(pairs) == 1 else _count(pair[1], _ITEMS[name]) for name, pair in pairs.items()
    )
    return f"declares {said}, but used {found}"


def check_cost(method: Method, counted: Work, views: int, progress: Progress, rng: StepRng) -> None:
    """Compare what a step of `views` views used with what `method.cost` says of it.

    Raises:
        CostError: the two differ; names the method's class, both costs and the step.
    """
    differs = difference(method.cost(progress, views, rng), counted)
    if differs is None:
        return
    cls = type(method)
    raise CostError(
        f"{cls.__module__}.{cls.__qualname__} {differs} at step {progress.k} ({_count(views, 'view')}); "
        "correct its cost(), which budget=equal_work and the tables rely on.",
        progress.k,
    )


def _count(n: int, item: str) -> str:
    return f"{n} {item}" if n == 1 else f"{n} {item}s"
