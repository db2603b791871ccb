"""The fork server of a sweep: it imports once what the runs need, and workers start from it in milliseconds.

The command itself loads no torch and stays below 100 MB; what only the imported classes can tell is checked
in a process from the server.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import forkserver
from typing import TYPE_CHECKING, Any, ParamSpec

from trace_bench.runs.identity import RunSpec
from trace_bench.settings.composing import PARTS
from trace_bench.system.errors import TraceBenchError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

P = ParamSpec("P")
#: Libraries that would otherwise start a thread per core in every worker.
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
_running: list[bool] = []  # one entry for each block of `fork_server` around the code


@contextlib.contextmanager
def fork_server(runs: Iterable[RunSpec], workers: int) -> Iterator[None]:
    """Start a process that imports the parts of these runs; it ends with the block, after its workers.

    Inside another such block, that block's server serves. Classes of the user's own are left to the workers.
    """
    if not _running:
        _start(runs, max(1, (os.cpu_count() or 1) // max(workers, 1)))
    _running.append(True)
    try:
        yield
    finally:
        _running.pop()
        if not _running:
            forkserver._forkserver._stop()  # type: ignore[attr-defined]  # there is no public name for it


def _start(runs: Iterable[RunSpec], threads: int) -> None:
    targets = {str(getattr(run.job, part).get("_target_")) for run in runs for part in PARTS}
    modules = {target.rpartition(".")[0] for target in targets if target.startswith("trace_bench.")}
    forkserver.set_forkserver_preload(["trace_bench.runs.run", "trace_bench.sweeps.local", *sorted(modules)])
    added = [name for name in _THREADS if name not in os.environ]
    os.environ.update(dict.fromkeys(added, str(threads)))
    try:
        with _ignoring_ctrl_c():  # the whole group of processes gets it; the command decides what happens
            forkserver.ensure_running()
    finally:
        for name in added:
            del os.environ[name]


@contextlib.contextmanager
def _ignoring_ctrl_c() -> Iterator[None]:
    """A process started in this block ignores SIGINT."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def start(target: Callable[..., None], *args: Any) -> tuple[BaseProcess, Connection]:
    """A process from the fork server that calls target(line, *args), and this end of the line to it."""
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs, *args))
    process.start()
    theirs.close()
    return process, ours


def apart(check: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
    """Call a check that imports heavy packages: in a process from the fork server, if there is one.

    Raises:
        TraceBenchError: as the check.
    """
    if not _running or "torch" in sys.modules:
        check(*args, **kwargs)
        return
    process, line = start(_answer, check, args, kwargs)
    try:
        refused = line.recv()
    except EOFError:
        process.join()
        raise TraceBenchError(
            f"The check of the runs ended with exit code {process.exitcode}; see what it printed above."
        ) from None
    finally:
        line.close()
        process.terminate()
        process.join()
    if refused is not None:
        raise TraceBenchError(refused)


def _answer(line: Connection, check: Callable[..., None], args: Any, kwargs: Any) -> None:
    """Send what the check refuses, None if nothing."""
    try:
        check(*args, **kwargs)
    except TraceBenchError as error:
        line.send(str(error))
    else:
        line.send(None)
