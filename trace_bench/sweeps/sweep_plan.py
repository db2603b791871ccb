"""Records of commands and submissions: outputs/sweeps/<hash>/plan.json and jobs-<Slurm id>.json.

The run folders record the progress of each run; these files record which runs there should be, and which
Slurm jobs make them. Imports no heavy packages, because the status reads these files.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, TypeAdapter

from trace_bench.run_folder.manifest import utc_now
from trace_bench.system.files import write_json
from trace_bench.system.typed import Amount, FormatError, read_typed

SWEEPS, PLAN = "sweeps", "plan.json"


@dataclass(frozen=True)
class Sweep:
    """One command's runs, as folders relative to the output root, and the Slurm jobs that it submitted."""

    command: str
    issued: str  # ISO 8601, UTC, last time the command was run
    runs: tuple[str, ...]
    jobs: Mapping[str, tuple[str, ...]]  # Slurm id -> its runs
    costs: Mapping[str, float]  # run -> its declared cost in TFLOP, 0 if unknown


def folder_of(root: Path, runs: Sequence[str]) -> Path:
    """The sweep's folder, named by its runs, so that the same command finds it again."""
    digest = hashlib.sha256("\n".join(sorted(runs)).encode()).hexdigest()
    return root / SWEEPS / digest[:8]


def write_plan(root: Path, command: Sequence[str], runs: Sequence[str] | Mapping[str, float]) -> str:
    """Record that a command was run; returns the time. `runs` may map each run to its declared cost."""
    folder, issued = folder_of(root, list(runs)), utc_now()
    folder.mkdir(parents=True, exist_ok=True)
    costs = list(runs.values()) if isinstance(runs, Mapping) else []
    content = {"command": shlex.join(command), "issued": issued, "runs": list(runs), "costs": costs}
    write_json(folder / PLAN, content)
    return issued


def write_jobs(root: Path, runs: Sequence[str], jobs: Mapping[str, Sequence[str]]) -> None:
    """Record the jobs of one submission, whose ids share the number before "_"."""
    name = next(iter(jobs)).partition("_")[0]
    write_json(folder_of(root, runs) / f"jobs-{name}.json", {key: list(value) for key, value in jobs.items()})


def read_sweeps(root: Path, problems: list[str] | None = None) -> list[Sweep]:
    """The sweeps under an output root, latest last; `problems` gets a sentence for each file left out."""
    sweeps, said = [], [] if problems is None else problems
    for folder in sorted((root / SWEEPS).glob("*")):
        if not (folder / PLAN).exists():
            continue
        try:
            plan = read_typed(_plans(), folder / PLAN, "repeat the sweep's command, which writes it again")
        except FormatError as error:
            said.append(str(error))
            continue
        jobs: dict[str, tuple[str, ...]] = {}
        for path in sorted(folder.glob("jobs-*.json")):
            try:
                jobs = jobs | read_typed(_jobs(), path, "its Slurm jobs are not counted")
            except FormatError as error:
                said.append(str(error))
        costs = dict(zip(plan.runs, plan.costs, strict=False))
        sweeps.append(Sweep(plan.command, plan.issued, plan.runs, jobs, costs))
    return sorted(sweeps, key=lambda sweep: sweep.issued)


def jobs_of(sweeps: Iterable[Sweep]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every job of all sweeps, with its runs."""
    for sweep in sweeps:
        yield from sweep.jobs.items()


def _as_run(name: str) -> str:
    if not re.fullmatch(r"runs(/[^/\0]+){5}", name) or ".." in name.split("/"):
        raise ValueError(f"{name!r} is not the folder of a run")
    return name


def _as_job(name: str) -> str:
    if not re.fullmatch(r"\w+", name, re.ASCII):
        raise ValueError(f"{name!r} is not the id of a Slurm job")
    return name


_Runs = tuple[Annotated[str, AfterValidator(_as_run)], ...]


@dataclass(frozen=True)
class _Plan:
    """The content of plan.json."""

    command: str
    issued: str
    runs: _Runs
    costs: tuple[Amount, ...] = ()  # of each run


@cache
def _plans() -> TypeAdapter[_Plan]:
    return TypeAdapter(_Plan)


@cache
def _jobs() -> TypeAdapter[dict[str, tuple[str, ...]]]:
    return TypeAdapter(dict[Annotated[str, AfterValidator(_as_job)], _Runs])
