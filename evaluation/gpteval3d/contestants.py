"""Who plays: methods with their finished runs, or published methods with their folders of renders."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from evaluation.metrics.base import hash_files
from evaluation.results.aggregate import ROW, SETTINGS
from evaluation.results.variants import add_variants
from trace_bench.run_folder.reading import Run, natural
from trace_bench.system.errors import TraceBenchError

_RGB = re.compile(r"rgb_(\d+)\.png")


@dataclass(frozen=True)
class Asset:
    """The renders of one asset: rgb_<i>.png and normal_<i>.png in a folder."""

    folder: Path
    run: Run | None = None  # None for a published one

    def views(self) -> int:
        """How many there are, counted from 0 without a gap."""
        try:
            numbers = {int(m[1]) for entry in os.scandir(self.folder) if (m := _RGB.fullmatch(entry.name))}
        except OSError as error:
            raise TraceBenchError(f"{self.folder} cannot be read ({error.strerror}).") from error
        count = len(numbers)
        if not count or numbers != set(range(count)):
            raise TraceBenchError(f"{self.folder} must hold rgb_0.png to rgb_<n>.png without a gap.")
        return count

    def pictures(self, views: Sequence[int], rgb: bool, normal: bool) -> list[Path]:
        """The files of a question, colours before normals."""
        kinds = ["rgb"] * rgb + ["normal"] * normal
        return [self.folder / f"{kind}_{view}.png" for kind in kinds for view in views]


@dataclass(frozen=True)
class Contestant:
    """One row of the table: a method with a representation and settings, and its assets by prompt id."""

    name: str
    method: str
    representation: str | None
    settings: dict[str, Any]
    assets: dict[str, Asset] = field(repr=False)

    def describe(self) -> dict[str, Any]:
        return {"method": self.method, "representation": self.representation, "settings": self.settings}


@dataclass(frozen=True)
class Field:
    """Everybody, and the prompts that at least two of them have."""

    prompt_set: str
    prior: str
    contestants: list[Contestant]
    prompts: dict[str, str]  # id -> text

    @property
    def name(self) -> str:
        return f"{self.prompt_set}-{self.prior}"


def find_field(runs: Sequence[Run], root: Path, wanted: Mapping[str, Any]) -> Field:
    """The contestants among finished runs; `wanted` is the node `runs` of the config."""
    rows = [asdict(run.identity) | {"run": run} for run in runs if run.manifest.status == "done"]
    if not rows:
        raise TraceBenchError(
            f"There are no finished runs under {root}: make some with `python -m trace_bench`."
        )
    frame = pd.DataFrame(rows)
    frame = frame[frame["prompt_id"].str.isdecimal()]  # texts of the user's own belong to no set
    if frame.empty:
        raise TraceBenchError(
            f"All finished runs under {root} are of texts of your own, which belong to no set."
        )
    if wanted["seed"] is None:
        raise TraceBenchError("runs.seed must be a number: one asset of each contestant and prompt plays.")
    for key in ("prompt_set", "prior", "method", "representation"):
        frame = _narrow(frame, key, wanted.get(key))
    for key in ("prompt_set", "prior"):
        if frame[key].nunique() > 1:
            choices = ", ".join(sorted(frame[key].unique()))
            raise TraceBenchError(
                f"The runs have several values of {key}: name one with runs.{key}=..., of {choices}."
            )
    frame = _narrow(frame, "seed", wanted["seed"])
    frame = frame.assign(
        folder=[run.folder.relative_to(root).as_posix() for run in frame["run"]],
        fingerprint=[run.manifest.fingerprint for run in frame["run"]],
    )
    frame = add_variants(frame, root)
    texts = {str(row.prompt_id): str(row.prompt) for row in frame.itertuples()}
    prompts = {key: texts[key] for key in sorted(texts, key=natural)}
    if limit := wanted.get("prompts"):
        prompts = dict(list(prompts.items())[: int(limit)])
    contestants = _group(frame, prompts)
    return Field(str(frame["prompt_set"].iloc[0]), str(frame["prior"].iloc[0]), contestants, prompts)


def _narrow(frame: pd.DataFrame, key: str, wanted: Any) -> pd.DataFrame:
    """The rows with a wanted value, or one of several."""
    if wanted is None:
        return frame
    values = list(wanted) if isinstance(wanted, list | tuple) else [wanted]
    found = frame[frame[key].isin(values)]
    if found.empty:
        there = ", ".join(str(v) for v in sorted(frame[key].unique())) or "none"
        raise TraceBenchError(f"No finished run has {key} {', '.join(map(str, values))}; there are {there}.")
    return found


def _group(frame: pd.DataFrame, prompts: Mapping[str, str]) -> list[Contestant]:
    """One contestant a method, representation, and setting that tells apart runs of these two."""
    plain = frame.groupby("method")["representation"].nunique().max() == 1
    contestants = []
    for (method, representation), runs in frame.groupby(ROW, sort=True):
        settings = [name for name in SETTINGS if runs[name].nunique(dropna=False) > 1]
        parts = runs.groupby(settings, sort=True, dropna=False) if settings else [((), runs)]
        for values, part in parts:
            told = {name: _plain(value) for name, value in zip(settings, values, strict=True)}
            words = [f"{name}={value}" for name, value in told.items() if value not in (None, "")]
            contestants.append(
                Contestant(
                    " ".join([method if plain else f"{method}/{representation}", *words]),
                    method,
                    representation,
                    told,
                    _assets(part, prompts),
                )
            )
    return contestants


def _assets(part: pd.DataFrame, prompts: Mapping[str, str]) -> dict[str, Asset]:
    """Renders by prompt id."""
    return {
        str(id_): Asset(run.folder / "renders", run)
        for id_, run in zip(part["prompt_id"], part["run"], strict=True)
        if id_ in prompts
    }


def _plain(value: Any) -> Any:
    """A JSON value; None for what is missing."""
    if pd.isna(value):
        return None
    return value.item() if hasattr(value, "item") else value


def published_contestant(name: str, folder: Path, prompts: Mapping[str, str]) -> Contestant:
    """A method of the published tournament; only its seed folder 0 plays."""
    assets = {id_: Asset(folder / id_ / "0") for id_ in prompts if (folder / id_ / "0").is_dir()}
    return Contestant(name, name, None, {}, assets)


class PictureHashes:
    """SHA-256 of pictures, each file read once."""

    def __init__(self) -> None:
        self._known: dict[Path, str] = {}

    def __call__(self, paths: Sequence[Path]) -> list[str]:
        for path in paths:
            if path not in self._known:
                self._known[path] = hash_files([path])
        return [self._known[path] for path in paths]
