"""Where what is made or fetched once is kept."""

import hashlib
import os
import urllib.request
from pathlib import Path

from trace_bench.system.files import write_atomic


def cache_dir() -> Path:
    """`$TRACE_BENCH_CACHE`, else `trace_bench` under `$XDG_CACHE_HOME` or `~/.cache`."""
    if "TRACE_BENCH_CACHE" in os.environ:
        return Path(os.environ["TRACE_BENCH_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "trace_bench"


def keep(path: Path, data: str | bytes) -> None:
    """Write a file of the cache; one that cannot be written is no error."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data)
    except OSError:
        return


def fetch(url: str, sha256: str | None, path: Path) -> None:
    """Download `url`, an address from our own YAML, to `path`.

    Raises:
        OSError: it could not be had; URLError and TimeoutError are among these.
        ValueError: its content has another SHA-256; nothing is written.
    """
    with urllib.request.urlopen(url, timeout=30) as response:
        data = response.read()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ValueError("sha256 differs")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, data)
