"""The cache for everything that is computed or downloaded once."""

import hashlib
import http.client
import json
import os
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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


def remembered(kind: str, root: Path, version: int) -> dict[str, Any]:
    """What `remember` kept for an output root; nothing if it is not there, damaged or of another version."""
    try:
        content = json.loads(_of_root(kind, root).read_bytes())
        return dict(content["entries"]) if content["version"] == version else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # only a cache


def remember(kind: str, root: Path, version: int, entries: Mapping[str, Any]) -> None:
    """Keep what was parsed under an output root, by run folder."""
    keep(_of_root(kind, root), json.dumps({"version": version, "entries": entries}))


def _of_root(kind: str, root: Path) -> Path:
    return cache_dir() / kind / f"{hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]}.json"


def fetch(url: str, sha256: str | None, path: Path) -> None:
    """Download `url` to `path`; the URL comes from our own YAML.

    Raises:
        OSError: the download failed or was cut off; includes URLError and TimeoutError.
        ValueError: there is no SHA-256, or its content has a different one; nothing is written.
    """
    if not sha256:
        raise ValueError("a download needs its sha256, and none is given")
    try:
        with urllib.request.urlopen(url, timeout=30) as response:
            data = response.read()
    except http.client.HTTPException as error:  # IncompleteRead and others are no OSError
        raise OSError(f"the download broke off: {type(error).__name__}") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ValueError("sha256 differs")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, data)
