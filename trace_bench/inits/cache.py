"""Generated inits, cached on disk: runs of a sweep that need the same init share it."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trace_bench.system.cache import entry_path, keep, kept

log = logging.getLogger(__name__)
_MADE_IN = "_seconds"


def cached(
    name: str, key: Mapping[str, Any], make: Callable[[], dict[str, np.ndarray]]
) -> tuple[dict[str, np.ndarray], float]:
    """Arrays from `make`, or from the cache if the same `key` was requested before.

    Two concurrent processes compute them only once. A cache that is not writable is not an error.

    Returns: the arrays, and the seconds it took to compute them earlier, less those that this call waited for
        that; 0 if computed now. So the time of a call and these seconds are what the init costs.
    """
    path, asked = _path(name, key), time.monotonic()
    with _one_at_a_time(path.with_suffix(".lock")):
        waited = time.monotonic() - asked
        found = kept(path, _arrays)
        if found is not None:
            seconds = float(found.pop(_MADE_IN))
            log.info("Init from the cache (it took %.1f s to generate): %s", seconds, path)
            return found, max(0.0, seconds - waited)
        began = time.monotonic()
        made = make()
        buffer = io.BytesIO()
        np.savez(buffer, **made, **{_MADE_IN: np.float64(time.monotonic() - began)})  # type: ignore[arg-type]
        keep(path, buffer.getvalue())
    return made, 0.0


def is_cached(name: str, key: Mapping[str, Any]) -> bool:
    """Whether the cache has the arrays of `key`, undamaged."""
    return kept(_path(name, key), _arrays) is not None


def _path(name: str, key: Mapping[str, Any]) -> Path:
    text = json.dumps(key, sort_keys=True, ensure_ascii=False)
    return entry_path("inits", f"{name}:{text}")


@contextlib.contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    """Wait for the lock; without a lock if the folder is not writable."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(path.open("w"))
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _arrays(data: bytes) -> dict[str, np.ndarray]:
    """The arrays of an entry; KeyError if it does not say how long they took."""
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        found = {name: arrays[name] for name in arrays.files}
    return {**found, _MADE_IN: found[_MADE_IN]}
