"""Manifests and score files as one tidy frame: a row for each finished run, a column for everything known of
it.

`python -m evaluation.collect` writes it to `results.parquet` under the output root; every table and figure is
made from it.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import hydra
import pandas as pd
from omegaconf import DictConfig

from evaluation.command import command, load_metrics, output_root
from evaluation.metric import SCHEMA_VERSION, Metric, run_state, score_path
from evaluation.runs import Run, find_runs, read_json
from trace_bench.config_path import conf_dir
from trace_bench.errors import TraceBenchError

TEXTS = (
    "method", "representation", "init", "prior", "protocol", "prompt_set", "prompt_id", "prompt", "folder",
    "fingerprint", "finished",
)  # fmt: skip


@dataclass
class Results:
    """The frame, and what a reader of it has to know."""

    frame: pd.DataFrame
    unfinished: Counter[str] = field(default_factory=Counter)  # status -> runs
    problems: list[str] = field(default_factory=list)
    judges: dict[str, str] = field(default_factory=dict)  # judge (as in the frame) -> what it is, in words


def collect(root: Path, metrics: Mapping[str, Metric]) -> Results:
    """Read everything under an output root."""
    runs, problems = find_runs(root)
    results = Results(pd.DataFrame(), problems=problems)
    rows = []
    for run in runs:
        if run.manifest.status != "done":
            results.unfinished[run.manifest.status] += 1
            continue
        row = _describe(run, root)
        for name, metric in metrics.items():
            score = _score(run, metric, results)
            row[f"{name}_judge"] = score.get("judge")
            row |= dict.fromkeys((quantity.name for quantity in metric.quantities), None) | score.get(
                "values", {}
            )
        rows.append(row)
    results.frame = _typed(pd.DataFrame(rows), metrics)
    return results


def _describe(run: Run, root: Path) -> dict[str, Any]:
    """What the manifest says."""
    manifest, cost = run.manifest, run.manifest.cost
    unet = [cost.get(key) for key in ("unet_fwd", "unet_bwd")]
    size = manifest.prompt_source.get("count")
    return asdict(manifest.run) | {
        "own_prompt": not manifest.run.prompt_id.isdecimal(),
        "prompts_in_set": int(size) if isinstance(size, int) else None,
        "folder": run.folder.relative_to(root).as_posix(),
        "fingerprint": manifest.fingerprint,
        "finished": manifest.finished,
        "minutes": manifest.seconds.get("total", float("nan")) / 60.0,
        "unet_items": None if unet[0] is None else unet[0] + (unet[1] or 0),
        "n_primitives": manifest.n_primitives,
        "peak_memory_gb": manifest.peak_memory_gb,
        **{f"seconds_{key}": value for key, value in manifest.seconds.items()},
        **{f"cost_{key}": value for key, value in cost.items()},
    }


def _score(run: Run, metric: Metric, results: Results) -> dict[str, Any]:
    """Values of a score file and who gave them; nothing where none belongs to this state of the run."""
    path = score_path(run, metric.name)
    try:
        content = read_json(path) if path.exists() else None
        if content is None or content["schema_version"] != SCHEMA_VERSION:
            raise KeyError
        if content["run"] != run_state(run) or content["inputs"]["version"] != metric.version:
            raise KeyError
        inputs = content["inputs"]
        known = {key: inputs[key] for key in ("version", "weights", "settings")}
        judge = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:8]
        values = {str(key): value for key, value in content["values"].items()}
        results.judges[judge] = ", ".join(_words(metric, content))
    except (TraceBenchError, KeyError, TypeError, AttributeError):
        return {}  # the tables say how many runs have no score
    return {"judge": judge, "values": values}


def _words(metric: Metric, content: Mapping[str, Any]) -> list[str]:
    """What a score file says of the judge."""
    details, views = content["details"], len(content["rows"])
    words = [f"{metric.name} version {metric.version}"]
    words += [str(details["model"])] if "model" in details else []
    words += [f"{views} view{'s' if views != 1 else ''}"] if views else []
    return words + ([f"{details['captions']} captions"] if "captions" in details else [])


def _typed(frame: pd.DataFrame, metrics: Mapping[str, Metric]) -> pd.DataFrame:
    """Numbers as float64, so that the parquet's schema does not depend on what happens to be missing."""
    if frame.empty:
        return frame
    texts = {*TEXTS, *(f"{name}_judge" for name in metrics)}
    for column in frame.columns:
        if column in texts:
            frame[column] = frame[column].astype("string")
        elif column not in {"seed", "steps", "views_per_step", "resolution", "own_prompt"}:
            frame[column] = pd.to_numeric(frame[column]).astype("float64")
    return frame


def save(results: Results, root: Path) -> Path:
    """Write the frame to `results.parquet`, in one step."""
    path = root / "results.parquet"
    partial = path.with_suffix(".partial")
    results.frame.to_parquet(partial, index=False)
    partial.replace(path)
    return path


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="evaluation")
@command
def main(config: DictConfig) -> int:
    root = output_root(config)
    results = collect(root, load_metrics(config))
    path = save(results, root)
    print(f"{len(results.frame)} finished runs: {path}")
    return 0


if __name__ == "__main__":
    main()
