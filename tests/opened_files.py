"""Which files Python opens: a test of speed that does not depend on the machine."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

_watching: list[tuple[str, Counter[str]]] = []


@contextmanager
def opened(root: Path) -> Iterator[Counter[str]]:
    """How often each file under `root` is opened, by its path relative to `root`, in all threads."""
    _listen()
    found: Counter[str] = Counter()
    _watching.append((f"{root}{os.sep}", found))
    try:
        yield found
    finally:
        _watching.pop()


@cache
def _listen() -> None:
    sys.addaudithook(_note)  # stays until the process ends


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "open" or not _watching:
        return
    prefix, found = _watching[-1]
    path = str(arguments[0])
    if path.startswith(prefix):
        found[path[len(prefix) :]] += 1
