"""Which runs may enter the leaderboard: from committed code, with known weights, all of one version."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

from evaluation.metrics.base import Metric
from scripts.leaderboard.rows import Board
from trace_bench.run_folder.reading import Run
from trace_bench.system.config_path import conf_dir
from trace_bench.system.errors import TraceBenchError

PROMPT_SET = "toy_bench"
#: Packages of which each row says its version; of the first two, all rows must share major and minor version.
PACKAGES = ("torch", "diffusers", "numpy")
_SHARED_PACKAGES = PACKAGES[:2]
_NAMES = {
    "trace_bench": "the version of trace_bench",
    "torch": "the version of torch",
    "diffusers": "the version of diffusers",
    "prior": "the prior's weights",
    "rig": "the evaluation cameras",
    "prompts": f"the prompts of {PROMPT_SET}",
    "metrics": "the versions of the metrics",
    "judges": "the weights or settings of the metrics",
}


def versions_of(runs: Sequence[Run], metrics: Mapping[str, Metric], weights: bool = True) -> dict[str, Any]:
    """What all rows of the leaderboard must share; raises if the runs do not.

    weights: False for assets that no prior made. A method with an adapter has other weights than one without,
    so `prior` has a hash of each kind.
    """
    shared: dict[str, Any] = {}
    for run in runs:
        about = run.manifest.environment
        if about.get("commit") is None or about.get("dirty") is not False:
            state = "an unknown commit" if about.get("commit") is None else "files with uncommitted changes"
            raise TraceBenchError(
                f"{run.folder} was made from {state}, so nobody could make it again: commit your changes "
                "in a git checkout, and run it again with force=true."
            )
        own = {
            "trace_bench": about.get("trace_bench"),
            **{name: _major_minor(run, name) for name in _SHARED_PACKAGES},
            "rig": run.manifest.rig,
            **({"prior": _weights(run)} if weights else {}),
        }
        for key, old, new in _differing(shared, own):
            raise TraceBenchError(
                f"{run.folder} and {runs[0].folder} differ in {_NAMES[key]} ({_short(new)} and "
                f"{_short(old)}), so they do not belong in one table; run one of them again with force=true."
            )
        shared = merged(shared, own)
    return shared | {
        "prompts": prompts_sha256(),
        "metrics": {name: metric.version for name, metric in metrics.items()},
    }


def prompts_sha256() -> str:
    """Of the prompts in their order, which ids refer to."""
    prompts = OmegaConf.load(Path(conf_dir()) / "prompt_set" / f"{PROMPT_SET}.yaml").prompt_set.prompts
    return hashlib.sha256("\n".join(prompts).encode()).hexdigest()


def provenance(runs: Mapping[str, Run]) -> dict[str, dict[str, str]]:
    """By folder, the columns that say which code made a row."""
    return {
        folder: {"commit": str(run.manifest.environment["commit"])[:12]}
        | {name: str(run.manifest.environment["packages"].get(name)) for name in PACKAGES}
        for folder, run in runs.items()
    }


def _major_minor(run: Run, package: str) -> str:
    version = run.manifest.environment.get("packages", {}).get(package)
    if not version:
        raise TraceBenchError(
            f"{run.folder} does not say its version of {package}; run it again with force=true."
        )
    return ".".join(str(version).split(".")[:2])


def _weights(run: Run) -> dict[str, str]:
    prior = run.manifest.prior
    if not prior.get("sha256"):
        raise TraceBenchError(
            f"{run.folder} does not say the sha256 of its prior's weights, so nobody could check it; "
            "run it again with a prior in a local folder or with a pinned revision."
        )
    kind = "with adapter" if "adapter_repo" in prior else "without adapter"
    return {kind: str(prior["sha256"])}


def merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Both; the prior's weights of the kinds that either has."""
    prior = {**old.get("prior", {}), **new.get("prior", {})}
    return {**old, **new, **({"prior": dict(sorted(prior.items()))} if prior else {})}


def _differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """(key, old, new) of what both have, but not equal."""
    for key in old.keys() & new.keys():
        one, other = old[key], new[key]
        if key == "prior":
            kind = next((kind for kind in one.keys() & other.keys() if one[kind] != other[kind]), None)
            if kind:
                yield key, one[kind], other[kind]
        elif one != other:
            yield key, *_parts(one, other)


def _parts(one: Any, other: Any) -> tuple[Any, Any]:
    """Of two mappings only the entries that differ."""
    if not (isinstance(one, Mapping) and isinstance(other, Mapping)):
        return one, other
    keys = [key for key in {**one, **other} if one.get(key) != other.get(key)]
    return {key: one.get(key) for key in keys}, {key: other.get(key) for key in keys}


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_short(part)}" for key, part in value.items())
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"


def check_versions(board: Board, versions: Mapping[str, Any]) -> None:
    """Raise if new rows and those of the file were made by different versions."""
    for key, old, new in _differing(board.versions, versions):
        raise TraceBenchError(
            f"The leaderboard has {_NAMES[key]} {_short(old)}, the new rows {_short(new)}: "
            "use the version of the file, or make all rows again with "
            "`python scripts/make_leaderboard.py --anew`."
        )


def judges_of(frame: pd.DataFrame, metrics: Mapping[str, Metric]) -> dict[str, str]:
    """The judge of each metric; raises unless every run has a score, all from one judge."""
    found = {}
    for name in metrics:
        column = frame[f"{name}_judge"]
        if column.isna().any():
            folder = frame.loc[column.isna(), "folder"].iloc[0]
            raise TraceBenchError(
                f"{int(column.isna().sum())} of {len(frame)} runs have no {name}, such as {folder}; "
                "`python -m evaluation.score` says why."
            )
        if column.nunique() > 1:
            raise TraceBenchError(
                f"{name} was computed with {column.nunique()} sets of weights or settings; "
                "score all runs with one."
            )
        found[name] = str(column.iloc[0])
    return found
