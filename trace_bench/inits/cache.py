"""Generated starts, kept on disk: the runs of a sweep that ask for the same one share it."""

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
    """Arrays that `make` gives, from the cache where the same `key` was asked for before.

    Two processes that ask at once make them once. A cache that cannot be written is no error.

    Returns: the arrays, and the seconds that making them took, 0 where that was now.
    """
    text = json.dumps(key, sort_keys=True, ensure_ascii=False)
    path = cache_dir() / "starts" / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:32]}.npz"
    with _one_at_a_time(path.with_suffix(".lock")):
        found = _read(path)
        if found is not None:
            seconds = float(found.pop(_MADE_IN))
            log.info("Start from the cache (%.1f s when it was made): %s", seconds, path)
            return found, seconds
        began = time.monotonic()
        made = make()
        buffer = io.BytesIO()
        np.savez(buffer, **made, **{_MADE_IN: np.float64(time.monotonic() - began)})  # type: ignore[arg-type]
        keep(path, buffer.getvalue())
    return made, 0.0


@contextlib.contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    """Wait for whoever holds the lock; where the folder cannot be written there is none."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(path.open("w"))
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _read(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays of a cache file; None where there is none or it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return found if _MADE_IN in found else None
