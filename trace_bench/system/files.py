"""Atomic file writes, and files that survive a power failure."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

_READERS, _AT_ONCE = 16, 64  # threads, and items that one takes at a time
_TRIED = 8  # items that this thread reads itself, to see whether it waits for them
_WAITS = 0.75  # share of that time, twice in a row: once may be another program that has the core
T = TypeVar("T")
R = TypeVar("R")
MOST_BYTES = 256 * 2**20  # of a file that is parsed as a whole; ours have a few megabytes at most


def content_of(path: Path) -> bytes:
    """The content of a file to parse.

    Raises:
        OSError: it cannot be read, is no regular file (a pipe would wait for ever), or would fill the memory.
    """
    # Not with Path.open, which makes more system calls. At each, threads may take turns, and that costs more
    # than the call.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        if found.st_size > MOST_BYTES:
            raise OSError(errno.EFBIG, f"it has more than {MOST_BYTES // 2**20} MB", str(path))
        content = b""
        while len(content) < found.st_size and (more := os.read(descriptor, found.st_size - len(content))):
            content += more
        return content
    finally:
        os.close(descriptor)


def concurrently(read: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """read(item) for each item, in their order; several at a time where the disk answers slowly, such as a
    cluster's. Elsewhere threads only hinder each other. `read` may be called from other threads.

    Raises:
        Exception: what `read` raises; the results of a few items just before may be lost.
    """
    items = list(items)
    at = waits = 0
    with ThreadPoolExecutor(_READERS) as pool:
        while at < len(items):
            began, worked = time.perf_counter(), time.thread_time()
            found = [read(item) for item in items[at : at + _TRIED]]
            waited = 1.0 - (time.thread_time() - worked) / max(time.perf_counter() - began, 1e-9)
            yield from found
            at += _TRIED
            waits = waits + 1 if waited > _WAITS else 0
            if waits == 2:
                some = items[at : at + _READERS * _AT_ONCE]
                parts = [some[start : start + _AT_ONCE] for start in range(0, len(some), _AT_ONCE)]
                for found in pool.map(lambda part: [read(item) for item in part], parts):
                    yield from found
                at += len(some)
                waits = 1


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


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sync_file(path: Path) -> None:
    """Make a file's content survive a power failure."""
    _sync(path)


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power failure."""
    _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
