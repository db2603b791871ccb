"""What a metric is, and the score file that it leaves in a run folder.

A metric is one file with a subclass of `Metric` and one YAML that names it by `_target_`
(docs/adding_a_metric.md). Its score of a run is cached in `scores/<metric>.json` together with everything it
depends on (the hash of the pictures, the prompt, the metric's version, settings and weights); where all of
these agree the file stands, else it is made anew.
"""

from __future__ import annotations

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from trace_bench.run_folder.reading import AGAIN, Run, read_json
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.files import write_json

SCHEMA_VERSION = 1


class MetricUnavailable(TraceBenchError):
    """The metric cannot be computed on this machine (weights are not at hand); says how to get what is
    missing.
    """


@dataclass(frozen=True)
class Quantity:
    """One number of a metric, and how a table shows it."""

    name: str
    label: str
    note: str  # what it is and its unit, for captions
    higher_is_better: bool | None = None  # None: neither, nothing is marked as best
    decimals: int = 2
    kind: str = "mean"  # mean: mean ± std over prompts; average: mean alone; count: k/n of a yes-no value
    partial: bool = False  # not defined for every prompt; its mean is over those for which it is


@dataclass(frozen=True)
class Score:
    """A metric's verdict on one run. None stands for undefined (an empty asset has no colour), never for
    zero.
    """

    values: dict[str, float | None]
    rows: list[dict[str, Any]] = field(default_factory=list)  # one a view
    details: dict[str, Any] = field(default_factory=dict)
    inapplicable: tuple[str, ...] = ()  # partial quantities that are not defined for this run


class Metric(ABC):
    """Scores a run from its folder alone. A subclass sets the first four attributes and defines `score`."""

    name: ClassVar[str]  # of the YAML, the score file and the config node metrics.<name>
    version: ClassVar[str]  # raise it when the definition changes; old scores are then made anew
    citation: ClassVar[str]
    quantities: ClassVar[tuple[Quantity, ...]]  # what tables show of `Score.values`
    #: the settings of the YAML and the command line, where a command made the metric
    configured: Mapping[str, Any] = MappingProxyType({})

    def applies(self, run: Run) -> bool:
        """Whether the metric is defined for this run at all."""
        return True

    def concerns(self, prior: str) -> bool:
        """Whether a table of this prior's runs should say that a score is missing."""
        return True

    def files(self, run: Run) -> list[Path]:
        """The files of the run folder that the score depends on: all rgb pictures, unless it is said."""
        return [run.rgb(view) for view in range(len(run.cameras))]

    def weights(self, run: Run) -> str:
        """Hash of the model, or of whatever else plays the judge; empty where there is none."""
        return ""

    def settings(self, run: Run) -> dict[str, Any]:
        """What else the score depends on, as JSON: all that is configured, unless it is said."""
        return dict(self.configured)

    @abstractmethod
    def score(self, run: Run) -> Score:
        """The values of one finished run: a finite number or None for each quantity."""


def score_path(run: Run, metric: str) -> Path:
    return run.folder / "scores" / f"{metric}.json"


def run_state(run: Run) -> dict[str, Any]:
    """Which state of the run folder a score file belongs to; cheaper to compare than pictures."""
    return {"fingerprint": run.manifest.fingerprint, "finished": run.manifest.finished}


def hash_files(paths: Iterable[Path]) -> str:
    """SHA-256 over the names and contents of files; a missing one is named."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise TraceBenchError(f"{path} cannot be read ({error.strerror}): {AGAIN}.") from error
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(content).digest())
    return digest.hexdigest()


def score_run(metric: Metric, run: Run, force: bool = False) -> bool:
    """Bring the score file up to date; returns whether anything had to be computed."""
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
    known = not force and stored.get("inputs") == inputs and stored.get("schema_version") == SCHEMA_VERSION
    if known and stored.get("run") == of_run:
        return False
    if known:  # the run was made again and came out the same
        write_json(path, stored | {"run": of_run})
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
    write_json(path, content)
    return True


def _stored(path: Path) -> dict[str, Any]:
    """What a score file says; nothing where it is missing or broken (it is only a cache)."""
    try:
        content = read_json(path)
    except TraceBenchError:
        return {}
    return content if isinstance(content, dict) else {}


def finite(value: float | None, digits: int = 6) -> float | None:
    """A plain float for JSON, rounded; None for what is not a number."""
    value = math.nan if value is None else float(value)
    return round(value, digits) if math.isfinite(value) else None
