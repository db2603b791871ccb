"""The cache for everything that is computed or downloaded once."""

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
    """Write a file into the cache. Best effort: ignore a failed write."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data)
    except OSError:
        return


def fetch(url: str, sha256: str | None, path: Path) -> None:
    """Download `url` to `path`; the URL comes from our own YAML.

    Raises:
        OSError: the download failed; includes URLError and TimeoutError.
        ValueError: its content has a different SHA-256; nothing is written.
    """
    with urllib.request.urlopen(url, timeout=30) as response:
        data = response.read()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ValueError("sha256 differs")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, data)
