"""All results as one tidy frame: manifests, scores, Elo and preferences.

`python -m evaluation.collect` writes it to `results.parquet` in the output root; every table and figure
is made from it. The column `kind` is the kind of row: a finished `run`, a `control`, the renders after
single steps of a run (`step`; the column `done_steps` is their number), the `elo` of a contestant on one
criterion, or the `preference` of a user study for one baseline and aspect. Columns of other kinds are empty.
"""

from __future__ import annotations

import io
import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig
from pydantic import TypeAdapter

from evaluation.command import command, output_root
from evaluation.metrics.base import Metric
from evaluation.metrics.load import load_metrics
from evaluation.results.judgements import read_judgements
from evaluation.results.score_files import Scores, read_scores
from evaluation.results.variants import add_variants
from trace_bench.run_folder.index import read_index
from trace_bench.run_folder.manifest import Manifest
from trace_bench.run_folder.reading import AGAIN, STEP, Run, of_asset, one_per_asset
from trace_bench.run_folder.states import state_of
from trace_bench.system.files import write_atomic
from trace_bench.system.text import printable
from trace_bench.system.typed import Finite, FormatError, read_typed
from trace_bench.system.uncollected import uncollected

TEXTS = (
    "kind", "method", "representation", "init", "prior", "protocol", "prompt_set", "prompt_id", "prompt",
    "folder", "snapshots", "fingerprint", "finished", "machine", "display_name", "source",
    "method_name", "representation_name", "control", "optimised",
)  # fmt: skip
_UNCHANGED = {
    "seed",
    "steps",
    "views_per_step",
    "resolution",
    "own_prompt",
    "external",
    "prompt_cut",
    "right",
}


@dataclass
class Results:
    """The frame, and notes for its readers."""

    frame: pd.DataFrame  # the runs
    controls: pd.DataFrame = field(default_factory=pd.DataFrame)  # runs of controls, never in the frame
    steps: pd.DataFrame = field(default_factory=pd.DataFrame)  # renders after single steps of the runs
    judgements: pd.DataFrame = field(default_factory=pd.DataFrame)  # Elo and preferences
    runs: dict[str, Run] = field(default_factory=dict)  # folder in the frames -> run
    root: Path = Path("outputs")
    unfinished: Counter[str] = field(default_factory=Counter)  # state -> runs
    problems: list[str] = field(default_factory=list)
    judges: dict[str, str] = field(default_factory=dict)  # judge id in the frame -> description

    def command(self, words: str) -> str:
        """A command to advise, about this output root."""
        where = "" if self.root == Path("outputs") else f" output_root={shlex.quote(str(self.root))}"
        return f"`python -m {words}{where}`"

    def of_kind(self, kind: str) -> pd.DataFrame:
        """The judgements of one kind."""
        if self.judgements.empty:
            return self.judgements
        return self.judgements[self.judgements["kind"] == kind].reset_index(drop=True)


@uncollected()
def collect(root: Path, metrics: Mapping[str, Metric]) -> Results:
    """Read everything under an output root: one row per asset (`one_per_asset`).

    The column `snapshots` is the folder of the run with the asset's snapshots, if there is one.
    """
    index = read_index(root)
    results = Results(pd.DataFrame(), problems=index.problems, root=root)
    results.unfinished = Counter(
        state_of(run.folder, run.manifest) for run in index.runs.values() if run.manifest.status != "done"
    )
    done = [run for run in index.runs.values() if run.manifest.status == "done"]
    names = {run.folder: name for name, run in index.runs.items()}
    kept = {names[run.folder]: run for run in one_per_asset(done)}
    snapshots = {
        of_asset(run): names[run.folder]
        for run in sorted(done, key=_number_of_snapshots)
        if _number_of_snapshots(run)
    }
    results.runs = kept
    rendered = {
        of_asset(run): run
        for run in sorted(done, key=lambda run: len(run.steps_rendered))
        if run.steps_rendered
    }
    steps = {
        step.folder.relative_to(root).as_posix(): (number, step)
        for run in rendered.values()
        for number, step in run.steps_rendered.items()
    }
    scores, broken = read_scores(root, [*kept, *steps])
    results.problems += broken
    rows: dict[str, list[dict[str, Any]]] = {"run": [], "control": []}
    of_steps: list[dict[str, Any]] = []
    for name, (number, step) in steps.items():
        try:
            record = read_typed(_records(), step.folder / STEP, AGAIN)
        except FormatError as error:
            results.problems.append(str(error))
            continue
        row = {"kind": "step"} | describe(step.manifest, name) | {"snapshots": None}
        row |= {"done_steps": number, "tflop": record.tflop, "optimised": _optimised(step, metrics)}
        for metric in metrics.values():
            row |= _score(row, scores[name], metric, results)
        of_steps.append(row)
    results.steps = _typed(pd.DataFrame(of_steps), metrics)
    for name, run in kept.items():
        kind = "control" if run.identity.is_control else "run"
        row = {"kind": kind} | describe(run.manifest, name) | {"snapshots": snapshots.get(of_asset(run))}
        row["optimised"] = _optimised(run, metrics)
        if kind == "control":
            row |= {key: run.manifest.declared.get(key) for key in ("control", "right")}
        for metric in metrics.values():
            row |= _score(row, scores[name], metric, results)
        rows[kind].append(row)
    results.frame, results.controls = (
        add_variants(_typed(pd.DataFrame(found), metrics), root, results.problems) for found in rows.values()
    )
    if len(results.steps):  # as of the run that the asset has in the frame
        variants = dict(zip(results.frame["folder"], results.frame["variant"], strict=True))
        of_assets = {of_asset(run): variants.get(name, "") for name, run in kept.items()}
        results.steps = results.steps.assign(
            variant=[of_assets[of_asset(steps[name][1])] for name in results.steps["folder"]]
        )
    results.judgements, broken = read_judgements(root)
    results.problems += broken
    return results


