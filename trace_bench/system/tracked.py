"""Progress over a list of things: a bar on a terminal, a line from time to time elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")
_FIRST_LINE_S, _LONGEST_PAUSE_S = 10.0, 300.0


def duration(seconds: float) -> str:
    """For example "42 s", "12 min" or "3 h 05 min"."""
    minutes = round(seconds / 60)
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def pause_before_line(elapsed: float) -> float:
    """Seconds until the next line without a terminal: 10 at first, 300 after some hours, so that logs stay
    short."""
    return min(max(_FIRST_LINE_S, elapsed / 20), _LONGEST_PAUSE_S)


def tracked(items: Sequence[T], what: str) -> Iterator[T]:
    """The items, while their progress is shown on standard error.

    what: such as "scoring".
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if console.is_terminal and not console.is_dumb_terminal:
        columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            yield from bar.track(items, description=what)
        return
    began = said = time.monotonic()
    for i, item in enumerate(items):
        now = time.monotonic()
        if i and now - said > pause_before_line(now - began):
            left = (now - began) / i * (len(items) - i)
            console.print(f"{what}: {i}/{len(items)}, about {duration(left)} left", highlight=False)
            said = now
        yield item
