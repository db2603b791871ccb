"""Measures a benchmark here and at another commit of this repository, in turns: `--against COMMIT`."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: What all commits are given, so that they do the same work: the prior of this checkout, and the weight of
#: the opacity loss, which decides how many Gaussians there are.
SAME = (f"prior.repo={ROOT / 'trace_bench' / 'models' / 'tiny_prior'}", "representation.losses.sparsity=200")
#: label -> cost; what `python -m benchmarks.<name> --measure` prints, one "label<tab>cost" a line
Costs = dict[str, float]


@contextlib.contextmanager
def checkouts(against: str | None) -> Iterator[dict[str, Path]]:
    """The folders to measure: this one, and with a commit also a git worktree of it, removed afterwards."""
    here = {"here": ROOT}
    if against is None:
        yield here
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "other"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--detach", str(folder), against], check=True, capture_output=True)
        try:
            yield here | {against: folder}
        finally:
            subprocess.run([*git, "remove", "--force", str(folder)], check=True, capture_output=True)


def measured(folder: Path, script: str, arguments: Sequence[str]) -> Costs:
    """What a script of this checkout's benchmarks/ measures with the trace_bench of `folder`."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / f"{script}.py"), "--measure", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{folder}: {done.stderr}")
    lines = [line.split("\t") for line in done.stdout.splitlines() if line.count("\t") == 1]
    return {label: float(cost) for label, cost in lines}


def compare(script: str, arguments: Sequence[str], against: str | None, repeats: int) -> None:
    """Print the median cost of each label, and its ratio to the other commit."""
    with checkouts(against) as folders:
        found: dict[str, list[Costs]] = {name: [] for name in folders}
        for _ in range(repeats):  # in turns, because other processes slow the machine down for a while
            for name, folder in folders.items():
                found[name].append(measured(folder, script, arguments))
    for label in found["here"][0]:
        ours = _median(found["here"], label)
        line = f"{label:<44} {ours:9.2f}"
        if against is not None and label in found[against][0]:
            other = _median(found[against], label)
            line += f"   {against} {other:9.2f}   ratio {ours / other:.2f}"
        print(line, flush=True)


def _median(costs: Sequence[Costs], label: str) -> float:
    return statistics.median(cost[label] for cost in costs)
