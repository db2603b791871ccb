"""What torch.compile made, kept in the cache for other processes: the jobs of a sweep compile once.

torch's own caches (`TORCHINDUCTOR_CACHE_DIR`, `TRITON_CACHE_DIR`) belong on a node's own disk. Here their
content goes as one file into `$TRACE_BENCH_CACHE/compiled`, which all nodes share. The first job compiles
while the others wait, and they unpack the file into their caches. A failure only costs time: torch compiles.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from trace_bench.system.cache import entry_path, keep, kept

WAIT_S = 900.0  # a job that waited this long for another compiles by itself
_compiling: set[tuple[Path, int]] = set()  # by thread: a lane must not wait for another of its thread
log = logging.getLogger(__name__)


@contextlib.contextmanager
def shared(parts: Sequence[object], device: torch.device, wait_s: float = WAIT_S) -> Iterator[None]:
    """Around the first calls of compiled networks.

    parts: what decides which graphs are compiled, such as prior, method and sizes; the versions of torch and
        CUDA and the GPU's name are added.
    """
    gpu = [torch.cuda.get_device_name(device), torch.version.cuda] if device.type == "cuda" else []
    path = entry_path("compiled", json.dumps([*map(str, parts), torch.__version__, *gpu]))
    own = path, threading.get_ident()
    if own in _compiling or _unpack(path):
        yield
        return
    with _turn(path, wait_s):
        found = _unpack(path)
        _compiling.add(own)
        try:
            yield
        finally:
            _compiling.discard(own)
        if not found:
            _pack(path)


def _unpack(path: Path) -> bool:
    """Whether there is an entry that torch can use; its content is now in torch's caches."""
    data = kept(path, bytes)
    if data is None:
        return False
    try:
        torch.compiler.load_cache_artifacts(data)
    except Exception as error:
        log.debug("The compiled code in %s cannot be used", path, exc_info=error)
        return False
    return True


def _pack(path: Path) -> None:
    try:
        made = torch.compiler.save_cache_artifacts()
    except Exception as error:
        log.debug("The compiled code cannot be kept", exc_info=error)
        return
    if made is not None:
        keep(path, made[0])


@contextlib.contextmanager
def _turn(path: Path, wait_s: float) -> Iterator[None]:
    """Hold the entry's lock, which ends with the process; go on without it after `wait_s` or an error."""
    descriptor = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        deadline = time.monotonic() + wait_s
        while not _taken(descriptor) and time.monotonic() < deadline:
            time.sleep(min(1.0, wait_s / 10))
    except OSError as error:
        log.debug("No lock for %s", path, exc_info=error)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
