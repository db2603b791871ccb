"""Atomic file writes."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_atomic(path: Path, data: str | bytes) -> None:
    """Write a file atomically: a crash leaves either the old or the new file, never a part.

    Several processes, also of several machines, may write one file: the last complete one stays.

    Raises:
        OSError: it cannot be written; `filename` is `path`.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    try:
        with partial.open("wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        if isinstance(error, OSError):  # a full disk names no file, a folder without rights the partial one
            error.filename, error.filename2 = str(path), None
        raise
    sync_folder(path.parent)


def write_json(path: Path, data: Mapping[str, Any] | list[Any]) -> None:
    """`write_atomic` of indented JSON; refuses NaN, which JSON does not support."""
    write_atomic(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
