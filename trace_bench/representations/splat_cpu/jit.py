"""Compiles kernels and runs them on threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numba
import torch

F = TypeVar("F", bound=Callable[..., object])


def kernel(function: F) -> F:
    """Compile with numba, without the GIL; cached on disk if a folder is writable."""
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(function, cache=True, **options)
    except RuntimeError:  # neither the package's folder nor the user's cache folder is writable
        return numba.njit(function, **options)


def run_jobs(n_jobs: int, call: Callable[[int, int], None]) -> None:
    """Run call(begin, end) over all jobs on `torch.get_num_threads()` threads.

    Jobs must not write to shared data. Threads live for one call only, so that a later fork inherits no
    dead threads.
    """
    n_threads = min(torch.get_num_threads(), n_jobs)
    if n_threads <= 1:
        call(0, n_jobs)
        return
    with ThreadPoolExecutor(n_threads) as pool:
        for done in [pool.submit(call, job, job + 1) for job in range(n_jobs)]:
            done.result()
