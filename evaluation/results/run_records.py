"""One record per run folder, cached in `.collected.json` in the output root.

A record is valid as long as the manifest and the score files of its folder keep their size and modification
time. The cache can be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evaluation.metrics.base import SCHEMA_VERSION
from trace_bench.run_folder.manifest import Manifest, find_runs, read_manifest
from trace_bench.run_folder.reading import AGAIN, natural, read_json
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.files import write_atomic

CACHE, CACHE_VERSION = ".collected.json", 2
Record = dict[str, Any]


def read_records(root: Path) -> tuple[list[Record], list[str]]:
    """Records of all runs under an output root, sorted by prompt set, prompt and folder, and read errors.

    A record has `folder` (relative to the root) and `status`; finished runs also have `row` (from the
    manifest) and `scores` (by metric: values, judge, and the run state that the score file belongs to).
    """
    known = _load(root / CACHE)
    records: dict[str, Record] = {}
    problems, changed = [], False
    for path in find_runs(root):
        folder = path.relative_to(root).as_posix()
        signature = _signature(str(path))
        record = known.get(folder)
        if record is None or record["signature"] != signature:
            changed = True
            try:
                record = _read(path, folder) | {"signature": signature}
            except (TraceBenchError, OSError) as error:
                problems.append(f"{str(error).rstrip('.')}: {AGAIN}, or remove the folder.")
                continue
        records[folder] = record
    if changed or records.keys() != known.keys():
        _save(root / CACHE, records)
    return sorted(records.values(), key=_place), problems


def _place(record: Record) -> tuple[Any, ...]:
    row = record.get("row", {})
    return (
        row.get("prompt_set", ""),
        natural(row.get("prompt_id", "")),
        row.get("prompt", ""),
        record["folder"],
    )


def _signature(folder: str) -> list[list[Any]]:
    """Name, size and modification time of the manifest and of each score file."""
    found = []
    with os.scandir(folder) as entries:
        files = [entry for entry in entries if entry.name == "manifest.json"]
    try:
        with os.scandir(f"{folder}/scores") as entries:
            files += sorted((e for e in entries if e.name.endswith(".json")), key=lambda entry: entry.name)
    except FileNotFoundError:
        pass
    for entry in files:
        state = entry.stat()
        found.append([entry.name, state.st_size, state.st_mtime_ns])
    return found


def _read(path: Path, folder: str) -> Record:
    manifest = read_manifest(path)
    if manifest is None:
        raise TraceBenchError(f"{path / 'manifest.json'} no longer exists")
    record: Record = {"folder": folder, "status": manifest.status}
    if manifest.status == "done":
        scores = {file.stem: _score(file) for file in sorted((path / "scores").glob("*.json"))}
        record |= {"row": describe(manifest, folder), "scores": {k: v for k, v in scores.items() if v}}
    return record


def describe(manifest: Manifest, folder: str) -> dict[str, Any]:
    """The manifest of a finished run, as columns of the frame."""
    cost = manifest.cost
    forward, backward = cost.get("unet_fwd"), cost.get("unet_bwd")
    size = manifest.prompt_source.get("count")
    return asdict(manifest.run) | {
        "own_prompt": not manifest.run.prompt_id.isdecimal(),
        "prompts_in_set": int(size) if isinstance(size, int) else None,
        "folder": folder,
        "fingerprint": manifest.fingerprint,
        "finished": manifest.finished,
        "machine": manifest.environment.get("gpu") or manifest.environment.get("cpu"),
        "external": bool(manifest.declared),
        "display_name": manifest.declared.get("name"),
        "source": manifest.declared.get("source"),
        "minutes": manifest.minutes,
        "unet_items": None if forward is None else forward + (backward or 0),
        "tflop": cost.get("tflop"),
        "n_primitives": manifest.n_primitives,
        "peak_memory_gb": manifest.peak_memory_gb,
        **{f"seconds_{key}": value for key, value in manifest.seconds.items()},
        **{f"cost_{key}": value for key, value in cost.items() if key != "tflop"},
    }


def _score(path: Path) -> dict[str, Any]:
    """The parts of a score file that the frame needs; empty if it is broken or of another version."""
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
        return {}  # the tables report how many runs have no score


def _load(path: Path) -> dict[str, Record]:
    try:
        content = json.loads(path.read_bytes())
        return content["records"] if content["version"] == CACHE_VERSION else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # only a cache


def _save(path: Path, records: Mapping[str, Record]) -> None:
    write_atomic(path, json.dumps({"version": CACHE_VERSION, "records": dict(records)}))
