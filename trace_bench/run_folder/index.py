"""The run index: every run under an output root, in one order, each manifest parsed once.

Parsed manifests are remembered by size and time of change in the user's cache, never beside the runs, which
may belong to someone else. No torch, no Hydra: the status of a sweep reads the index every few seconds.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from trace_bench.run_folder.manifest import (
    MANIFEST,
    Manifest,
    ManifestError,
    NewerManifestError,
    read_manifest,
)
from trace_bench.run_folder.reading import Run, natural
from trace_bench.system.cache import remember, remembered
from trace_bench.system.files import concurrently
from trace_bench.system.typed import FormatError, Integer, read_typed
from trace_bench.system.uncollected import uncollected

ERROR = "error.json"
#: Folders that a run could not use and left: `<folder>.unreadable-<n>`.
SET_ASIDE = re.compile(r"\.unreadable-\d+$")
_CACHE_VERSION = 3
Stamp = list[int]  # time of change in ns, size


@dataclass(frozen=True)
class Index:
    """What lies under an output root; folders are relative to it. Its manifests have no `contents`."""

    runs: dict[str, Run]  # folder -> run, ordered by prompt set, prompt id, prompt and folder
    unreadable: dict[str, str]  # folder -> why its manifest cannot be read, in one sentence
    set_aside: list[str] = field(default_factory=list)  # folders that a run could not use and left

    @property
    def problems(self) -> list[str]:
        """One sentence for each manifest that cannot be read."""
        return list(self.unreadable.values())


@uncollected()
def read_index(root: Path) -> Index:
    """All run folders under an output root that have a manifest."""
    known = remembered("index", root, _CACHE_VERSION)
    entries: dict[str, Any] = {}
    runs: dict[str, Run] = {}
    unreadable: dict[str, str] = {}
    set_aside: list[str] = []
    places = []
    for name, stamp in manifests(root):
        if SET_ASIDE.search(name):
            set_aside.append(name)
        else:
            places.append((name, stamp))

    def find(place: tuple[str, Stamp]) -> tuple[Any, Manifest | Exception]:
        name, stamp = place
        entry = known.get(name)
        manifest = _remembered(entry, stamp)
        if manifest is not None:
            return entry, manifest
        try:
            manifest = replace(_read(root / name), contents={})
        except (ManifestError, OSError) as error:
            return None, error
        return [stamp, manifest.plain()], manifest

    for (name, _), (entry, found) in zip(places, concurrently(find, places), strict=True):
        if isinstance(found, Exception):
            unreadable[name] = _advice(found)
        else:
            runs[name], entries[name] = Run(root / name, found), entry
    if entries != known:
        remember("index", root, _CACHE_VERSION, entries)
    return Index(dict(sorted(runs.items(), key=_place)), unreadable, set_aside)


def manifests(root: Path) -> Iterator[tuple[str, Stamp]]:
    """Folder relative to `root` and stamp of every manifest, found at its fixed depth."""
    folders = [str(root / "runs")]
    for _ in range(5):
        folders = [path for found in concurrently(_folders, folders) for path in found]
    prefix = len(str(root)) + 1
    for folder, stamp in zip(folders, concurrently(_stamp, folders), strict=True):
        if stamp is not None:
            yield folder[prefix:], stamp


def _stamp(folder: str) -> Stamp | None:
    """Of the manifest in a run folder; None without one (yet)."""
    try:
        stat = os.stat(f"{folder}/{MANIFEST}")  # noqa: PTH116  a Path for each run takes longer
    except OSError:
        return None
    return [stat.st_mtime_ns, stat.st_size]


def failure(folder: Path) -> str:
    """Why a failed run failed, in one line, from its error.json."""
    try:
        error = read_typed(_failures(), folder / ERROR, "see log.txt")
    except FormatError:
        return f"there is no {ERROR}; see its log.txt"
    return f"{error.type}: {' '.join(error.message.split())} (step {error.step})"


@dataclass(frozen=True)
class _Failure:
    """What status shows of error.json."""

    type: str
    message: str
    step: Integer


@cache
def _failures() -> TypeAdapter[_Failure]:
    return TypeAdapter(_Failure)


def _advice(error: Exception) -> str:
    """What to do about a manifest that cannot be read, after the reason."""
    what = (
        "it is left untouched"
        if isinstance(error, NewerManifestError)
        else "repeat the run, which sets the folder aside and makes the asset again"
    )
    return f"{str(error).rstrip('.')}: {what}."


def _place(item: tuple[str, Run]) -> tuple[Any, ...]:
    name, run = item
    return run.identity.prompt_set, natural(run.identity.prompt_id), run.prompt, name


def _folders(folder: str) -> list[str]:
    """The folders in a folder, by name."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.path for entry in entries if entry.is_dir())
    except OSError:
        return []


def _read(folder: Path) -> Manifest:
    manifest = read_manifest(folder)
    if manifest is None:
        raise ManifestError(f"{folder / MANIFEST} was removed while it was read.")
    return manifest


def _remembered(entry: Any, stamp: Stamp) -> Manifest | None:
    try:
        known, fields = entry
        return Manifest.from_plain(fields) if known == stamp else None
    except (TypeError, ValueError, KeyError):
        return None  # not there, or of another format
