"""`python -m evaluation.score`: score every finished run under `output_root`, each metric once.

A score is recomputed only if something it depends on has changed (see `evaluation.metrics.base`). A broken
run folder does not stop the others: problems are listed at the end, and the exit code is 1. `shard=i/n`
scores part i of n. A folder's name decides its part, so parts can run on any machine at any time; together
they give exactly the result of one process.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import DictConfig

from evaluation.command import command, output_root
from evaluation.metrics.base import Metric, score_run
from evaluation.metrics.failures import forget_failure, note_failure
from evaluation.metrics.load import load_metrics
from trace_bench.run_folder.index import read_index
from trace_bench.run_folder.reading import Run
from trace_bench.system.errors import TraceBenchError, Unavailable
from trace_bench.system.text import printable
from trace_bench.system.tracked import tracked


@dataclass
class ScoringOutcome:
    """Counts of (run, metric) pairs by result."""

    computed: Counter[str] = field(default_factory=Counter)
    cached: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)  # the metric does not apply
    unavailable: Counter[str] = field(default_factory=Counter)  # by reason
    problems: list[str] = field(default_factory=list)


def score_all(
    runs: list[Run], metrics: dict[str, Metric], force: bool = False, what: str = "runs"
) -> ScoringOutcome:
    """Score runs, or the renders of their single steps, with every metric that applies to them.

    Runs of one prompt follow each other: they share the renders of its true object.
    """
    outcome = ScoringOutcome()
    for run in tracked(sorted(runs, key=lambda run: run.prompt), f"scoring {what}"):
        for name, metric in metrics.items():
            try:
                if metric.applies(run):
                    done = outcome.computed if score_run(metric, run, force) else outcome.cached
                    done[name] += 1
                    forget_failure(run, name)
                else:
                    outcome.left_out[name] += 1
            except Unavailable as error:
                outcome.unavailable[str(error)] += 1
                note_failure(run, name, str(error))
            except TraceBenchError as error:
                outcome.problems.append(str(error))
                note_failure(run, name, str(error))
            except Exception as error:  # noqa: BLE001 - one folder must not stop the others
                reason = f"{run.folder}: {name} failed ({type(error).__name__}: {error})."
                outcome.problems.append(reason)
                note_failure(run, name, reason)
    return outcome


def parse_shard(text: str | None) -> tuple[int, int]:
    """ "2/4" -> (2, 4); all runs are part 1 of 1."""
    if text is None:
        return 1, 1
    match = re.fullmatch(r"(\d+)/(\d+)", str(text))
    part, parts = (int(group) for group in match.groups()) if match else (0, 0)
    if not 1 <= part <= parts:
        raise TraceBenchError(f"shard={text} is invalid: use i/n with 1 <= i <= n, such as shard=2/4.")
    return part, parts


def in_shard(folder: str, part: int, parts: int) -> bool:
    """Whether a run folder, relative to the output root, belongs to a part."""
    return int(hashlib.sha256(folder.encode()).hexdigest(), 16) % parts == part - 1


def report(
    outcome: ScoringOutcome, metrics: dict[str, Metric], runs: list[Run], not_done: int, shard: str | None
) -> None:
    """Print what was scored, then what was not."""
    if not runs:
        make = "start some with `python -m trace_bench`" if shard is None else f"none is in shard {shard}"
        print(f"No finished runs: {make}.")
    for name, metric in metrics.items() if runs else ():
        new, old, none = outcome.computed[name], outcome.cached[name], outcome.left_out[name]
        why = f"; {none} left out, because {metric.left_out}" if none else ""
        print(f"{name}: {new} scored, {old} up to date, of {len(runs)} finished runs{why}")
    if not_done:
        print(f"{not_done} unfinished runs were skipped; `python -m trace_bench.status` says why.")
    for reason, count in outcome.unavailable.items():
        print(f"{count} runs without a score: {reason}")
    for problem in dict.fromkeys(outcome.problems):
        print(f"Problem: {printable(problem)}", file=sys.stderr)


def report_steps(outcome: ScoringOutcome, steps: int) -> None:
    """Print what was scored of the renders of single steps; nothing if there are none."""
    if steps:
        new, old = outcome.computed.total(), outcome.cached.total()
        print(f"Renders of {steps} single steps: {new} scores computed, {old} up to date.")
    for problem in dict.fromkeys(outcome.problems):
        print(f"Problem: {printable(problem)}", file=sys.stderr)


@command("evaluation")
def main(config: DictConfig) -> int:
    root: Path = output_root(config)
    metrics = load_metrics(config)
    part, parts = parse_shard(config.shard)
    index = read_index(root)
    runs = [run for name, run in index.runs.items() if in_shard(name, part, parts)]
    done = [run for run in runs if run.manifest.status == "done"]
    outcome = score_all(done, metrics, bool(config.force))
    outcome.problems[:0] = index.problems
    report(outcome, metrics, done, len(runs) - len(done), config.shard)
    steps = [step for run in done for step in run.steps_rendered.values()]
    of_steps = score_all(steps, metrics, bool(config.force), "steps")
    report_steps(of_steps, len(steps))
    return 1 if outcome.problems or of_steps.problems else 0


if __name__ == "__main__":
    main()
