"""Python's garbage collector, kept away from imports and from reading many runs.

Importing torch, diffusers and transformers makes half a million objects that live as long as the process. The
collector looks at all of them again and again while they are made, a sixth of the time, and later in every
full collection. Reading thousands of runs also makes many objects and hardly any garbage; there the collector
takes a sixth of the time.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
from collections.abc import Iterator

_frozen: list[bool] = []


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Collect no garbage during the block."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def keep_for_good() -> None:
    """Never look again at the objects that are alive now. Only the first call of a process counts, so that
    no garbage gathers."""
    if not _frozen:
        _frozen.append(True)
        gc.freeze()
        atexit.register(gc.unfreeze)  # extension modules report objects that are left at the end
