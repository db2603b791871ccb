"""Base class of metrics, and the score file in a run folder.

A metric is one file with a subclass of `Metric` and one YAML under conf/metric/ with its `_target_`. The
score of a run is cached in `scores/<metric>.json` together with everything it depends on: the hash of the
pictures, the prompt, and the metric's version, settings and weights. It is recomputed if any of these
changes.
"""

from __future__ import annotations

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from evaluation.metrics.score_file import SCHEMA_VERSION, ScoreFile, read_score_file, write_score_file
from trace_bench.run_folder.reading import AGAIN, Run, read_json
from trace_bench.run_folder.tracking import tracker_of
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.typed import FormatError

#: The priors of conf/prior/ that know the toy world: their runs have a known truth and the tiny CLIP.
TOY_PRIORS = ("tiny", "tiny_flow")


@dataclass(frozen=True)
class Quantity:
    """One number of a metric, and its format in tables."""

    name: str
    label: str
    note: str  # definition and unit, for captions
    higher_is_better: bool | None = None  # None: no ranking
    decimals: int = 2
    kind: str = "mean"  # mean: mean ± std over prompts; average: mean only; count: k/n of a boolean
    partial: bool = False  # undefined for some prompts; the mean is over the others


@dataclass(frozen=True)
class Score:
    """A metric's result for one run. None means undefined (an empty asset has no colour), never zero."""

    values: dict[str, float | None]
    rows: list[dict[str, Any]] = field(default_factory=list)  # one per view
    details: dict[str, Any] = field(default_factory=dict)
    inapplicable: tuple[str, ...] = ()  # partial quantities that are undefined for this run


class Metric(ABC):
    """Scores a run from its folder only. A subclass sets the first four attributes and defines `score`."""

    name: ClassVar[str]  # of the YAML, the score file and the config node metrics.<name>
    version: ClassVar[str]  # raise it when the definition changes; scores are then recomputed
    citation: ClassVar[str]
    quantities: ClassVar[tuple[Quantity, ...]]  # what tables show of `Score.values`
    #: what `applies` leaves out and why, to end "8 runs left out: ..."; for messages
    left_out: str = "it does not apply to them"
    #: the settings of the YAML and the command line, if a command created the metric
    configured: Mapping[str, Any] = MappingProxyType({})

    def applies(self, run: Run) -> bool:
        """Whether the metric is defined for this run."""
        return True

    def concerns(self, prior: str) -> bool:
        """Whether tables of this prior's runs should report missing scores."""
        return True

    def files(self, run: Run) -> list[Path]:
        """The files in the run folder that the score depends on; by default all rgb pictures."""
        return [run.rgb(view) for view in range(len(run.cameras))]

    def weights(self, run: Run) -> str:
        """Hash of the model weights, or of whatever replaces the model; empty if there is none."""
        return ""

    def settings(self, run: Run) -> dict[str, Any]:
        """The parameters that the score depends on, as JSON; by default all configured settings."""
        return dict(self.configured)

    @abstractmethod
    def score(self, run: Run) -> Score:
        """The values of one finished run: a finite number or None for each quantity."""


def score_path(run: Run, metric: str) -> Path:
    return run.folder / "scores" / f"{metric}.json"


def run_state(run: Run) -> dict[str, Any]:
    """The state of the run folder that a score file belongs to; cheaper to compare than pictures."""
    return {"fingerprint": run.manifest.fingerprint, "finished": run.manifest.finished}


def hash_files(paths: Iterable[Path]) -> str:
    """SHA-256 over the names and contents of files; raises for a missing file."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise TraceBenchError(f"{path} cannot be read ({error.strerror}): {AGAIN}.") from error
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(content).digest())
    return digest.hexdigest()


def score_run(metric: Metric, run: Run, force: bool = False) -> bool:
    """Update the score file; returns whether a score was computed."""
    inputs = {
        "images": hash_files(metric.files(run)),
        "prompt": run.prompt,
        "version": metric.version,
        "weights": metric.weights(run),
        "settings": json.loads(json.dumps(metric.settings(run))),
    }
    of_run = run_state(run)
    path = score_path(run, metric.name)
    path.parent.mkdir(exist_ok=True)
    stored = _stored(path)
    if stored is not None and not force and asdict(stored.inputs) == inputs:
        if stored.run != of_run:  # the run was repeated with identical results
            write_score_file(path, read_json(path) | {"run": of_run})
        return False
    score = metric.score(run)
    content = {
        "schema_version": SCHEMA_VERSION,
        "metric": metric.name,
        "citation": metric.citation,
        "higher_is_better": {q.name: q.higher_is_better for q in metric.quantities},
        "run": of_run,
        "inputs": inputs,
        "values": score.values,
        "inapplicable": list(score.inapplicable),
        "details": score.details,
        "rows": score.rows,
    }
    write_score_file(path, content)
    tracker = tracker_of(run.folder, run.manifest)
    tracker.scores(metric.name, score.values)
    tracker.close()
    return True


def _stored(path: Path) -> ScoreFile | None:
    """The score file; None if it is missing or broken (it is only a cache)."""
    try:
        return read_score_file(path)
    except FormatError:
        return None


def finite(value: float | None, digits: int = 6) -> float | None:
    """A rounded float for JSON; None if not finite."""
    value = math.nan if value is None else float(value)
    return round(value, digits) if math.isfinite(value) else None
