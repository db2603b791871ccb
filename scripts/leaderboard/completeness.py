"""Whether the committed file is whole: every method, prompt and seed of the experiments, with hashes."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

from evaluation.metrics.base import Metric
from scripts.leaderboard.admission import PACKAGES, PROMPT_SET, prompts_sha256
from scripts.leaderboard.rows import FILE, Board
from scripts.leaderboard.sections import CONTROLS, MAIN, SECTIONS, Section
from trace_bench.settings.prompts import load_prompt_set
from trace_bench.system.config_path import conf_dir

_SHARED = ("trace_bench", "torch", "diffusers", "rig", "metrics")
_HASH = re.compile(r"[0-9a-f]{64}")


def problems(board: Board, metrics: Mapping[str, Metric]) -> list[str]:
    """What is wrong with the rows of the file, in sentences; empty if nothing."""
    return [*_versions(board, metrics), *_sections(board), *_rows(board, metrics)]


def lacking_sections(board: Board) -> list[str]:
    """The sections without which there is no page, in sentences."""
    return [f"{FILE} has no section `{name}`." for name in (MAIN, "controls") if name not in board.sections]


def pending(board: Board) -> list[str]:
    """What the experiments ask for and the file has no row of: "section: methods"."""
    found = []
    for name, section in SECTIONS.items():
        there = set(board.sections[name]["method"]) if name in board.sections else set()
        if missing := [method for method in _wanted(section) if method not in there]:
            found.append(f"{section.what}: {', '.join(missing)}")
    return found


def listed_methods() -> list[str]:
    """The methods of conf/experiment/leaderboard.yaml."""
    return _swept("leaderboard")["method"]


def _versions(board: Board, metrics: Mapping[str, Metric]) -> Iterator[str]:
    for key in (*_SHARED, "prompts", "judges"):
        if not board.versions.get(key):
            yield f"{FILE} does not say its `{key}` under `versions`."
    if board.versions.get("prompts") not in (None, prompts_sha256()):
        yield (
            f"conf/prompt_set/{PROMPT_SET}.yaml has other prompts than the rows of {FILE}: restore it, "
            "or make all rows again with `python scripts/make_leaderboard.py --anew`."
        )
    for kind, sha256 in (board.versions.get("prior") or {"weights": ""}).items():
        if not _HASH.fullmatch(str(sha256)):
            yield f"{FILE} has no sha256 of the prior's weights ({kind})."
    for name in metrics:
        if name not in board.versions.get("judges", {}):
            yield f"{FILE} does not say the judge of {name}."


def _sections(board: Board) -> Iterator[str]:
    if missing := lacking_sections(board):
        yield from missing
        return
    own = set(board.sections[MAIN]["method"])
    for name, section in SECTIONS.items():
        if name not in board.sections:
            continue
        there = set(map(str, board.sections[name]["method"]))
        for method in sorted(there - own):
            yield f"{name}: {method} has rows here, but none with its own budget."
        swept = _swept(section.sweep[0].removeprefix("experiment="))
        wanted = [method for method in _wanted(section) if method in there]
        yield from _compare(name, board.sections[name], "method", wanted, _ids(swept), swept["seed"])
    controls = _swept(CONTROLS[0].removeprefix("experiment="))["method.control"]
    yield from _compare("controls", board.sections["controls"], "control", controls, _ids({}), None)


def _wanted(section: Section) -> list[str]:
    """The methods that a section is for."""
    return [name for name in listed_methods() if section.methods is None or name in section.methods]


def _compare(
    name: str, frame: pd.DataFrame, by: str, wanted: Collection[str], ids: Collection[str],
    seeds: Collection[Any] | None,
) -> Iterator[str]:  # fmt: skip
    """Differences between a section's rows and those wanted, at most one sentence per method."""
    expected = set(ids) if seeds is None else set(itertools.product(ids, map(int, seeds)))
    for one in dict.fromkeys([*wanted, *map(str, frame[by])]):
        own = frame[frame[by] == one]
        prompts = own["prompt_id"].astype(str)
        there = list(prompts if seeds is None else zip(prompts, own["seed"].astype(int), strict=True))
        if one not in wanted:
            yield (
                f"{name}: {one} is not in conf/experiment/{_yaml(name)}.yaml; add it there, or take its rows "
                "out."
            )
        elif len(there) != len(set(there)) or set(there) != expected:
            yield (
                f"{name}: {one} has {len(set(there) & expected)} of {len(expected)} rows"
                f"{' and others' if len(there) > len(set(there) & expected) else ''}; "
                f"`make leaderboard METHODS={one}` makes them."
                if seeds is not None
                else f"{name}: {one} has {len(set(there) & expected)} of {len(expected)} rows."
            )


def _rows(board: Board, metrics: Mapping[str, Metric]) -> Iterator[str]:
    for name, frame in board.sections.items():
        hashes = frame["fingerprint"].astype(str)
        if not hashes.map(lambda text: bool(_HASH.fullmatch(text))).all() or hashes.duplicated().any():
            yield f"{name}: a row has no fingerprint, or the same as another."
        for column in () if name == "controls" else ("commit", *PACKAGES):
            if column not in frame or frame[column].isna().any():
                yield f"{name}: a row does not say its {column}."
        for metric in metrics:
            judge = board.versions.get("judges", {}).get(metric)
            if not (frame[f"{metric}_judge"] == judge).fillna(False).all():
                yield f"{name}: a row has no {metric} by the judge of the others."


def _yaml(section: str) -> str:
    return {MAIN: "leaderboard", "controls": "controls"}.get(section, f"leaderboard_{section}")


def _swept(experiment: str) -> dict[str, list[Any]]:
    """What an experiment sweeps over, by key; one seed if it names none."""
    params = OmegaConf.load(Path(conf_dir()) / "experiment" / f"{experiment}.yaml").hydra.sweeper.params
    found = {str(key): [part.strip() for part in str(value).split(",")] for key, value in params.items()}
    return {"seed": ["0"]} | found


def _ids(swept: Mapping[str, list[Any]]) -> list[str]:
    """The ids of the prompts that a sweep asks for."""
    spec = OmegaConf.load(Path(conf_dir()) / "prompt_set" / f"{PROMPT_SET}.yaml").prompt_set
    prompts = load_prompt_set(PROMPT_SET, spec)
    chosen = prompts.select(",".join(swept["prompt"])) if "prompt" in swept else prompts.prompts
    return [prompt.prompt_id for prompt in chosen]
