"""What an attempt at a run is doing right now: `.live.json` in its folder, removed when the attempt ends.

The display of a sweep and `status --watch` read it, from any machine that sees the files. It is no record: a
killed attempt leaves an old one, and whether a run is worked on is said by its claim (`states`).
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter

from trace_bench.system.typed import Amount, Count, FormatError, read_typed

LIVE = ".live.json"
_EVERY_S = 0.5  # the most often that it is written within a phase


@dataclass(frozen=True)
class Live:
    """The state of an attempt: `done` of `total` steps or views of its phase; both 0 if not counted."""

    phase: str  # load, init, distill, render_step, export, render
    done: Count = 0
    total: Count = 0
    rate: Amount | None = None  # steps per second
    value_name: str = ""  # such as "loss"
    value: float | None = None
    part_of_steps: Amount = 0.0  # that was done before a render of `renders_at`

    @property
    def fraction(self) -> float:
        """The part of the phase that is done, in [0, 1]."""
        return min(self.done / self.total, 1.0) if self.total else 0.0

    @property
    def distilled(self) -> float:
        """The part of the run's steps that is done, in [0, 1]."""
        if self.phase in ("load", "init"):
            return 0.0
        if self.phase == "render_step":
            return min(self.part_of_steps, 1.0)
        return self.fraction if self.phase == "distill" else 1.0


class LiveFile:
    """Writes a run's `.live.json`; a file that cannot be written is no error."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / LIVE
        self._written = -math.inf

    def enter(self, phase: str) -> None:
        """A new phase begins."""
        self._write(Live(phase))

    def update(self, live: Live) -> None:
        """The phase goes on; written twice a second at most."""
        if live.done == live.total or time.monotonic() - self._written > _EVERY_S:
            self._write(live)

    def close(self) -> None:
        """The attempt has ended."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _write(self, live: Live) -> None:
        self._written = time.monotonic()
        partial = self._path.with_name(f"{LIVE}.partial")
        with contextlib.suppress(OSError):  # renamed: no reader sees a part; not synced: it is no record
            partial.write_text(json.dumps(asdict(live)), encoding="utf-8")
            partial.replace(self._path)


def read_live(folder: Path) -> Live | None:
    """What the attempt in a run folder is doing; None if it does not say."""
    try:
        return read_typed(_lives(), folder / LIVE, "it only shows progress")
    except FormatError:
        return None


@cache
def _lives() -> TypeAdapter[Live]:
    return TypeAdapter(Live)
