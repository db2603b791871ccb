"""The interface of an init: it provides a run's initial points."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from trace_bench.system.errors import TraceBenchError

if TYPE_CHECKING:
    import torch

    from trace_bench.representations.points import PointCloud
    from trace_bench.seeding import StepRng


def seconds_of(minutes: float) -> float:
    """Declared minutes in seconds."""
    if not 0.0 <= minutes < float("inf"):
        raise TraceBenchError(f"init.minutes must be a number of at least 0, but is {minutes}.")
    return 60.0 * minutes


class Init(Protocol):
    """An init, created from conf/init/*.yaml: called once per run, before the first step.

    Its points are in world coordinates: z is up, and the front faces +x, towards the camera at azimuth 0. An
    init from a model with other axes turns its points. An init without points has `gives_points = False`.
    """

    def __call__(
        self, rng: StepRng, device: torch.device | str = "cpu", prompt: str = ""
    ) -> PointCloud | None: ...
