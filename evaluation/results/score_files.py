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

from evaluation.metrics.score_file import ScoreFile, read_score_file
from trace_bench.system.cache import remember, remembered
from trace_bench.system.files import concurrently
from trace_bench.system.typed import FormatError

_CACHE_VERSION = 2
Scores = dict[str, dict[str, Any]]  # metric -> what its score file says


def read_scores(root: Path, names: Iterable[str]) -> tuple[dict[str, Scores], list[str]]:
    """Scores of the runs `names` (folders relative to `root`); a file that cannot be used counts as missing.

    Returns: folder -> metric -> the values, who gave them, and the state of the run that they belong to; and
        one sentence for each file that cannot be used.
    """
    known = remembered("scores", root, _CACHE_VERSION)

    def find(name: str) -> list[Any]:
        stamps = _stamps(f"{root}/{name}/scores")
        entry = known.get(name, [])
        is_known = isinstance(entry, list) and len(entry) == 3 and entry[0] == stamps
        return entry if is_known else [stamps, *_read(root / name / "scores", stamps)]

    names = list(names)
    entries = dict(zip(names, concurrently(find, names), strict=True))
    if entries != known:
        remember("scores", root, _CACHE_VERSION, entries)
    problems = [problem for entry in entries.values() for problem in entry[2]]
    return {name: entry[1] for name, entry in entries.items()}, problems


def _stamps(folder: str) -> list[list[Any]]:
    """Name, size and time of change of each score file."""
    try:
        with os.scandir(folder) as entries:
            files = sorted((e for e in entries if e.name.endswith(".json")), key=lambda entry: entry.name)
    except OSError:
        return []
    return [[file.name, (state := file.stat()).st_size, state.st_mtime_ns] for file in files]


def _read(folder: Path, stamps: list[list[Any]]) -> tuple[Scores, list[str]]:
    scores: Scores = {}
    problems: list[str] = []
    for name, *_ in stamps:
        path = folder / name
        try:
            if (file := read_score_file(path)) is not None:
                scores[path.stem] = _row(file)
        except FormatError as error:
            problems.append(str(error))
    return scores, problems


def _row(file: ScoreFile) -> dict[str, Any]:
    inputs = file.inputs
    judged_by = json.dumps(
        {"version": inputs.version, "weights": inputs.weights, "settings": inputs.settings}, sort_keys=True
    )
    return {
        "run": file.run,
        "version": inputs.version,
        "judge": hashlib.sha256(judged_by.encode()).hexdigest()[:8],
        "values": file.values,
        "inapplicable": file.inapplicable,
        "model": file.details.get("model"),
        "captions": file.details.get("captions"),
        "views": len(file.rows),
    }
