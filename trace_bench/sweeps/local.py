"""Makes runs on this machine: one after the other in this process, or in parallel in worker processes.

A worker makes one run at a time, or several in lanes, with the prior that it loaded once. A signal to a
worker, or its death, costs only its own runs: another worker takes its place, and they resume from their
checkpoints the next time.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trace_bench.runs.identity import RunSpec
from trace_bench.settings.config import Job
from trace_bench.sweeps.interrupt import StopRequest, listening
from trace_bench.sweeps.resolvers import uses_gpu
from trace_bench.sweeps.slurm.worker import make_assets
from trace_bench.sweeps.warm import fork_server, start
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.output import forgive_closed_output
from trace_bench.system.text import printable

if TYPE_CHECKING:  # imports torch
    from trace_bench.runs.run import Outcome

_POLL_S = 0.5  # how often the parent looks for a signal
#: 14 runs of two rows, with and without the prompt, nearly fill two of the largest batches of `priors.lanes`;
#: those of them that train an adapter, one row each, fill one.
_LANES_ON_CPU = 14
_END_S = 5.0  # time for a worker to end after its last run


@dataclass(frozen=True)
class Ended:
    """How a run ended: `Outcome` without its module, which imports torch."""

    folder: Path
    status: str  # of the outcome; lost: its worker was killed
    message: str
    leaves: bool = False  # its worker got a signal and makes no further run


def lanes_of(job: Job, launcher: Mapping[str, Any]) -> int:
    """Runs side by side in a process: as asked for, or by launcher and device."""
    if job.lanes is not None:
        return job.lanes
    is_local = bool(launcher) and not str(launcher.get("_target_", "")).endswith("BasicLauncher")
    return _LANES_ON_CPU if is_local and not uses_gpu(job.device) else 1


def workers_of(launcher: Mapping[str, Any]) -> int:
    """Number of worker processes of a launcher: hydra/launcher=basic has none, local and joblib `n_jobs`.

    Raises:
        TraceBenchError: it is another launcher, or n_jobs is not a number of workers.
    """
    kind = str(launcher.get("_target_", "")).rpartition(".")[2]
    if kind == "BasicLauncher":
        return 0
    if kind != "JoblibLauncher":
        raise TraceBenchError(
            f"trace_bench does not support the launcher {launcher.get('_target_')}; use hydra/launcher=local "
            "or one of the Slurm launchers."
        )
    n_jobs = launcher.get("n_jobs", -1)
    if not isinstance(n_jobs, int) or isinstance(n_jobs, bool) or n_jobs == 0:
        raise TraceBenchError(
            f"hydra.launcher.n_jobs must be a number of workers, or -1 for one per core, but is {n_jobs!r}."
        )
    from joblib import effective_n_jobs

    return int(effective_n_jobs(n_jobs))


def say_problems(say: Callable[[str], None]) -> None:
    """Say warnings and errors, as they are; the rest is in each run's log.txt, and the display shows it."""
    handler = _Sayer(logging.WARNING)
    handler.say = say
    logging.basicConfig(handlers=[handler], format="%(message)s", level=logging.INFO, force=True)


class _Sayer(logging.Handler):
    say: Callable[[str], None]

    def emit(self, record: logging.LogRecord) -> None:
        self.say(self.format(record))


def make_in_turn(
    runs: Iterable[RunSpec],
    stop: StopRequest,
    ended: Callable[[Ended], None],
    started: Callable[[Path], None] = lambda folder: None,
    say: Callable[[str], None] = print,
    lanes: int = 1,
) -> None:
    """Make runs in this process, `lanes` at a time; each outcome goes to `ended` as soon as it is there."""
    say_problems(say)

    def announced() -> Iterator[RunSpec]:
        for run in runs:
            started(run.folder)
            yield run

    for outcome in make_assets(announced(), stop, lanes):
        ended(Ended(outcome.folder, outcome.status, outcome.message))


