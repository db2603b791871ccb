"""Shared by the evaluation commands: the output root, the terminal and error handling."""

from __future__ import annotations

import errno
import functools
import sys
from collections.abc import Callable
from pathlib import Path

from omegaconf import DictConfig

from trace_bench.system.errors import TraceBenchError
from trace_bench.system.text import printable, tolerate_terminal

_NO_ROOM = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EIO, errno.EEXIST,
    errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG,
}  # fmt: skip


def command(run: Callable[[DictConfig], int]) -> Callable[[DictConfig], None]:
    """Turn a function that returns an exit code into a Hydra task; print user errors as one sentence."""

    @functools.wraps(run)
    def task(config: DictConfig) -> None:
        tolerate_terminal()
        if code := exit_code(run, config):
            sys.exit(code)

    return task


def exit_code(run: Callable[[DictConfig], int], config: DictConfig) -> int:
    """What `run` returns; 2 after a user's error or on a full or read-only disk, told in one sentence."""
    try:
        return run(config)
    except TraceBenchError as error:
        print(printable(str(error)), file=sys.stderr)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        where = error.filename or f"A file under {config.output_root}"
        print(
            f"{where} cannot be written ({error.strerror}): make room, or get the right to write there, "
            "then run the command again.",
            file=sys.stderr,
        )
    return 2


def output_root(config: DictConfig) -> Path:
    """The folder that holds runs/; it must exist."""
    root = Path(str(config.output_root)).expanduser()
    if not root.is_dir():
        raise TraceBenchError(
            f"The folder {root} does not exist: start runs with `python -m trace_bench` first, "
            "or point output_root=FOLDER to existing runs."
        )
    return root
