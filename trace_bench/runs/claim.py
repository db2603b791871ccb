"""Locks a run folder, so that two processes never work on the same run.

The lock is the kernel's (flock) and is released when its process ends, however it ends. Over NFS, Linux turns
it into a lock on the server, so it works between machines. The claim file only names the holder.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from trace_bench.run_folder.states import CLAIM, holders
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.typed import FormatError, parse

_HELD_BY_ANOTHER = (errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK)


class BusyError(TraceBenchError):
    """Another process is working on the run."""


@contextlib.contextmanager
def claim(folder: Path) -> Iterator[None]:
    """Hold the run folder during the block; BusyError, naming the holder, if another process has it."""
    path = folder / CLAIM
    descriptor = _acquire(path)
    try:
        holder = json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, holder.encode(), 0)
        yield
    finally:
        # Removed while locked: a process that has already opened the old file notices and retries. If the
        # folder was removed and made again, the path is another process's claim, which stays.
        try:
            if _is_file(descriptor, path):
                path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)


def _acquire(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_file(descriptor, path):
                return descriptor
        except OSError as error:
            holder = os.pread(descriptor, 4096, 0)
            os.close(descriptor)
            if error.errno in _HELD_BY_ANOTHER:
                raise BusyError(f"{_name(holder)} is working on {path.parent}.") from None
            raise TraceBenchError(
                f"The file system of {path.parent} does not support file locks ({error.strerror}); "
                "set output_root to a folder on one that does."
            ) from error
        os.close(descriptor)


def _is_file(descriptor: int, path: Path) -> bool:
    """Whether the path still refers to the opened file, and not to nothing or a new file."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _name(holder: bytes) -> str:
    try:
        who = parse(holders(), holder)
        return f"pid {who.pid} on host {who.host}"
    except FormatError:  # read after the holder locked but before it wrote its name
        return "another process"
