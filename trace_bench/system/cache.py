"""The cache for everything that is computed or downloaded once.

Every entry carries the checksum of its content. One that is empty, cut, changed or of another format counts
as missing and is made again, so no file of the cache can break a run or change an asset.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from trace_bench.system.files import write_atomic

T = TypeVar("T")
_MAGIC = b"TBCE1\n"
_DIGEST = 32


def cache_dir() -> Path:
    """`$TRACE_BENCH_CACHE`, else `trace_bench` under `$XDG_CACHE_HOME` or `~/.cache`."""
    if "TRACE_BENCH_CACHE" in os.environ:
        return Path(os.environ["TRACE_BENCH_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "trace_bench"


def entry_path(kind: str, key: str) -> Path:
    """The file of an entry; `key` holds everything that the content depends on."""
    return cache_dir() / kind / hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def keep(path: Path, data: bytes) -> None:
    """Write an entry. Best effort: ignore a failed write."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, _MAGIC + _digest(path, data) + data)
    except OSError:
        return


def kept(path: Path, load: Callable[[bytes], T]) -> T | None:
    """What `load` makes of an entry's content; None if it is missing, damaged or of another format."""
    try:
        data = path.read_bytes()
        digest, content = data[len(_MAGIC) : len(_MAGIC) + _DIGEST], data[len(_MAGIC) + _DIGEST :]
        if not data.startswith(_MAGIC) or digest != _digest(path, content):
            return None
        return load(content)
    except Exception:  # noqa: BLE001  whatever is wrong with it, it is only a cache
        return None


def _digest(path: Path, content: bytes) -> bytes:
    """Of the content under its name, so that an entry copied over another one is noticed."""
    return hashlib.sha256(path.name.encode() + b"\0" + content).digest()


def remembered(kind: str, root: Path, version: int) -> dict[str, Any]:
    """What `remember` kept for an output root; nothing if it is not there, damaged or of another version."""

    def entries(data: bytes) -> dict[str, Any]:
        content = json.loads(data)
        return dict(content["entries"]) if content["version"] == version else {}

    return kept(_of_root(kind, root), entries) or {}


def remember(kind: str, root: Path, version: int, entries: Mapping[str, Any]) -> None:
    """Keep what was parsed under an output root, by run folder."""
    keep(_of_root(kind, root), json.dumps({"version": version, "entries": entries}).encode())


def _of_root(kind: str, root: Path) -> Path:
    return entry_path(kind, str(root.resolve()))


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
