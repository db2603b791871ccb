"""Records of commands and submissions: outputs/sweeps/<hash>/plan.json and jobs-<Slurm id>.json.

The run folders record the progress of each run; these files record which runs there should be, and which
Slurm jobs make them. Imports no heavy packages, because the status reads these files.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trace_bench.run_folder.manifest import utc_now
from trace_bench.system.files import write_json

SWEEPS, PLAN = "sweeps", "plan.json"


@dataclass(frozen=True)
class Sweep:
    """One command's runs, as folders relative to the output root, and the Slurm jobs that it submitted."""

    command: str
    issued: str  # ISO 8601, UTC, last time the command was run
    runs: tuple[str, ...]
    jobs: Mapping[str, tuple[str, ...]]  # Slurm id -> its runs


def folder_of(root: Path, runs: Sequence[str]) -> Path:
    """The sweep's folder, named by its runs, so that the same command finds it again."""
    digest = hashlib.sha256("\n".join(sorted(runs)).encode()).hexdigest()
    return root / SWEEPS / digest[:8]


def write_plan(root: Path, command: Sequence[str], runs: Sequence[str]) -> str:
    """Record that a command was run; returns the time."""
    folder, issued = folder_of(root, runs), utc_now()
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / PLAN, {"command": shlex.join(command), "issued": issued, "runs": list(runs)})
    return issued


def write_jobs(root: Path, runs: Sequence[str], jobs: Mapping[str, Sequence[str]]) -> None:
    """Record the jobs of one submission, whose ids share the number before "_"."""
    name = next(iter(jobs)).partition("_")[0]
    write_json(folder_of(root, runs) / f"jobs-{name}.json", {key: list(value) for key, value in jobs.items()})


def read_sweeps(root: Path) -> list[Sweep]:
    """The sweeps under an output root, latest last; unreadable ones are skipped."""
    sweeps = []
    for folder in (root / SWEEPS).glob("*"):
        plan = _read(folder / PLAN)
        if plan is None:
            continue
        jobs: dict[str, tuple[str, ...]] = {}
        for path in sorted(folder.glob("jobs-*.json")):
            jobs |= {key: tuple(value) for key, value in (_read(path) or {}).items()}
        sweeps.append(Sweep(plan["command"], plan["issued"], tuple(plan["runs"]), jobs))
    return sorted(sweeps, key=lambda sweep: sweep.issued)


def jobs_of(sweeps: Iterable[Sweep]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every job of all sweeps, with its runs."""
    for sweep in sweeps:
        yield from sweep.jobs.items()


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
