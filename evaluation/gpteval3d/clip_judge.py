"""judge=clip: the asset with the higher CLIP score wins.

The score comes from `evaluation.score`, over all views. It measures text-asset alignment only and judges no
other criterion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from evaluation.gpteval3d.criteria import CRITERIA
from evaluation.gpteval3d.score_judge import ScoreJudge


class ClipJudge(ScoreJudge):
    kind: ClassVar[str] = "clip"
    metric: ClassVar[str] = "clip_score"
    criteria: ClassVar[Sequence[str]] = CRITERIA[:1]
    how: ClassVar[str] = "won by the higher CLIP score (text-asset alignment only)"

    def numbers(self, score: Mapping[str, Any]) -> dict[str, float]:
        return {CRITERIA[0]: float(score["values"]["clip_score"])}

    def missing(self, folder: Path) -> str:
        return f"judge=clip has no CLIP model for {folder}: see conf/metric/clip_score.yaml."

    @property
    def name(self) -> str:
        model = self.model.removeprefix("local-dir:").rstrip("/").rsplit("/", 1)[-1]
        return f"CLIP score ({model})"
