"""How kernels are compiled and spread over threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numba
import torch

F = TypeVar("F", bound=Callable[..., object])


def kernel(function: F) -> F:
    """Compile with numba, free of the GIL; kept on disk between processes where a folder can be written."""
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(function, cache=True, **options)
    except RuntimeError:  # neither the package's folder nor the user's cache folder can be written
        return numba.njit(function, **options)


def run_jobs(n_jobs: int, call: Callable[[int, int], None]) -> None:
    """Run call(begin, end) over all jobs on `torch.get_num_threads()` threads.

    Jobs must not share what they write. Threads live for one call: nothing is left behind that a fork could
    find dead.
    """
    n_threads = min(torch.get_num_threads(), n_jobs)
    if n_threads <= 1:
        call(0, n_jobs)
        return
    with ThreadPoolExecutor(n_threads) as pool:
        for done in [pool.submit(call, job, job + 1) for job in range(n_jobs)]:
            done.result()
