"""Progress over a list of things: a bar on a terminal, a line from time to time elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
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


def tracked(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """The items, while their progress is shown on standard error.

    Args:
        what: such as "scoring".
        total: number of items; None for a sequence.
    """
    with tracker(len(items) if total is None else total, what) as one_is_done:  # type: ignore[arg-type]
        for item in items:
            yield item
            one_is_done()


@contextmanager
def tracker(total: int, what: str) -> Iterator[Callable[[], None]]:
    """Like `tracked`, for work that does not end in order: a function to call when one of `total` is done."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if console.is_terminal and not console.is_dumb_terminal:
        columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(what, total=total)
            yield lambda: bar.advance(task)
        return
    began = said = time.monotonic()
    done = 0

    def one_is_done() -> None:
        nonlocal said, done
        done += 1
        now = time.monotonic()
        if done < total and now - said > pause_before_line(now - began):
            left = (now - began) / done * (total - done)
            console.print(f"{what}: {done}/{total}, about {duration(left)} left", highlight=False)
            said = now

    yield one_is_done
