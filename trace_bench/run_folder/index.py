"""The run index: every run under an output root, in one order, each manifest parsed once.

Parsed manifests are remembered by size and time of change in the user's cache, never beside the runs, which
may belong to someone else. No torch, no Hydra: the status of a sweep reads the index every few seconds.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trace_bench.run_folder.manifest import MANIFEST, Manifest, ManifestError, RunIdentity, read_manifest
from trace_bench.run_folder.reading import AGAIN, Run, natural
from trace_bench.system.cache import remember, remembered

ERROR = "error.json"
_CACHE_VERSION = 1
Stamp = list[int]  # time of change in ns, size


@dataclass(frozen=True)
class Index:
    """What lies under an output root; folders are relative to it."""

    runs: dict[str, Run]  # folder -> run, ordered by prompt set, prompt id, prompt and folder
    unreadable: dict[str, str]  # folder -> why its manifest cannot be read

    @property
    def problems(self) -> list[str]:
        """One sentence for each manifest that cannot be read."""
        return [f"{why.rstrip('.')}: {AGAIN}, or remove the folder." for why in self.unreadable.values()]


def read_index(root: Path) -> Index:
    """All run folders under an output root that have a manifest."""
    known = remembered("index", root, _CACHE_VERSION)
    entries: dict[str, Any] = {}
    runs: dict[str, Run] = {}
    unreadable: dict[str, str] = {}
    for name, stamp in manifests(root):
        entry = known.get(name)
        manifest = _remembered(entry, stamp)
        try:
            if manifest is None:
                manifest = _read(root / name)
                entry = [stamp, asdict(manifest)]
        except (ManifestError, OSError) as error:
            unreadable[name] = str(error)
            continue
        runs[name] = Run(root / name, manifest)
        entries[name] = entry
    if entries != known:
        remember("index", root, _CACHE_VERSION, entries)
    return Index(dict(sorted(runs.items(), key=_place)), unreadable)


def manifests(root: Path) -> Iterator[tuple[str, Stamp]]:
    """Folder relative to `root` and stamp of every manifest, found at its fixed depth."""
    folders = [str(root / "runs")]
    for _ in range(4):
        folders = [entry.path for folder in folders for entry in _entries(folder) if entry.is_dir()]
    prefix = len(str(root)) + 1
    for folder in folders:
        for entry in _entries(folder):
            with suppress(OSError):  # no manifest (yet)
                stat = os.stat(f"{entry.path}/{MANIFEST}")  # noqa: PTH116  a Path for each run takes longer
                yield entry.path[prefix:], [stat.st_mtime_ns, stat.st_size]


def failure(folder: Path) -> str:
    """Why a failed run failed, in one line, from its error.json."""
    try:
        error = json.loads((folder / ERROR).read_text(encoding="utf-8"))
        return f"{error['type']}: {' '.join(str(error['message']).split())} (step {error['step']})"
    except (OSError, ValueError, KeyError, TypeError):
        return f"there is no {ERROR}; see its log.txt"


def _place(item: tuple[str, Run]) -> tuple[Any, ...]:
    name, run = item
    return run.identity.prompt_set, natural(run.identity.prompt_id), run.prompt, name


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
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
        return Manifest(**{**fields, "run": RunIdentity(**fields["run"])}) if known == stamp else None
    except (TypeError, KeyError, ValueError):
        return None  # not there, or only a damaged cache
