"""Where what is made or fetched once is kept."""

import os
from pathlib import Path


def cache_dir() -> Path:
    """`$TRACE_BENCH_CACHE`, else `trace_bench` under `$XDG_CACHE_HOME` or `~/.cache`."""
    if "TRACE_BENCH_CACHE" in os.environ:
        return Path(os.environ["TRACE_BENCH_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "trace_bench"
