"""A question to the judge: a left and a right asset, a kind of question, and the key of its answer."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.gpteval3d import mosaic
from evaluation.gpteval3d.contestants import Contestant, JudgedAsset, PictureHashes
from evaluation.gpteval3d.instructions import prompt_part
from evaluation.gpteval3d.plan import Comparison, Ensemble
from evaluation.gpteval3d.published import closing
from trace_bench.system.errors import TraceBenchError


@dataclass(frozen=True)
class Question:
    """The content of one request; a comparison in both orders is two questions."""

    key: str  # SHA-256 of everything the answer depends on
    comparison: int  # index in the plan
    left: str  # contestants' names
    right: str
    prompt_id: str
    prompt: str
    ensemble: Ensemble
    instruction: str
    assets: tuple[JudgedAsset, JudgedAsset]
    verbatim: bool = False  # worded as the published program does, the text prompt in the instruction

    def texts(self) -> list[str]:
        """The text parts of the request."""
        if self.verbatim:
            return [self.instruction + closing(self.prompt)]
        return [self.instruction, prompt_part(self.prompt)]

    def picture(self, tile_px: int) -> bytes:
        """PNG."""
        ensemble = self.ensemble
        left, right = (_pictures(asset, ensemble) for asset in self.assets)
        return mosaic.png(mosaic.draw(left, right, ensemble.views, tile_px))

    def messages(self, tile_px: int, detail: str) -> list[dict[str, Any]]:
        """Chat messages: the texts, the picture."""
        url = "data:image/png;base64," + base64.b64encode(self.picture(tile_px)).decode()
        picture = {"url": url} if self.verbatim and detail == "auto" else {"url": url, "detail": detail}
        texts = [{"type": "text", "text": text} for text in self.texts()]
        return [{"role": "user", "content": [*texts, {"type": "image_url", "image_url": picture}]}]


def _pictures(asset: JudgedAsset, ensemble: Ensemble) -> list[Any]:
    there = asset.views()
    if there < ensemble.views:
        raise TraceBenchError(
            f"{asset.folder} has {there} view{'s' if there != 1 else ''}, but a question shows "
            f"{ensemble.views}: exclude such runs (runs.representation=...), or define your own ensembles."
        )
    return asset.pictures(mosaic.view_ids(there, ensemble.views), ensemble.rgb, ensemble.normal)


def make_questions(
    comparisons: Sequence[Comparison],
    contestants: Mapping[str, Contestant],
    prompts: Mapping[str, str],
    ensembles: Sequence[Ensemble],
    instructions: Mapping[Ensemble, str],
    judge: str,
    both_orders: bool,
    verbatim: bool = False,
) -> list[Question]:
    """The questions of a plan for one judge (given by its identity hash)."""
    hashes, questions = PictureHashes(), []
    for i, comparison in enumerate(comparisons):
        ensemble = ensembles[comparison.ensemble]
        sides = [(comparison.left, comparison.right), (comparison.right, comparison.left)]
        for left, right in sides if both_orders else sides[:1]:
            assets = (
                contestants[left].assets[comparison.prompt_id],
                contestants[right].assets[comparison.prompt_id],
            )
            identity = {
                "judge": judge,
                "instruction": instructions[ensemble],
                "prompt": prompts[comparison.prompt_id],
                "criteria": ensemble.criteria,
                "views": ensemble.views,
                "left": hashes(_pictures(assets[0], ensemble)),
                "right": hashes(_pictures(assets[1], ensemble)),
            }
            key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
            questions.append(
                Question(
                    key, i, left, right, comparison.prompt_id, prompts[comparison.prompt_id], ensemble,
                    instructions[ensemble], assets, verbatim,
                )
            )  # fmt: skip
    return questions
