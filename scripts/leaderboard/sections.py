"""What the leaderboard runs: sections, each an experiment of conf/experiment/ with its own folder of runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scripts.results.workshop import Sweep

STRATA: Mapping[str, range] = {
    "solids": range(12), "without a front": range(12, 24), "with a front": range(24, 36),
    "compositions": range(36, 48),
}  # fmt: skip

#: Prompts that the prior was not trained on: the last four of each twelve.
HELD_OUT = frozenset(n for ids in STRATA.values() for n in ids[8:])


@dataclass(frozen=True)
class Section:
    what: str
    sweep: Sweep
    methods: tuple[str, ...] | None = None  # the only ones it is for; None: every method

    def of(self, methods: tuple[str, ...]) -> Sweep:
        """The sweep of some methods; empty if the section is for none of them."""
        if self.methods is not None:
            methods = tuple(name for name in methods if name in self.methods)
        return (*self.sweep, f"method={','.join(methods)}") if methods else ()


MAIN = "own_budget"
SECTIONS: Mapping[str, Section] = {
    MAIN: Section("each method with its own budget", ("experiment=leaderboard",)),
    "equal_work": Section("equal work", ("experiment=leaderboard_equal_work",)),
    "nerf": Section("NeRF", ("experiment=leaderboard_nerf",), ("sds", "vsd", "trace")),
}
#: The truth and wrong assets on the same prompts; no methods.
CONTROLS: Sweep = ("experiment=controls", "prompt_set=toy_bench")