@dataclass(frozen=True)
class _Record:
    """What the frame needs of a step.json."""

    tflop: Finite | None


@cache
def _records() -> TypeAdapter[_Record]:
    return TypeAdapter(_Record)


def _number_of_snapshots(run: Run) -> int:
    return sum(name.startswith("snapshots/") for name in run.manifest.files)


def describe(manifest: Manifest, folder: str) -> dict[str, Any]:
    """What the manifest says of a finished run, as columns of the frame."""
    cost = manifest.cost
    forward, backward = cost.get("unet_fwd"), cost.get("unet_bwd")
    size = manifest.prompt_source.get("count")
    return dict(vars(manifest.run)) | {
        "own_prompt": not manifest.run.prompt_id.isdecimal(),
        "prompts_in_set": int(size) if isinstance(size, int) else None,
        "prompt_cut": manifest.prompt_cut,
        "folder": folder,
        "fingerprint": manifest.fingerprint,
        "finished": manifest.finished,
        "machine": manifest.environment.get("gpu") or manifest.environment.get("cpu"),
        "external": bool(manifest.declared),
        "display_name": manifest.declared.get("name"),
        "source": manifest.declared.get("source"),
        "method_name": manifest.display_names.get("method"),
        "representation_name": manifest.display_names.get("representation"),
        "minutes": manifest.minutes,
        "minutes_shared": manifest.minutes_shared,
        "minutes_of_loading": manifest.minutes_of_loading,
        "unet_items": None if forward is None else forward + (backward or 0),
        "tflop": cost.get("tflop"),
        "n_primitives": manifest.n_primitives,
        "peak_memory_gb": manifest.peak_memory_gb,
        "tflop_per_s": manifest.tflop_per_s if manifest.environment.get("gpu") else None,
        "mfu": manifest.mfu,
        **{f"seconds_{key}": value for key, value in manifest.seconds.items()},
        **{f"cost_{key}": value for key, value in cost.items() if key != "tflop"},
    }


def _optimised(run: Run, metrics: Mapping[str, Metric]) -> str:
    """The numbers that show what the run's method maximised, as words: no rank is theirs (`aggregate`)."""
    shown = run.manifest.reward.get("metrics") or ()
    return " ".join(q.name for metric in metrics.values() if metric.name in shown for q in metric.quantities)


def _score(row: Mapping[str, Any], scores: Scores, metric: Metric, results: Results) -> dict[str, Any]:
    """Values of a score file and who gave them; empty where none belongs to this state of the run."""
    found: dict[str, Any] = {f"{metric.name}_judge": None}
    found |= dict.fromkeys((quantity.name for quantity in metric.quantities), None)
    found |= {f"{quantity.name}_applies": None for quantity in metric.quantities if quantity.partial}
    score = scores.get(metric.name)
    state = {"fingerprint": row["fingerprint"], "finished": row["finished"]}
    if not score or score["run"] != state or score["version"] != metric.version:
        return found
    judge = score["judge"]
    if judge not in results.judges:
        results.judges[judge] = ", ".join(_words(metric, score))
    for quantity in metric.quantities:
        if quantity.partial:
            found[f"{quantity.name}_applies"] = float(quantity.name not in score["inapplicable"])
    return found | {f"{metric.name}_judge": judge} | score["values"]


def _words(metric: Metric, score: Mapping[str, Any]) -> list[str]:
    """The description of the judge in a score file."""
    views = score["views"]
    words = [f"{metric.name} version {metric.version}"]
    words += [str(score["model"])] if score["model"] else []
    words += [f"{views} view{'s' if views != 1 else ''}"] if views else []
    return words + ([f"{score['captions']} captions"] if score["captions"] else [])


def _typed(frame: pd.DataFrame, metrics: Mapping[str, Metric]) -> pd.DataFrame:
    """Numbers as float64, so that the parquet schema does not depend on missing values."""
    texts = {*TEXTS, *(f"{name}_judge" for name in metrics)}
    for column in frame.columns:
        if column in texts:
            frame[column] = frame[column].astype("string")
        elif column not in _UNCHANGED:
            frame[column] = pd.to_numeric(frame[column]).astype("float64")
    return frame


def save(results: Results, root: Path) -> Path:
    """Write the frame to `results.parquet` atomically; `attrs` holds the judges' descriptions."""
    path = root / "results.parquet"
    parts = (results.frame, results.controls, results.steps, results.judgements)
    frame = pd.concat([part for part in parts if len(part)] or [results.frame])
    frame.attrs = {"judges": results.judges}
    content = io.BytesIO()
    frame.to_parquet(content, index=False)
    write_atomic(path, content.getvalue())
    return path


@command("evaluation")
def main(config: DictConfig) -> int:
    root = output_root(config)
    results = collect(root, load_metrics(config))
    path = save(results, root)
    print(f"{len(results.frame)} finished runs: {path}")
    for problem in results.problems:
        print(f"Problem: {printable(problem)}")
    return 1 if results.problems else 0


if __name__ == "__main__":
    main()
