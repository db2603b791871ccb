"""Display names of methods and representations: the `display_name` of their YAML, or the declared name of an
external asset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pandas as pd
from omegaconf import OmegaConf

from trace_bench.system.config_path import conf_dir


def display_names(runs: pd.DataFrame | None = None) -> dict[str, dict[str, str]]:
    """{"method": {"sds": "SDS", ...}, "representation": {...}}; the fallback is the file name.

    runs: the frame of runs, for the names of external assets and of your own methods and representations.
    """
    names: dict[str, dict[str, str]] = {}
    for group in ("method", "representation"):
        files = sorted((Path(conf_dir()) / group).glob("*.yaml"))
        names[group] = {path.stem: _named(path, path.stat().st_mtime_ns) for path in files}
    names["representation"] |= {"mesh": "Mesh", "renders": "Pictures"}
    for group in names if runs is not None else ():
        names[group] = _own(runs, group) | names[group]
    if runs is not None and "display_name" in runs:
        contestants = runs.dropna(subset=["display_name"])
        names["method"] |= dict(
            zip(contestants["method"].astype(str), contestants["display_name"], strict=True)
        )
    return {group: _told_apart(found) for group, found in names.items()}


@cache
def _named(path: Path, _changed: int) -> str:
    return str(OmegaConf.select(OmegaConf.load(path), "display_name") or path.stem)


def _own(runs: pd.DataFrame, group: str) -> dict[str, str]:
    """Names of methods or representations of your own: their YAML is not in conf/, but the runs have them."""
    column = f"{group}_name"
    if column not in runs:
        return {}
    named = runs.dropna(subset=[column])
    return dict(zip(named[group].astype(str), named[column].astype(str), strict=True))


def _told_apart(names: Mapping[str, str]) -> dict[str, str]:
    """The names; duplicates get the file's name or the asset's folder in parentheses."""
    counts = Counter(names.values())
    return {key: name if counts[name] == 1 else f"{name} ({key})" for key, name in names.items()}
