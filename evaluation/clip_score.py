"""CLIP score of the renders against the prompt, and which of a declared list of captions fits them best.

    cos_i      = cosine of the image embedding of view i and the text embedding of the bare prompt
    clip_score = mean over views of 100 * max(cos_i, 0)         (Hessel et al. 2021, without the factor 2.5 and the prefix)
    clip_rank  = 1 + number of other captions whose mean cosine over the views is higher than the prompt's
    recognised = clip_rank is 1
    r_precision = share of views for which the prompt itself fits best  (Poole et al. 2023)

The prompt competes with the first captions of its model's list that are not itself; a model without a list gives the
CLIP score only. Which model judges a run follows from the run's prior (`by_prior` in conf/metric/clip_score.yaml).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from evaluation.metric import Metric, Quantity, Score, finite
from evaluation.renders import chosen_views, open_rgb
from evaluation.runs import Run
from trace_bench.errors import TraceBenchError

if TYPE_CHECKING:
    from evaluation.clip_model import ClipModel


class ClipScore(Metric):
    name: ClassVar[str] = "clip_score"
    version: ClassVar[str] = "1"
    citation: ClassVar[str] = "Hessel et al. 2021, CLIPScore; Radford et al. 2021, CLIP; Ilharco et al. 2021, OpenCLIP"
    quantities: ClassVar[tuple[Quantity, ...]] = (
        Quantity("clip_score", "CLIP", "100 max(cos, 0), mean over views", True, 1),
        Quantity("recognised", "Recognised", "own caption ranked first by CLIP among the list's captions", True, 0, "count"),
    )

    def __init__(
        self,
        models: Mapping[str, Mapping[str, Any]],
        by_prior: Mapping[str, str],
        default: str | None = None,
        views: int = 120,
        batch_size: int = 64,
        device: str = "auto",
    ) -> None:
        unknown = {name for name in [*by_prior.values(), default] if name is not None and name not in models}
        if unknown:
            raise TraceBenchError(
                f"metrics.clip_score names the model {', '.join(sorted(unknown))}, but its models are {', '.join(models)}."
            )
        if views < 1 or batch_size < 1:
            raise TraceBenchError("metrics.clip_score needs views >= 1 and batch_size >= 1.")
        self.models = {name: dict(model) for name, model in models.items()}
        self.by_prior, self.default = dict(by_prior), default
        self.views, self.batch_size, self.device = views, batch_size, device
        self._loaded: dict[str, ClipModel] = {}

    def applies(self, run: Run) -> bool:
        return self._model_name(run) is not None

    def files(self, run: Run) -> list[Path]:
        return [run.rgb(view) for view in chosen_views(run, self.views)]

    def weights(self, run: Run) -> str:
        return self._model(run).weights_hash

    def settings(self, run: Run) -> dict[str, Any]:
        """What a score depends on; where it is computed and in which batches is not among it."""
        model = self.models[str(self._model_name(run))]
        return {"views": self.views, "model": model["model"], "pretrained": model.get("pretrained")} | {
            "captions": hashlib.sha256(json.dumps(list(model.get("captions") or [])).encode()).hexdigest()
        }

    def score(self, run: Run) -> Score:
        model = self._model(run)
        views = chosen_views(run, self.views)
        images = model.embed_images([open_rgb(run, view) for view in views], self.batch_size)  # [V, D]
        captions = self._captions(run)
        cosines = images @ model.embed_texts([run.prompt, *captions]).T  # [V, 1 + captions]
        own = cosines[:, 0]
        rows = [
            {"view": view, "azimuth_deg": finite(run.cameras[view]["azimuth_deg"], 4), "cosine": finite(cosine)}
            for view, cosine in zip(views, own, strict=True)
        ]
        values: dict[str, float | None] = {"clip_score": finite(float(np.mean(100.0 * np.maximum(own, 0.0))), 4)}
        details: dict[str, Any] = {"model": model.name, "formula": "mean over views of 100 * max(cos, 0)"}
        if captions:
            mean = cosines.mean(axis=0)
            rank = 1 + int((mean[1:] > mean[0]).sum())
            first = cosines.argmax(axis=1) == 0
            values |= {"clip_rank": rank, "recognised": int(rank == 1), "r_precision": finite(float(first.mean()))}
            details |= {"captions": 1 + len(captions), "taken_for": [run.prompt, *captions][int(mean.argmax())]}
            rows = [row | {"first": bool(one)} for row, one in zip(rows, first, strict=True)]
        return Score(values, rows, details)

    def _captions(self, run: Run) -> Sequence[str]:
        """The captions that compete with the run's prompt: the list's length less one, whether it holds the prompt or not."""
        listed = list(self.models[str(self._model_name(run))].get("captions") or [])
        others = [caption for caption in listed if caption != run.prompt]
        return others[: len(listed) - 1]

    def _model_name(self, run: Run) -> str | None:
        return self.by_prior.get(run.identity.prior, self.default)

    def _model(self, run: Run) -> ClipModel:
        from evaluation.clip_model import ClipModel

        name = str(self._model_name(run))
        if name not in self._loaded:
            wanted = {key: value for key, value in self.models[name].items() if key != "captions"}
            self._loaded[name] = ClipModel(name, **wanted, device=self.device)
        return self._loaded[name]
