"""CLIP score of the renders and the prompt, and the rank of the prompt among a list of captions.

    cos_i      = cosine of the image embedding of view i and the text embedding of the bare prompt
    clip_score = mean over views of 100 * max(cos_i, 0)   (Hessel et al. 2021, without factor 2.5 and prefix)
    clip_rank  = 1 + number of other captions with a higher mean cosine over the views than the prompt
    recognised = clip_rank is 1
    r_precision = share of views with the prompt as the best caption   (Poole et al. 2023)

The prompt is ranked among its model's list of captions; a model without a list gives only the CLIP score. The
run's prior selects the model (`by_prior` in conf/metric/clip_score.yaml).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from evaluation.metrics.base import Metric, Quantity, Score, finite
from evaluation.metrics.renders import chosen_views, open_rgb
from trace_bench.run_folder.reading import Run
from trace_bench.system.errors import TraceBenchError, Unavailable

if TYPE_CHECKING:
    from trace_bench.rewards.clip_model import ClipModel


class ClipScore(Metric):
    name: ClassVar[str] = "clip_score"
    version: ClassVar[str] = "1"
    citation: ClassVar[str] = (
        "Hessel et al. 2021, CLIPScore; Radford et al. 2021, CLIP; Ilharco et al. 2021, OpenCLIP"
    )
    quantities: ClassVar[tuple[Quantity, ...]] = (
        Quantity("clip_score", "CLIP", "100 max(cos, 0), mean over views", True, 1),
        Quantity(
            "recognised",
            "Recognised",
            "own caption ranked first by CLIP among the list's captions",
            True,
            0,
            "count",
        ),
    )

    def __init__(
        self,
        models: Mapping[str, Mapping[str, Any]],
        by_prior: Mapping[str, str],
        default: str | None = None,
        batch_size: int = 64,
        device: str = "auto",
    ) -> None:
        unknown = {name for name in [*by_prior.values(), default] if name is not None and name not in models}
        if unknown:
            raise TraceBenchError(
                f"metrics.clip_score uses the model {', '.join(sorted(unknown))}, "
                f"but its models are {', '.join(models)}."
            )
        self.models: dict[str, dict[str, Any]] = {
            name: {"views": 120, "captions": []} | dict(model) for name, model in models.items()
        }
        if batch_size < 1 or any(model["views"] < 1 for model in self.models.values()):
            raise TraceBenchError("metrics.clip_score needs batch_size >= 1 and views >= 1 for every model.")
        self.by_prior, self.default = dict(by_prior), default
        self.batch_size, self.device = batch_size, device
        self._loaded: dict[str, ClipModel] = {}
        self._missing: dict[str, str] = {}

    left_out = "metrics.clip_score.by_prior has no model for their prior"

    def applies(self, run: Run) -> bool:
        return self.concerns(run.identity.prior)

    def concerns(self, prior: str) -> bool:
        return self.by_prior.get(prior, self.default) is not None

    def files(self, run: Run) -> list[Path]:
        return [run.rgb(view) for view in self._views(run)]

    def weights(self, run: Run) -> str:
        name = self._model_name(run)
        if name in self._missing:
            raise Unavailable(self._missing[name])
        try:
            return self._model(run).weights_hash
        except Unavailable as error:
            self._missing[name] = str(error)  # remembered: a failing download may take a minute
            raise

    def settings(self, run: Run) -> dict[str, Any]:
        """Everything the score depends on; device and batch size do not count."""
        declared = self.models[self._model_name(run)]
        captions = hashlib.sha256(json.dumps(list(declared["captions"])).encode()).hexdigest()
        return {key: declared.get(key) for key in ("model", "pretrained", "views")} | {"captions": captions}

    def score(self, run: Run) -> Score:
        model = self._model(run)
        views = self._views(run)
        images = model.embed_images([open_rgb(run.rgb(view)) for view in views], self.batch_size)  # [V, D]
        captions = self._captions(run)
        cosines = images @ model.embed_texts([run.prompt, *captions]).T  # [V, 1 + captions]
        own = cosines[:, 0]
        rows = [
            {
                "view": view,
                "azimuth_deg": finite(run.cameras[view]["azimuth_deg"], 4),
                "cosine": finite(cosine),
            }
            for view, cosine in zip(views, own, strict=True)
        ]
        values: dict[str, float | None] = {
            "clip_score": finite(float(np.mean(100.0 * np.maximum(own, 0.0))), 4)
        }
        details: dict[str, Any] = {
            "model": model.name,
            "formula": "mean over views of 100 * max(cos, 0)",
            "prompt_cut": model.is_cut(run.prompt),
        }
        if captions:
            mean = cosines.mean(axis=0)
            rank = 1 + int((mean[1:] > mean[0]).sum())
            first = cosines.argmax(axis=1) == 0
            values |= {
                "clip_rank": rank,
                "recognised": int(rank == 1),
                "r_precision": finite(float(first.mean())),
            }
            details |= {
                "captions": 1 + len(captions),
                "taken_for": [run.prompt, *captions][int(mean.argmax())],
            }
            rows = [row | {"first": bool(one)} for row, one in zip(rows, first, strict=True)]
        return Score(values, rows, details)

    def _captions(self, run: Run) -> Sequence[str]:
        """The captions the prompt is ranked against: one fewer than listed, whether or not it is listed."""
        listed = self.models[self._model_name(run)]["captions"]
        others = [caption for caption in listed if caption != run.prompt]
        return others[: len(listed) - 1]

    def _views(self, run: Run) -> list[int]:
        return chosen_views(run, self.models[self._model_name(run)]["views"])

    def _model_name(self, run: Run) -> str:
        return self.by_prior.get(run.identity.prior) or str(self.default)

    def _model(self, run: Run) -> ClipModel:
        from trace_bench.rewards.clip_model import ClipModel

        name = self._model_name(run)
        if name not in self._loaded:
            wanted = {
                key: value for key, value in self.models[name].items() if key not in {"captions", "views"}
            }
            self._loaded[name] = ClipModel(name, **wanted, device=self.device)
        return self._loaded[name]
