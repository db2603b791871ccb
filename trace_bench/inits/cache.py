"""Generated inits, cached on disk: runs of a sweep that need the same init share it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import logging
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trace_bench.system.cache import cache_dir, keep

log = logging.getLogger(__name__)
_MADE_IN = "_seconds"


def cached(
    name: str, key: Mapping[str, Any], make: Callable[[], dict[str, np.ndarray]]
) -> tuple[dict[str, np.ndarray], float]:
    """Arrays from `make`, or from the cache if the same `key` was requested before.

    Two concurrent processes compute them only once. A cache that is not writable is not an error.

    Returns: the arrays, and the seconds it took to compute them earlier; 0 if computed now.
    """
    path = _path(name, key)
    with _one_at_a_time(path.with_suffix(".lock")):
        found = _read(path)
        if found is not None:
            seconds = float(found.pop(_MADE_IN))
            log.info("Init from the cache (it took %.1f s to generate): %s", seconds, path)
            return found, seconds
        began = time.monotonic()
        made = make()
        buffer = io.BytesIO()
        np.savez(buffer, **made, **{_MADE_IN: np.float64(time.monotonic() - began)})  # type: ignore[arg-type]
        keep(path, buffer.getvalue())
    return made, 0.0


def is_cached(name: str, key: Mapping[str, Any]) -> bool:
    """Whether the cache has the arrays of `key`."""
    return _path(name, key).is_file()


def _path(name: str, key: Mapping[str, Any]) -> Path:
    text = json.dumps(key, sort_keys=True, ensure_ascii=False)
    return cache_dir() / "inits" / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:32]}.npz"


@contextlib.contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    """Wait for the lock; without a lock if the folder is not writable."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(path.open("w"))
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _read(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays of a cache file; None if it is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return found if _MADE_IN in found else None
