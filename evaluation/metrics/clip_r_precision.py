"""CLIP R-Precision: how often CLIP finds an asset's own prompt among all prompts of its set.

    r_precision = 100 x share of the views whose nearest text is the prompt (or 100 or 0 for the mean of the
                  views' cosines); a tie is no hit. Chance is 100 / texts.

Dream Fields (Jain et al. 2022) takes one view and 153 captions, Cap3D (Luo et al. 2023) eight views and the
captions of all objects: numbers compare only with the same texts, views and model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import yaml

from evaluation.metrics.base import Metric, Quantity, Score, finite
from evaluation.metrics.renders import chosen_views, open_rgb
from evaluation.metrics.retrieval import AGGREGATES, r_precision
from trace_bench.rewards.clip_model import ClipModel
from trace_bench.run_folder.reading import Run
from trace_bench.settings.prompts import load_prompt_set
from trace_bench.system.errors import UNREADABLE, TraceBenchError, Unavailable

PROMPT_SET = "prompt_set"


class ClipRPrecision(Metric):
    """
    Args:
        models: the first and the second judge, as settings of ClipModel by their names.
        by_prior: for runs of a prior, one model of `only` instead of both.
        only: models for `by_prior`.
        captions: `prompt_set`, the file of a list of texts (one per line), or the texts.
        views: evenly spaced views, starting at the front.
        aggregate: `view` counts each view; `mean` ranks the mean cosine of all views.
    """

    name: ClassVar[str] = "clip_r_precision"
    version: ClassVar[str] = "1"
    citation: ClassVar[str] = (
        "Jain et al. 2022, Dream Fields; Luo et al. 2023, Cap3D; Radford et al. 2021, CLIP"
    )
    quantities: ClassVar[tuple[Quantity, ...]] = (
        Quantity(
            "r_precision_first",
            "R-Prec",
            "views whose nearest text is the prompt, %; chance is 100 / captions",
            True,
            1,
        ),
        Quantity(
            "r_precision_second", "R-Prec L/14", "the same with CLIP ViT-L/14, %", True, 1, partial=True
        ),
    )

    def __init__(
        self,
        models: Mapping[str, Mapping[str, Any]],
        by_prior: Mapping[str, str],
        only: Mapping[str, Mapping[str, Any]],
        captions: str | Sequence[str] = PROMPT_SET,
        views: int = 120,
        aggregate: str = "view",
        batch_size: int = 64,
        device: str = "auto",
    ) -> None:
        if aggregate not in AGGREGATES:
            raise TraceBenchError(
                f"metrics.clip_r_precision.aggregate={aggregate} is invalid: use {' or '.join(AGGREGATES)}."
            )
        if len(models) != 2:
            raise TraceBenchError(
                "metrics.clip_r_precision.models needs two models, the first and the second."
            )
        if lacking := set(by_prior.values()) - set(only):
            raise TraceBenchError(
                f"metrics.clip_r_precision.by_prior names {min(lacking)}, which `only` does not have."
            )
        if views < 1 or batch_size < 1:
            raise TraceBenchError("metrics.clip_r_precision needs views >= 1 and batch_size >= 1.")
        self.models, self.only = (
            {n: dict(m) for n, m in models.items()},
            {n: dict(m) for n, m in only.items()},
        )
        self.by_prior, self.captions = dict(by_prior), captions
        self.views, self.aggregate = views, aggregate
        self.batch_size, self.device = batch_size, device
        self._loaded: dict[str, ClipModel] = {}
        self._sets: dict[tuple[str, str | None], tuple[str, ...]] = {}
        self._missing: dict[str, Unavailable] = {}

    def files(self, run: Run) -> list[Path]:
        return [run.rgb(view) for view in chosen_views(run, self.views)]

    def weights(self, run: Run) -> str:
        names = self._names(run)
        key = ",".join(names)
        if key in self._missing:
            raise self._missing[key]
        try:
            hashes = [self._model(name).weights_hash for name in names]
        except Unavailable as error:
            self._missing[key] = error
            raise
        return hashlib.sha256("".join(hashes).encode()).hexdigest()

    def settings(self, run: Run) -> dict[str, Any]:
        texts = hashlib.sha256(json.dumps(list(self._candidates(run))).encode()).hexdigest()
        declared = {name: self._declared(name) for name in self._names(run)}
        return {"models": declared, "views": self.views, "aggregate": self.aggregate, "texts": texts}

    def score(self, run: Run) -> Score:
        views = chosen_views(run, self.views)
        pictures = [open_rgb(run.rgb(view)) for view in views]
        texts = self.texts(run)
        found: list[float | None] = []
        rows: list[dict[str, Any]] = [
            {"view": view, "azimuth_deg": finite(run.cameras[view]["azimuth_deg"], 4)} for view in views
        ]
        for name in self._names(run):
            model = self._model(name)
            cosines = model.embed_images(pictures, self.batch_size) @ model.embed_texts(texts).T  # [V, N]
            found.append(finite(100.0 * r_precision(cosines, self.aggregate), 4))
            for row, own in zip(rows, cosines, strict=True):
                row[f"first_{name}"] = bool((own[0] > own[1:]).all())
        values = {q.name: found[i] if i < len(found) else None for i, q in enumerate(self.quantities)}
        details = {
            "model": " and ".join(self._model(name).name for name in self._names(run)),
            "captions": len(texts),
            "chance_percent": finite(100.0 / len(texts), 4),
            "aggregate": self.aggregate,
        }
        lacking = tuple(q.name for q in self.quantities[len(found) :])
        return Score(values, rows, details, inapplicable=lacking)

    def texts(self, run: Run) -> list[str]:
        """The run's own prompt, then the other candidates without repetition."""
        return list(dict.fromkeys([run.prompt, *self._candidates(run)]))

    def _candidates(self, run: Run) -> Sequence[str]:
        if isinstance(self.captions, str) and self.captions != PROMPT_SET:
            return self._listed
        if not isinstance(self.captions, str):
            return list(self.captions)
        name = run.identity.prompt_set
        sha256 = run.manifest.prompt_source.get("sha256")
        if (name, sha256) not in self._sets:
            self._sets[name, sha256] = _prompts(run, sha256)
        return self._sets[name, sha256]

    @cached_property
    def _listed(self) -> list[str]:
        path = Path(str(self.captions)).expanduser()
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise TraceBenchError(
                f"metrics.clip_r_precision.captions={path} cannot be read ({error}); use "
                "prompt_set, or a text file with one caption per line."
            ) from error
        texts = [line.strip() for line in lines if line.strip()]
        if len(texts) < 2:
            raise TraceBenchError(f"metrics.clip_r_precision.captions={path} has fewer than two captions.")
        return texts

    def _names(self, run: Run) -> list[str]:
        alone = self.by_prior.get(run.identity.prior)
        return list(self.models) if alone is None else [alone]

    def _declared(self, name: str) -> dict[str, Any]:
        return self.models.get(name) or self.only[name]

    def _model(self, name: str) -> ClipModel:
        if name not in self._loaded:
            group = "models" if name in self.models else "only"
            self._loaded[name] = ClipModel(
                name, **self._declared(name), device=self.device,
                setting=f"metrics.clip_r_precision.{group}.{name}",
            )  # fmt: skip
        return self._loaded[name]


def _prompts(run: Run, sha256: str | None) -> tuple[str, ...]:
    """The texts of the run's prompt set, which its config.yaml describes; a file must be the one it had."""
    name, path = run.identity.prompt_set, run.folder / "config.yaml"
    otherwise = "set metrics.clip_r_precision.captions=FILE."
    try:
        declared = yaml.safe_load(path.read_text(encoding="utf-8"))["prompt_set"]
        prompt_set = load_prompt_set(name, dict(declared))
    except TraceBenchError as error:
        raise Unavailable(
            f"The prompts of prompt_set={name} are not at hand: {error} Or {otherwise}"
        ) from error
    except (OSError, yaml.YAMLError, *UNREADABLE, TypeError, KeyError) as error:
        raise Unavailable(f"{path} does not say the prompts of prompt_set={name}: {otherwise}") from error
    if sha256 is not None and prompt_set.sha256 != sha256:
        raise Unavailable(f"prompt_set={name} has another file now than the runs had: {otherwise}")
    return tuple(prompt.text for prompt in prompt_set.prompts)
