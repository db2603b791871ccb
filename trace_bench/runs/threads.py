"""How many threads a run computes with: chosen by prior and device, not left to the environment."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator

import torch

from trace_bench.priors.base import Prior

#: Items of a latent from which more than one thread pays. The tiny prior's has 16 x 16: two threads make its
#: runs slower, because each of some 350 operations a call waits for the other thread.
MANY_ITEMS = 32 * 32
_ON_GPU = 4  # the CPU only prepares steps and writes pictures
log = logging.getLogger(__name__)
_share: list[int] = []
_said: set[int] = set()  # once per process; the manifest of every run has the number


def share_cores(threads: int) -> None:
    """Limit this process to `threads`, because others of the same sweep use the other cores."""
    _share[:] = [threads]


@contextlib.contextmanager
def own_threads() -> Iterator[None]:
    """Put the caller's number of threads back after the block."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


def use_threads(prior: Prior) -> int:
    """Set and log the number of threads for a run with this prior; returns it.

    It is one for a small prior on the CPU, and else as many as this process may use. OMP_NUM_THREADS, if it
    is set, is an upper limit.
    """
    most = min([len(os.sched_getaffinity(0)), *_share, *_of_environment()])
    on_gpu = prior.device.type != "cpu"
    _, height, width = prior.latent_shape
    threads = max(1, min(most, _ON_GPU) if on_gpu else most if height * width >= MANY_ITEMS else 1)
    if threads != torch.get_num_threads():
        torch.set_num_threads(threads)
    if threads not in _said:
        _said.add(threads)
        log.info("Computing with %d thread%s", threads, "s" if threads > 1 else "")
    return threads


def _of_environment() -> list[int]:
    value = os.environ.get("OMP_NUM_THREADS", "")
    return [int(value)] if value.isdecimal() and int(value) > 0 else []
