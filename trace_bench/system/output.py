"""Standard output whose reader may go away: `python -m trace_bench --help | head`."""

from __future__ import annotations

import io
import os
import sys


class _Forgiving(io.RawIOBase):
    """A file that takes what is written to it also after its reader has gone."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._is_open = True

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: bytes) -> int:  # type: ignore[override]
        if self._is_open:
            try:
                return os.write(self._descriptor, data)
            except BrokenPipeError:
                self._is_open = False
        return len(data)


def forgive_closed_output() -> None:
    """Ignore from now on that nobody reads standard output: work goes on, and no traceback is printed.

    Does nothing if standard output is not the process's own, such as in a notebook.
    """
    own = sys.stdout
    if (
        own is not sys.__stdout__
        or not isinstance(own, io.TextIOWrapper)
        or isinstance(_raw(own), _Forgiving)
    ):
        return
    own.flush()
    forgiving = io.TextIOWrapper(
        io.BufferedWriter(_Forgiving(own.fileno())),  # type: ignore[type-var]
        encoding=own.encoding,
        errors=own.errors,
        line_buffering=own.line_buffering,
        write_through=own.write_through,
    )
    _kept.append(own)  # its destructor would close the descriptor
    sys.stdout = sys.__stdout__ = forgiving  # type: ignore[misc]


_kept: list[io.TextIOWrapper] = []


def _raw(stream: io.TextIOWrapper) -> object:
    return getattr(stream.buffer, "raw", None)
