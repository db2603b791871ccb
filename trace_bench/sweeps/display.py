"""The display of a sweep: one block on a terminal that messages scroll above, or a line from time to time."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.constrain import Constrain
from rich.live import Live as Block
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from trace_bench.run_folder.live import Live
from trace_bench.sweeps.board import AtWork, View
from trace_bench.system.text import one_line
from trace_bench.system.tracked import duration, pause_before_line

PHASES = {
    "load": "loading",
    "init": "init",
    "distill": "distilling",
    "render_step": "rendering",
    "export": "exporting",
    "render": "rendering",
}
_FRAMES_PER_S = 4
_NAMED = 4  # running assets in a line without a terminal
_ROOM_FOR_CTRL_C = (
    3  # columns: the terminal prints ^C at the end of the block, which must not start a new line
)
_LINES_AROUND = 4  # lines of the terminal that the running assets leave free


class Display:
    """Shows a sweep while the block runs; a context manager.

    Args:
        view: returns the state of the sweep; called from a thread.
        every: seconds between two updates on a terminal.
        console: for tests; default is standard output.
    """

    def __init__(self, view: Callable[[], View], every: float = 0.5, console: Console | None = None) -> None:
        self._look, self._every = view, every
        self.console = Console(highlight=False) if console is None else console
        self.is_terminal = self.console.is_terminal and not self.console.is_dumb_terminal
        self._began = time.monotonic()
        self._seen, self._looked = View(0), float("-inf")
        self._lock = threading.Lock()
        self._ends = threading.Event()
        self._block: Block | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if self.is_terminal:
            self._block = Block(
                get_renderable=self._draw,
                console=self.console,
                refresh_per_second=_FRAMES_PER_S,
                transient=True,
                vertical_overflow="crop",
            )
            self._block.start()
        else:
            self._thread = threading.Thread(target=self._say_from_time_to_time, daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.set()
        if self._block is not None:
            self._block.stop()
        if self._thread is not None:
            self._thread.join()

    def say(self, text: str) -> None:
        """Print a message above the display."""
        with self._lock:
            if self.is_terminal:
                self.console.print(Text(text))
            else:
                print(text, flush=True)

    def _view(self, age: float) -> View:
        """The last look, if it is not older than `age` seconds, else a new one."""
        if time.monotonic() - self._looked >= age:
            with contextlib.suppress(Exception):  # a folder that vanished; the display never ends a sweep
                self._seen = self._look()
            self._looked = time.monotonic()
        return self._seen

    def _draw(self) -> RenderableType:
        block = drawn(self._view(self._every), self.console.height - _LINES_AROUND)
        return Constrain(block, max(self.console.width - _ROOM_FOR_CTRL_C, 1))

    def _say_from_time_to_time(self) -> None:
        while not self._ends.wait(pause_before_line(time.monotonic() - self._began)):
            self.say(in_a_line(self._view(0.0)))


def drawn(view: View, rows: int) -> RenderableType:
    """The block: a line for the sweep, a bar, and a line for each running asset, `rows` at most."""
    head = Text(summary(view), style="bold", no_wrap=True, overflow="ellipsis")
    if view.total == 1 and view.at_work:
        return _table(view.at_work)
    shown = view.at_work[: max(rows, 1)]
    whole = Table.grid(expand=True)  # a bar alone ends no line
    whole.add_column(ratio=1)
    whole.add_row(ProgressBar(total=1.0, completed=view.fraction))
    parts: list[RenderableType] = [head, whole]
    parts += [_table(shown)] if shown else []
    if rest := len(view.at_work) - len(shown):
        parts.append(Text(f"... and {rest} more", style="dim"))
    return Group(*parts)


def _table(at_work: Sequence[AtWork]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0), expand=True)
    table.add_column(no_wrap=True, max_width=20, overflow="ellipsis")
    table.add_column(no_wrap=True, ratio=1, overflow="ellipsis")
    table.add_column(no_wrap=True)
    table.add_column(width=12)
    table.add_column(no_wrap=True, overflow="ellipsis")
    for asset in at_work:
        live = asset.live
        bar = ProgressBar(total=1.0, completed=live.fraction) if live is not None and live.total else ""
        names = (Text(one_line(asset.method)), Text(one_line(asset.prompt)))
        table.add_row(*names, Text(_phase(live)), bar, Text(_count(live)))
    return table


def _phase(live: Live | None) -> str:
    return "starting" if live is None else PHASES.get(live.phase, one_line(live.phase))


def _count(live: Live | None) -> str:
    """For example "120/240  2.4 steps/s  lora_loss 0.12"."""
    if live is None or not live.total:
        return ""
    parts = [f"{live.done}/{live.total}"]
    if live.rate is not None:
        parts.append(f"{live.rate:.3g} steps/s")
    if live.value is not None:
        parts.append(f"{live.value_name} {live.value:.3g}")
    return "  ".join(parts)


def summary(view: View) -> str:
    """For example "7/24 done, 1 failed, 2 running, about 4 min left"."""
    parts = [f"{view.done}/{view.total} done"]
    parts += [f"{view.failed} failed"] if view.failed else []
    parts += [f"{len(view.at_work)} running"] if view.at_work else []
    if view.left_s is not None and view.at_work:
        parts.append(f"about {duration(view.left_s)} left")
    return ", ".join(parts)


def in_a_line(view: View) -> str:
    """The same without a terminal."""
    named = [_named(asset) for asset in view.at_work[:_NAMED]]
    return "; ".join([f"{summary(view)} ({view.fraction:.0%} of the work)", *named])


def _named(asset: AtWork) -> str:
    words = (
        f"{one_line(asset.method)} {one_line(asset.prompt, 40)!r} {_phase(asset.live)} {_count(asset.live)}"
    )
    return " ".join(words.split())
