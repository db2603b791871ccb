"""Append-only files of events, one JSON object per line, that survive a kill in the middle of a line."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from trace_bench.system.errors import UNREADABLE, TraceBenchError

log = logging.getLogger(__name__)

Event = dict[str, Any]


def read(path: Path, is_right: Callable[[Event], bool], lost: str) -> Iterator[Event]:
    """The stored events. An unfinished line (killed process) or a damaged one is skipped with a warning.

    Args:
        is_right: whether an event has what it must have; a KeyError, TypeError or AttributeError means no.
        lost: what a skipped line means, for the warning.
    """
    if not path.exists():
        return
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise TraceBenchError(f"{path} cannot be read ({error.strerror}).") from error
    broken = []
    for number, line in enumerate(lines, start=1):
        if event := _event(line, is_right):
            yield event
        elif line:
            broken.append(number)
    if broken:
        which = f"{broken[0]} is" if len(broken) == 1 else f"{broken[0]} and {len(broken) - 1} more are"
        log.warning(
            "%s: line %s unfinished or damaged (the program was killed?); %s.", path, which, lost
        )  # fmt: skip


def _event(line: bytes, is_right: Callable[[Event], bool]) -> Event | None:
    try:
        event = json.loads(line.decode("utf-8", "replace"))
        return event if isinstance(event, dict) and is_right(event) else None
    except (*UNREADABLE, KeyError, TypeError, AttributeError):
        return None


def append(path: Path, event: Event, sync: bool = True) -> None:
    """Append one event; with `sync` it is on the disk when this returns.

    Raises:
        TraceBenchError: it cannot be written; the file is as it was before.
    """
    try:
        with path.open("ab", buffering=0) as file:
            before = file.tell()
            try:
                _write_all(file, (json.dumps(event) + "\n").encode())
                if sync:
                    os.fsync(file.fileno())
            except OSError:
                file.truncate(before)
                raise
    except OSError as error:
        raise TraceBenchError(
            f"{path} cannot be written ({error.strerror}): make room for it, then run the command again."
        ) from error


def _write_all(file: Any, data: bytes) -> None:
    """Write to an unbuffered file, which may take only a part at once."""
    while data:
        data = data[file.write(data) :]


def end_line(path: Path) -> None:
    """End an unfinished line (killed process), so that the next event starts on a new line."""
    with path.open("ab+") as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
