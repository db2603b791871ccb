"""All results as one tidy frame: manifests, scores, Elo and preferences.

`python -m evaluation.collect` writes it to `results.parquet` in the output root; every table and figure is
made from it. The column `kind` is the kind of row: a finished `run`, the `elo` of a contestant on one
criterion, or the `preference` of a user study for one baseline and aspect. Columns of other kinds are empty.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hydra
import pandas as pd
from omegaconf import DictConfig

from evaluation.command import command, output_root
from evaluation.metrics.base import Metric
from evaluation.metrics.load import load_metrics
from evaluation.results.judgements import read_judgements
from evaluation.results.run_records import Record, read_records
from evaluation.results.variants import add_variants
from trace_bench.system.config_path import conf_dir

TEXTS = (
    "kind", "method", "representation", "init", "prior", "protocol", "prompt_set", "prompt_id", "prompt",
    "folder", "fingerprint", "finished", "machine", "display_name", "source",
)  # fmt: skip
_UNCHANGED = {"seed", "steps", "views_per_step", "resolution", "own_prompt", "external"}


@dataclass
class Results:
    """The frame, and notes for its readers."""

    frame: pd.DataFrame  # the runs
    judgements: pd.DataFrame = field(default_factory=pd.DataFrame)  # Elo and preferences
    unfinished: Counter[str] = field(default_factory=Counter)  # status -> runs
    problems: list[str] = field(default_factory=list)
    judges: dict[str, str] = field(default_factory=dict)  # judge id in the frame -> description

    def of_kind(self, kind: str) -> pd.DataFrame:
        """The judgements of one kind."""
        if self.judgements.empty:
            return self.judgements
        return self.judgements[self.judgements["kind"] == kind].reset_index(drop=True)


def collect(root: Path, metrics: Mapping[str, Metric]) -> Results:
    """Read all results under an output root."""
    records, problems = read_records(root)
    results = Results(pd.DataFrame(), problems=problems)
    rows = []
    for record in records:
        if record["status"] != "done":
            results.unfinished[record["status"]] += 1
            continue
        row = {"kind": "run"} | record["row"]
        for metric in metrics.values():
            row |= _score(record, metric, results)
        rows.append(row)
    results.frame = add_variants(_typed(pd.DataFrame(rows), metrics), root)
    results.judgements, broken = read_judgements(root)
    results.problems += broken
    return results


def _score(record: Record, metric: Metric, results: Results) -> dict[str, Any]:
    """Values and judge of a score file; empty if none belongs to this state of the run."""
    found: dict[str, Any] = {f"{metric.name}_judge": None}
    found |= dict.fromkeys((quantity.name for quantity in metric.quantities), None)
    found |= {f"{quantity.name}_applies": None for quantity in metric.quantities if quantity.partial}
    score, row = record["scores"].get(metric.name), record["row"]
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
    partial = path.with_suffix(".partial")
    frame = pd.concat([part for part in (results.frame, results.judgements) if len(part)] or [results.frame])
    frame.attrs = {"judges": results.judges}
    frame.to_parquet(partial, index=False)
    partial.replace(path)
    return path


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="evaluation")
@command
def main(config: DictConfig) -> int:
    root = output_root(config)
    results = collect(root, load_metrics(config))
    path = save(results, root)
    print(f"{len(results.frame)} finished runs: {path}")
    for problem in results.problems:
        print(f"Problem: {problem}")
    return 1 if results.problems else 0


if __name__ == "__main__":
    main()
