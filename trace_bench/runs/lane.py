"""A run's place in its process: alone, or in a lane beside others that share the prior (`priors.lanes`)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal, TypeVar

from trace_bench.priors.base import Prior
from trace_bench.priors.lanes.batcher import Batcher
from trace_bench.priors.lanes.lane_prior import LanePrior
from trace_bench.priors.lanes.turns import Seat, Turns

T = TypeVar("T")

#: single: the networks compute what the run asks for. batched: in batches of certain sizes, alone or with
#: other runs. A run's bits are the same within a mode, for any number of lanes.
Mode = Literal["single", "batched"]


class Lane:
    """What a run needs to know of the lanes of its process.

    Args:
        lanes: how many runs share the process; with more than one, new runs are batched.
        turns: None for a run that is alone.
    """

    def __init__(self, lanes: int = 1, turns: Turns | None = None) -> None:
        self.lanes = lanes
        self.is_alone = turns is None
        self.seat = Seat(turns)
        self._batcher: Batcher | None = None

    @property
    def mode(self) -> Mode:
        """The mode of a run that begins here."""
        return "batched" if self.lanes > 1 else "single"

    @property
    def sizes(self) -> dict[str, list[int]]:
        """The sizes of the batches so far, by network; empty in the single mode."""
        return self._batcher.sizes if self._batcher else {}

    def prior(self, shared: Prior, mode: Mode) -> Prior:
        """The prior for a run of this mode."""
        if mode == "single" and self.is_alone:
            return shared
        batcher = batcher_of(shared)
        self._batcher = batcher if mode == "batched" else None
        return LanePrior(batcher, self.seat, mode == "batched")

    def away(self, work: Callable[[], T]) -> T:
        """The result of `work`, which only writes or reads files: the other runs go on meanwhile."""
        return self.seat.away(work)

    def clock(self) -> float:
        """Seconds that this run has used: those of the clock, if it is alone."""
        return time.monotonic() if self.is_alone else self.seat.seconds()


_batchers: dict[int, Batcher] = {}


def batcher_of(prior: Prior) -> Batcher:
    """The batcher of a prior, one for the process."""
    if id(prior) not in _batchers:
        _batchers[id(prior)] = Batcher(prior)  # keeps the prior, so its id is never another's
    return _batchers[id(prior)]
