"""Judges that compare numbers of a metric: offline, free, and the same whichever asset is on the left.

Every order and every kind of question gives the same verdict, so a pair is compared once per prompt.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from evaluation.gpteval3d.contestants import Contestant, JudgedAsset
from evaluation.gpteval3d.criteria import CRITERIA
from evaluation.gpteval3d.settings import folder_name
from evaluation.metrics.base import Metric, score_path, score_run
from trace_bench.run_folder.reading import Run, read_json
from trace_bench.system.errors import TraceBenchError


class ScoreJudge(ABC):
    """The asset with the larger number wins a criterion. Scores missing in the run folders are made first."""

    kind: ClassVar[str]  # judge=<kind>
    metric: ClassVar[str]  # its name
    criteria: ClassVar[Sequence[str]] = CRITERIA  # that it can judge
    how: ClassVar[str]  # for captions: "won by ..."

    def __init__(self, metric: Metric, tie_margin: float) -> None:
        """`tie_margin`: numbers that differ by at most this are a draw."""
        if not tie_margin >= 0:
            raise TraceBenchError(f"judge.tie_margin={tie_margin} must not be negative.")
        self._metric, self.margin = metric, tie_margin
        self._numbers: dict[Path, dict[str, float]] = {}
        self.identity: dict[str, Any] = {}
        self.model = ""

    @abstractmethod
    def numbers(self, score: Mapping[str, Any]) -> dict[str, float]:
        """One number per criterion from the content of a score file; more is better."""

    @abstractmethod
    def missing(self, folder: Path) -> str:
        """Why the asset in a folder cannot be judged, and what helps, as one sentence."""

    @property
    @abstractmethod
    def name(self) -> str:
        """For tables and captions."""

    def can_judge(self, run: Run | None) -> bool:
        return run is not None and self._metric.applies(run)

    def refuse(self, criteria: Sequence[str]) -> None:
        """Raise for criteria that this judge cannot judge."""
        strange = [name for name in criteria if name not in self.criteria]
        if strange:
            raise TraceBenchError(
                f"judge={self.kind} cannot judge {strange[0]}: leave it out of ensembles, or use another "
                "judge."
            )

    def prepare(self, contestants: Sequence[Contestant]) -> None:
        """Score every asset; raises if an asset has no score, or if scores were made in different ways."""
        for contestant in contestants:
            for asset in contestant.assets.values():
                if asset.run is None or not self.can_judge(asset.run):
                    raise TraceBenchError(self.missing(asset.folder))
                self._numbers[asset.folder] = self._score(asset.run)

    def _score(self, run: Run) -> dict[str, float]:
        score_run(self._metric, run)
        content = read_json(score_path(run, self._metric.name))
        inputs = {key: content["inputs"][key] for key in ("version", "weights", "settings")}
        identity = inputs | {"tie_margin": self.margin}
        if self.identity not in ({}, identity):
            raise TraceBenchError(
                f"These runs are scored by different versions of {self._metric.name}: choose one prior with "
                "runs.prior=..."
            )
        self.identity, self.model = identity, str(content["details"].get("model", ""))
        return self.numbers(content)

    @property
    def folder(self) -> str:
        return folder_name(self.kind, self.identity)

    def compare(self, left: JudgedAsset, right: JudgedAsset, criteria: Sequence[str]) -> tuple[int, ...]:
        """For each criterion -1 if left wins, 1 if right wins, 0 if they differ by at most the margin."""
        ours, theirs = self._numbers[left.folder], self._numbers[right.folder]
        return tuple(verdict(ours[name], theirs[name], self.margin) for name in criteria)

    def describe(self) -> Mapping[str, Any]:
        return {"kind": self.kind, "name": self.name, "instructions": None, **self.identity}


def verdict(left: float, right: float, margin: float = 0.0) -> int:
    """-1 if left is larger by more than the margin, 1 if right is, else 0."""
    difference = right - left
    return 0 if abs(difference) <= margin else (1 if difference > 0 else -1)
