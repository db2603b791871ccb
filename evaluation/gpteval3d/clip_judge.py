"""judge=clip: the asset with the higher CLIP score wins. Offline and free.

The score comes from `evaluation.score`, over all views. Every order and every kind of question gives the same
verdict, so a pair is compared once per prompt. It measures text-asset alignment only and judges no other
criterion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.gpteval3d.contestants import Contestant, JudgedAsset
from evaluation.gpteval3d.settings import folder_name
from evaluation.metrics.base import Metric, score_path, score_run
from trace_bench.run_folder.reading import read_json
from trace_bench.system.errors import TraceBenchError


class ClipJudge:
    """Compares by the metric clip_score, after updating it in the run folders."""

    def __init__(self, metric: Metric, tie_margin: float) -> None:
        if not tie_margin >= 0:
            raise TraceBenchError(f"judge.tie_margin={tie_margin} must not be negative.")
        self._metric, self._margin = metric, tie_margin
        self._scores: dict[Path, float] = {}
        self.identity: dict[str, Any] = {}
        self.model = ""

    def prepare(self, contestants: Sequence[Contestant]) -> None:
        """Score every asset; raises if runs need different CLIP models."""
        for contestant in contestants:
            for asset in contestant.assets.values():
                self._score(asset)

    def _score(self, asset: JudgedAsset) -> None:
        run = asset.run
        if run is None or not self._metric.applies(run):
            raise TraceBenchError(
                f"judge=clip has no CLIP model for {asset.folder}: see conf/metric/clip_score.yaml."
            )
        score_run(self._metric, run)
        content = read_json(score_path(run, self._metric.name))
        inputs = {key: content["inputs"][key] for key in ("version", "weights", "settings")}
        identity = inputs | {"tie_margin": self._margin}
        if self.identity not in ({}, identity):
            raise TraceBenchError(
                "These runs are scored by different CLIP models: choose one prior with runs.prior=..."
            )
        self.identity, self.model = identity, str(content["details"].get("model", ""))
        self._scores[asset.folder] = float(content["values"]["clip_score"])

    @property
    def folder(self) -> str:
        return folder_name("clip", self.identity)

    def compare(self, left: JudgedAsset, right: JudgedAsset) -> int:
        """-1 left wins, 1 right wins, 0 if they differ by no more than the margin."""
        difference = self._scores[right.folder] - self._scores[left.folder]
        return 0 if abs(difference) <= self._margin else (1 if difference > 0 else -1)

    def describe(self) -> Mapping[str, Any]:
        name = self.model.removeprefix("local-dir:").rstrip("/").rsplit("/", 1)[-1]
        return {"kind": "clip", "name": f"CLIP score ({name})", "instructions": None, **self.identity}