def make_in_workers(
    runs: Sequence[RunSpec],
    workers: int,
    stop: StopRequest,
    ended: Callable[[Ended], None],
    started: Callable[[Path], None] = lambda folder: None,
    say: Callable[[str], None] = print,
    lanes: int = 1,
) -> None:
    """Make runs in `workers` processes, `lanes` at a time in each.

    A run whose worker was killed ends as "lost".

    After a signal, or a failure with on_error=stop, no further run starts, and the others stop after their
    current step, with a checkpoint. KeyboardInterrupt ends the workers at once.
    """
    with fork_server(runs, workers):
        _make_all(runs, workers, stop, ended, started, say, lanes)


def _make_all(
    runs: Sequence[RunSpec],
    workers: int,
    stop: StopRequest,
    ended: Callable[[Ended], None],
    started: Callable[[Path], None],
    say: Callable[[str], None],
    lanes: int,
) -> None:
    shares = _Shares(runs, min(workers, len(runs)))
    threads = max(1, (os.cpu_count() or 1) // workers)
    staff: dict[int, _Worker] = {}
    try:
        while shares.left or any(worker.runs for worker in staff.values()):
            if stop():
                _end_early(shares, staff)
            for i in range(len(shares)):
                if i in staff and not staff[i].runs and not staff[i].stays:
                    staff.pop(i).end()
                held = len(staff[i].runs) if i in staff else 0
                free = lanes - held if i not in staff or staff[i].stays else 0
                for run in shares.taken(i, free, is_idle=not held):
                    if i not in staff:
                        staff[i] = _Worker(threads, lanes, say)
                    started(run.folder)
                    staff[i].start(run)
            for i in _ready(staff):
                outcome = staff[i].finished()
                if outcome is None:
                    lost = staff.pop(i)
                    for folder in lost.runs:
                        ended(Ended(folder, "lost", lost.why_it_ended()))
                    continue
                run = staff[i].runs.pop(outcome.folder)
                staff[i].leaves |= outcome.leaves
                ended(outcome)
                if outcome.status == "failed" and run.job.on_error == "stop":
                    _end_early(shares, staff)
    finally:
        for worker in staff.values():
            worker.end()


class _Shares:
    """Which worker makes which runs.

    They are dealt in turns before the first begins. Runs in lanes go on in step and end nearly together;
    without shares, the worker that is free a moment earlier would take all runs that are left. A worker
    whose runs and share have ended takes half of the longest share.
    """

    def __init__(self, runs: Sequence[RunSpec], workers: int) -> None:
        self._of = [list(runs[i::workers]) for i in range(workers)]

    def __len__(self) -> int:
        """The number of workers."""
        return len(self._of)

    @property
    def left(self) -> int:
        """Runs that have not begun."""
        return sum(map(len, self._of))

    def taken(self, i: int, most: int, is_idle: bool) -> list[RunSpec]:
        """The next runs of a worker; they leave its share."""
        if is_idle and not self._of[i]:
            longest = max(self._of, key=len)
            self._of[i], longest[:] = longest[::2], longest[1::2]
        now, self._of[i][:most] = self._of[i][:most], []
        return now

    def clear(self) -> None:
        """No further run begins."""
        self._of = [[] for _ in self._of]


def _end_early(shares: _Shares, staff: Mapping[int, _Worker]) -> None:
    """No further run begins, and the others stop."""
    shares.clear()
    for worker in staff.values():
        worker.ask_to_stop()


def _ready(staff: Mapping[int, _Worker]) -> list[int]:
    """The workers that have something to say, or have ended; waits for one, but not for long."""
    busy = {worker.line: i for i, worker in staff.items() if worker.runs}
    return [busy[line] for line in wait(list(busy), _POLL_S)] if busy else []  # type: ignore[index]


class _Worker:
    """A process that makes runs, and the line to it; what it prints is said by this process."""

    def __init__(self, threads: int, lanes: int, say: Callable[[str], None]) -> None:
        self._printed, printing = Pipe(duplex=False)
        self.process, self.line = start(_work, printing, threads, lanes)
        printing.close()
        self.runs: dict[Path, RunSpec] = {}
        self.leaves = False  # it makes no further run, though nobody here asked it to stop
        self._asked = False
        self._relay = threading.Thread(target=_relay, args=(self._printed, say), daemon=True)
        self._relay.start()

    @property
    def stays(self) -> bool:
        """Whether it can make another run."""
        return not self.leaves and self.process.is_alive()

    def start(self, run: RunSpec) -> None:
        """Send the next run."""
        self.runs[run.folder] = run
        with contextlib.suppress(OSError):  # killed just now; `finished` notices
            self.line.send(RunSpec(run.job, run.prompt, run.prompt_set.only([run.prompt])))

    def ask_to_stop(self) -> None:
        """Tell a worker, once, to stop its runs after the current step."""
        if self.runs and not self._asked:
            self._asked = True
            with contextlib.suppress(OSError):
                self.line.send(None)

    def finished(self) -> Ended | None:
        """The outcome of a run that has ended; None if the process ended first."""
        try:
            return self.line.recv()
        except (EOFError, OSError):
            return None

    def why_it_ended(self) -> str:
        """Why the process ended, in one sentence."""
        self.process.join(_END_S)
        code = self.process.exitcode
        if code is not None and code < 0:
            hint = ", perhaps because memory ran out" if -code == signal.SIGKILL else ""
            how = f"was killed by {signal.Signals(-code).name}{hint}"
        else:
            how = f"ended with exit code {code}"
        return f"its worker process {self.process.pid} {how}; the same command resumes the run."

    def end(self) -> None:
        """Let the process end; if it is still at work, end it."""
        self.line.close()
        if not self.runs:
            self.process.join(_END_S)
        for stop in (self.process.terminate, self.process.kill):
            if self.process.is_alive():
                stop()
                self.process.join(_END_S)
        self._relay.join(_END_S)  # what it printed last


def _relay(printed: Connection, say: Callable[[str], None]) -> None:
    """Say every line that a worker prints, until it ends."""
    rest = b""
    while chunk := os.read(printed.fileno(), 2**16):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            _say_line(line, say)
    _say_line(rest, say)
    printed.close()


def _say_line(line: bytes, say: Callable[[str], None]) -> None:
    text = line.rstrip(b"\r").rpartition(b"\r")[2].decode(errors="replace")  # a bar draws over itself
    if text.strip():
        say(printable(text))


def _work(line: Connection, printing: Connection, threads: int, lanes: int) -> None:
    """The worker: make the runs that come down the line, until it closes."""
    for descriptor in (1, 2):
        os.dup2(printing.fileno(), descriptor)
    printing.close()
    forgive_closed_output()
    say_problems(partial(print, flush=True))
    from trace_bench.runs.threads import share_cores

    share_cores(threads)
    try:
        with (
            listening(says=False) as stop,
            contextlib.suppress(EOFError, OSError),
        ):  # the parent closed the line
            (_in_lanes if lanes > 1 else _in_turn)(line, stop, lanes)
    except KeyboardInterrupt:  # a second Ctrl-C
        raise SystemExit(128 + signal.SIGINT) from None


def _in_turn(line: Connection, stop: StopRequest, lanes: int) -> None:
    """Make the runs one at a time."""
    from trace_bench.runs.run import make_asset

    while (run := line.recv()) is not None:
        # A message before the end of a run says stop; so does a parent that is gone.
        outcome = make_asset(run, lambda: stop() or line.poll())
        line.send(Ended(outcome.folder, outcome.status, outcome.message, leaves=stop()))


def _in_lanes(line: Connection, stop: StopRequest, lanes: int) -> None:
    """Make the runs side by side; the parent sends as many as there are lanes."""
    from trace_bench.runs.lanes import Lanes

    side, is_asked = Lanes(lanes), False

    def should_stop() -> bool:
        return is_asked or stop()

    def ended(run: RunSpec, outcome: Outcome) -> None:
        with contextlib.suppress(OSError):
            line.send(Ended(outcome.folder, outcome.status, outcome.message, leaves=stop()))

    try:
        while side or not is_asked:
            if not is_asked and (line.poll() or not side):
                run = _received(line)
                if run is None:
                    is_asked = True
                else:
                    side.start(run, should_stop, ended)
            else:
                side.go_on()
    except KeyboardInterrupt:
        side.end()
        raise


def _received(line: Connection) -> RunSpec | None:
    """The next run; None: stop, or the parent is gone."""
    try:
        run: RunSpec | None = line.recv()
    except (EOFError, OSError):
        return None
    return run
