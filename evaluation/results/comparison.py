"""Two sides of a comparison: choosing their runs, matching them, and what differs between them."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from evaluation.metrics.base import Metric
from evaluation.results.aggregate import SETTINGS
from evaluation.results.collect import Results, collect
from evaluation.results.variants import flat_config
from trace_bench.run_folder.index import read_index
from trace_bench.system.errors import TraceBenchError

#: What a side can name: method=sds,guidance_scale=7.5
KEYS = ("method", "representation", "prompt_set", "prior", "seed", *SETTINGS)
_MATCHED = ("method", "representation", "prompt_set", "prior")
#: Settings that say where a method comes from, not what it does.
_ABOUT = ("method.citation", "method.display_name", "method.paper", "method.reference", "method._target_",
          "representation.display_name", "representation.citation")  # fmt: skip
_MACHINE = ("trace_bench", "commit", "python", "platform", "cpu", "gpu", "cuda", "device")


@dataclass(frozen=True)
class Side:
    """Runs of one side."""

    text: str  # as on the command line
    root: Path
    chosen: dict[str, str]  # KEYS -> value
    frame: pd.DataFrame = field(repr=False)
    results: Results = field(repr=False)  # of its output root


@dataclass(frozen=True)
class Match:
    """Rows of two sides that differ only in what the sides name."""

    title: str
    a: pd.DataFrame
    b: pd.DataFrame


def read_side(text: str, root: Path, metrics: Mapping[str, Metric]) -> Side:
    """A side from `sds`, `method=sds,steps=200`, `FOLDER` or `FOLDER:method=sds`."""
    folder, words = root, text
    before, colon, after = text.rpartition(":")
    for path, rest in ((text, ""), (before, after) if colon else (text, "")):
        if Path(path).expanduser().joinpath("runs").is_dir():
            folder, words = Path(path).expanduser(), rest
            break
    if not folder.joinpath("runs").is_dir():
        raise TraceBenchError(
            f"{folder} has no runs/: name an output root with --output-root, or {text} as one."
        )
    chosen = dict(_choices(text, words))
    results = collect(folder, metrics)
    frame = results.frame
    for key, value in chosen.items():
        known = sorted({_text(item) for item in frame[key]}) if len(frame) else []
        frame = frame[frame[key].map(_text) == value] if len(frame) else frame
        if frame.empty:
            close = difflib.get_close_matches(value, known, n=1)
            hint = (
                f"did you mean {close[0]}?" if close else f"it has {', '.join(known) or 'no finished runs'}."
            )
            raise TraceBenchError(f"{text}: no finished run in {folder} has {key}={value}; {hint}")
    if frame.empty:
        raise TraceBenchError(f"{text}: there is no finished run in {folder}.")
    return Side(text, folder, chosen, frame.reset_index(drop=True), results)


def _choices(text: str, words: str) -> Iterator[tuple[str, str]]:
    for word in filter(None, words.split(",")):
        key, equals, value = word.partition("=")
        key, value = (key, value) if equals else ("method", key)
        if key not in KEYS or not value:
            raise TraceBenchError(
                f"{text}: {word} is invalid; use a method or KEY=VALUE with one of {', '.join(KEYS)}."
            )
        yield key, value


def _text(value: Any) -> str:
    return "none" if pd.isna(value) else f"{value:g}" if isinstance(value, float) else str(value)


def matches(a: Side, b: Side) -> list[Match]:
    """Rows of both sides that are equal in all that neither side names; raises if there are none."""
    keys = [key for key in _MATCHED if key not in a.chosen and key not in b.chosen]
    groups = [_groups(side, keys) for side in (a, b)]
    common = [key for key in groups[0] if key in groups[1]]
    if not common:
        raise TraceBenchError(
            f"{a.text} and {b.text} have nothing in common to compare: {a.text} has "
            f"{_listed(groups[0])}; {b.text} has {_listed(groups[1])}."
        )
    return [Match(", ".join(key) or "all runs", groups[0][key], groups[1][key]) for key in common]


def _listed(keys: Mapping[tuple[str, ...], Any]) -> str:
    return " and ".join(" ".join(key) for key in list(keys)[:3])


def _groups(side: Side, keys: Sequence[str]) -> dict[tuple[str, ...], pd.DataFrame]:
    """The runs by the keys that have to match; each must be one setting."""
    frame = side.frame
    labels = frame[list(keys)].map(_text).agg(tuple, axis=1) if keys else pd.Series([()] * len(frame))
    found = {key: frame[[label == key for label in labels]] for key in dict.fromkeys(labels)}
    for key, part in found.items():
        several = [name for name in (*_MATCHED, *SETTINGS) if part[name].nunique(dropna=False) > 1]
        if several:
            name = several[0]
            values = sorted(part[name].map(_text).unique())
            raise TraceBenchError(
                f"{side.text} has runs with {name} {', '.join(values)}{' for ' if key else ''}"
                f"{' '.join(key)}: say "
                f"which, for example {side.text}{',' if side.chosen else ':'}{name}={values[0]}."
            )
    return found


def paired(match: Match, quantity: str) -> pd.DataFrame:
    """Per prompt the mean over seeds on both sides: columns prompt, a, b; only prompts that both have."""
    means = [
        frame.groupby(["prompt_id", "prompt"])[quantity].agg(lambda values: values.mean(skipna=False))
        for frame in (match.a, match.b)
    ]
    joined = pd.concat(means, axis=1, join="inner", keys=["a", "b"]).dropna().reset_index()
    return joined[["prompt", "a", "b"]]


def settings_apart(a: Side, b: Side, match: Match) -> list[tuple[str, str, str]]:
    """(setting, value in A, value in B) of config.yaml, from a prompt that both have."""
    configs = [
        flat_config(side.root / _folder(frame, match) / "config.yaml")
        for side, frame in ((a, match.a), (b, match.b))
    ]
    found = []
    for key in sorted({*configs[0], *configs[1]}):
        first, second = (config.get(key, "—") for config in configs)
        if first != second and not key.startswith(_ABOUT):
            found.append((key, first, second))
    return found


def versions_apart(a: Side, b: Side, match: Match) -> list[tuple[str, str, str]]:
    """(package or machine, A, B) of the manifests: every value that the runs of a side have."""
    found = []
    for side, frame in ((a, match.a), (b, match.b)):
        runs = read_index(side.root).runs.values()
        folders = {side.root / folder for folder in frame["folder"]}
        values: dict[str, set[str]] = {}
        for manifest in (run.manifest for run in runs if run.folder in folders):
            environment = manifest.environment
            items = {key: environment.get(key) for key in _MACHINE} | dict(environment.get("packages", {}))
            items["prior weights"] = str(manifest.prior.get("sha256") or "")[:8]
            for key, value in items.items():
                values.setdefault(key, set()).add("—" if value in (None, "") else str(value))
        found.append({key: ", ".join(sorted(each)) for key, each in values.items()})
    keys = list(dict.fromkeys([*found[0], *found[1]]))
    return [
        (key, found[0].get(key, "—"), found[1].get(key, "—"))
        for key in keys
        if found[0].get(key, "—") != found[1].get(key, "—")
    ]


def _folder(frame: pd.DataFrame, match: Match) -> str:
    common = set(match.a["prompt_id"]) & set(match.b["prompt_id"])
    shared = frame[frame["prompt_id"].isin(common)]
    return str((shared if len(shared) else frame)["folder"].iloc[0])
