"""The score files of many runs, each parsed once.

What was parsed is remembered by size and time of change in the user's cache, never beside the runs.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from evaluation.metrics.base import SCHEMA_VERSION
from trace_bench.run_folder.reading import read_json
from trace_bench.system.cache import remember, remembered
from trace_bench.system.errors import TraceBenchError

_CACHE_VERSION = 1
Scores = dict[str, dict[str, Any]]  # metric -> what its score file says


def read_scores(root: Path, names: Iterable[str]) -> dict[str, Scores]:
    """Scores of the runs `names` (folders relative to `root`); a broken file counts as missing.

    Returns: folder -> metric -> the values, who gave them, and the state of the run that they belong to.
    """
    known = remembered("scores", root, _CACHE_VERSION)
    entries: dict[str, list[Any]] = {}
    for name in names:
        stamps = _stamps(f"{root}/{name}/scores")
        entry = known.get(name, [])
        is_known = len(entry) == 2 and entry[0] == stamps
        entries[name] = entry if is_known else [stamps, _read(root / name / "scores", stamps)]
    if entries != known:
        remember("scores", root, _CACHE_VERSION, entries)
    return {name: entry[1] for name, entry in entries.items()}


def _stamps(folder: str) -> list[list[Any]]:
    """Name, size and time of change of each score file."""
    try:
        with os.scandir(folder) as entries:
            files = sorted((e for e in entries if e.name.endswith(".json")), key=lambda entry: entry.name)
    except FileNotFoundError:
        return []
    return [[file.name, (state := file.stat()).st_size, state.st_mtime_ns] for file in files]


def _read(folder: Path, stamps: list[list[Any]]) -> Scores:
    scores = {Path(name).stem: _score(folder / name) for name, *_ in stamps}
    return {metric: score for metric, score in scores.items() if score}


def _score(path: Path) -> dict[str, Any]:
    """What the frame needs of a score file; nothing if it is broken or of another version."""
    try:
        content = read_json(path)
        if content["schema_version"] != SCHEMA_VERSION:
            return {}
        inputs, details = content["inputs"], content["details"]
        judged_by = json.dumps(
            {key: inputs[key] for key in ("version", "weights", "settings")}, sort_keys=True
        )
        return {
            "run": content["run"],
            "version": inputs["version"],
            "judge": hashlib.sha256(judged_by.encode()).hexdigest()[:8],
            "values": dict(content["values"]),
            "inapplicable": list(content.get("inapplicable", ())),
            "model": details.get("model"),
            "captions": details.get("captions"),
            "views": len(content["rows"]),
        }
    except (TraceBenchError, KeyError, TypeError, ValueError, AttributeError):
        return {}  # the tables say how many runs have no score
