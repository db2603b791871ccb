"""Contestants: methods with finished runs, or published methods with render folders."""

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
from trace_bench.run_folder.reading import Run, natural, one_per_asset
from trace_bench.system.errors import TraceBenchError

_RGB = re.compile(r"rgb_(\d+)\.png")


@dataclass(frozen=True)
class JudgedAsset:
    """The renders of one asset: rgb_<i>.png and normal_<i>.png in a folder."""

    folder: Path
    run: Run | None = None  # None for a published asset

    def views(self) -> int:
        """Number of views; they must be numbered from 0 without gaps."""
        try:
            numbers = {int(m[1]) for entry in os.scandir(self.folder) if (m := _RGB.fullmatch(entry.name))}
        except OSError as error:
            raise TraceBenchError(f"{self.folder} cannot be read ({error.strerror}).") from error
        count = len(numbers)
        if not count or numbers != set(range(count)):
            raise TraceBenchError(f"{self.folder} must hold rgb_0.png to rgb_<n>.png without gaps.")
        return count

    def pictures(self, views: Sequence[int], rgb: bool, normal: bool) -> list[Path]:
        """The picture files of a question, colours before normals."""
        kinds = ["rgb"] * rgb + ["normal"] * normal
        return [self.folder / f"{kind}_{view}.png" for kind in kinds for view in views]


@dataclass(frozen=True)
class Contestant:
    """One row of the table: method, representation and settings, with its assets by prompt id."""

    name: str
    method: str
    representation: str | None
    settings: dict[str, Any]
    assets: dict[str, JudgedAsset] = field(repr=False)

    def maximises(self, metric: str) -> bool:
        """Whether the method of any of its runs maximised what this metric shows."""
        runs = (asset.run for asset in self.assets.values())
        return any(run is not None and metric in run.manifest.reward.get("metrics", ()) for run in runs)

    def describe(self) -> dict[str, Any]:
        return {"method": self.method, "representation": self.representation, "settings": self.settings}


@dataclass(frozen=True)
class Field:
    """All contestants, and the prompts that at least two of them share."""

    prompt_set: str
    prior: str
    contestants: list[Contestant]
    prompts: dict[str, str]  # id -> text

    @property
    def name(self) -> str:
        return f"{self.prompt_set}-{self.prior}"


def find_field(runs: Sequence[Run], root: Path, wanted: Mapping[str, Any]) -> Field:
    """Find the contestants among finished runs; `wanted` is the config node `runs`.

    Controls play only if `runs.method` names them.
    """
    named = wanted.get("method") or ()
    done = one_per_asset(
        run
        for run in runs
        if run.manifest.status == "done" and (not run.identity.is_control or run.identity.method in named)
    )
    rows = [asdict(run.identity) | {"run": run} for run in done]
    if not rows:
        raise TraceBenchError(
            f"There are no finished runs under {root}: start some with `python -m trace_bench`."
        )
    frame = pd.DataFrame(rows)
    frame = frame[frame["prompt_id"].str.isdecimal()]  # custom prompts belong to no set
    if frame.empty:
        raise TraceBenchError(
            f"All finished runs under {root} use custom prompts, which belong to no prompt set."
        )
    if wanted["seed"] is None:
        raise TraceBenchError("runs.seed must be a number: each contestant plays one asset per prompt.")
    for key in ("prompt_set", "prior", "method", "representation"):
        frame = _narrow(frame, key, wanted.get(key))
    for key in ("prompt_set", "prior"):
        if frame[key].nunique() > 1:
            choices = ", ".join(sorted(frame[key].unique()))
            raise TraceBenchError(
                f"The runs have several values of {key}: choose one with runs.{key}=... from {choices}."
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
    """The rows with the wanted value, or with one of several."""
    if wanted is None:
        return frame
    values = list(wanted) if isinstance(wanted, list | tuple) else [wanted]
    found = frame[frame[key].isin(values)]
    if found.empty:
        there = ", ".join(str(v) for v in sorted(frame[key].unique())) or "none"
        raise TraceBenchError(f"No finished run has {key} {', '.join(map(str, values))}; there are {there}.")
    return found


def _group(frame: pd.DataFrame, prompts: Mapping[str, str]) -> list[Contestant]:
    """One contestant per method, representation, and combination of settings that differ within them."""
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


def _assets(part: pd.DataFrame, prompts: Mapping[str, str]) -> dict[str, JudgedAsset]:
    """Renders by prompt id."""
    return {
        str(id_): JudgedAsset(run.folder / "renders", run)
        for id_, run in zip(part["prompt_id"], part["run"], strict=True)
        if id_ in prompts
    }


def _plain(value: Any) -> Any:
    """A JSON value; None if missing."""
    if pd.isna(value):
        return None
    return value.item() if hasattr(value, "item") else value


def published_contestant(name: str, folder: Path, prompts: Mapping[str, str]) -> Contestant:
    """A method of the published tournament; only seed folder 0 is used."""
    assets = {id_: JudgedAsset(folder / id_ / "0") for id_ in prompts if (folder / id_ / "0").is_dir()}
    return Contestant(name, name, None, {}, assets)


class PictureHashes:
    """SHA-256 of pictures; each file is read once."""

    def __init__(self) -> None:
        self._known: dict[Path, str] = {}

    def __call__(self, paths: Sequence[Path]) -> list[str]:
        for path in paths:
            if path not in self._known:
                self._known[path] = hash_files([path])
        return [self._known[path] for path in paths]
