"""judge=truth: the six criteria decided by the known true object of a toy prompt.

Each criterion is a number in [0, 1] made of numbers of the metric ground_truth, and the asset with the
larger one wins. M is the match, I the soft IoU, I_min the soft IoU of the worst view, H the high frequencies
over the true ones, N the normal error in degrees, J the Janus number:

    text-asset alignment      M: the right colour in the right place
    3D plausibility           I_min (1 - J): one body from every side, and one front
    text-geometry alignment   C = M / I: the right colour where the shape is right
    texture details           C min(H, 1 / H): the right colours with as much fine detail as the true object
    geometry details          1 - N / 90 (0 from 90 degrees on)
    overall                   the majority of the five verdicts, else a draw

J is 0 for an object without a front, and 1 for an asset that lacks the front its object has. An empty asset
has 0 everywhere. Two numbers that differ by at most `judge.tie_margin` are a draw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from evaluation.gpteval3d.contestants import JudgedAsset
from evaluation.gpteval3d.criteria import CRITERIA
from evaluation.gpteval3d.score_judge import ScoreJudge

FIVE, OVERALL = CRITERIA[:5], CRITERIA[5]


class TruthJudge(ScoreJudge):
    kind: ClassVar[str] = "truth"
    metric: ClassVar[str] = "ground_truth"
    how: ClassVar[str] = "decided by the known true object (rules: docs/gpteval3d.md)"

    def numbers(self, score: Mapping[str, Any]) -> dict[str, float]:
        values = score["values"]
        match, iou = values["match"] or 0.0, values["soft_iou"] or 0.0
        worst = min((row["soft_iou"] or 0.0 for row in score["rows"]), default=0.0)
        faces = 1.0 if values.get("no_front") else float(values.get("janus") or 0.0)
        colour = match / iou if iou > 0 else 0.0
        detail = values["high_frequency"] or 0.0
        normal = 90.0 if values["normal_error"] is None else float(values["normal_error"])
        found = (
            match,
            worst * (1.0 - faces),
            colour,
            colour * min(detail, 1.0 / detail) if detail > 0 else 0.0,
            max(0.0, 1.0 - normal / 90.0),
        )
        return dict(zip(FIVE, found, strict=True))

    def compare(self, left: JudgedAsset, right: JudgedAsset, criteria: Sequence[str]) -> tuple[int, ...]:
        verdicts = dict(zip(FIVE, super().compare(left, right, FIVE), strict=True))
        wins = sum(verdicts.values())
        verdicts[OVERALL] = (wins > 0) - (wins < 0)
        return tuple(verdicts[name] for name in criteria)

    def missing(self, folder: Path) -> str:
        return (
            f"judge=truth knows no true object for {folder}: it judges prompts of the toy world, and assets "
            "with several views."
        )

    @property
    def name(self) -> str:
        return "the truth"
