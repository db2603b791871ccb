"""Whether the committed file is whole: every method, prompt and seed of the experiments, with hashes."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence

import pandas as pd

from evaluation.metrics.base import Metric
from scripts.leaderboard.admission import PACKAGES, PROMPT_SET, prompts_sha256
from scripts.leaderboard.rows import FILE, Board
from scripts.leaderboard.sections import COMPARISON, MAIN, SECTIONS, Section, prompts_of, swept

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
            found.append(f"{section.what}: {', '.join(missing) if there else 'all methods'}")
    return found


def listed_methods() -> list[str]:
    """The methods of conf/experiment/leaderboard.yaml."""
    return list(SECTIONS[MAIN].methods)


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
        frame = board.sections[name]
        there = set(map(str, frame["method"]))
        for method in sorted(there - own):
            yield f"{name}: {method} has rows here, but none with its own budget."
        wanted = [method for method in _wanted(section) if method in there]
        seeds = swept(section.experiment)["seed"]
        expected = set(itertools.product(prompts_of(section.experiment), seeds, section.values))
        for method in dict.fromkeys([*wanted, *map(str, frame["method"])]):
            if method not in wanted:
                yield (
                    f"{name}: {method} is not in conf/experiment/{section.experiment}.yaml; add it there, or "
                    "take its rows out."
                )
            elif differing := _compare(
                [*_keys(frame[frame["method"] == method], section), *_failed_keys(board, name, method)],
                expected,
            ):
                only = "" if name in COMPARISON else f" SECTIONS={name}"
                yield f"{name}: {method} {differing}; `make leaderboard METHODS={method}{only}` makes them."
    controls = board.sections["controls"]
    prompts = {(prompt_id,) for prompt_id in prompts_of("controls", PROMPT_SET)}
    for control in dict.fromkeys([*swept("controls")["method.control"], *map(str, controls["control"])]):
        rows = controls[controls["control"] == control]
        if differing := _compare([(prompt_id,) for prompt_id in rows["prompt_id"]], prompts):
            yield f"controls: {control} {differing}."


def _wanted(section: Section) -> list[str]:
    """The methods that a section is for."""
    return [name for name in listed_methods() if name in section.methods]


def _keys(rows: pd.DataFrame, section: Section) -> list[tuple[str, str, str]]:
    """What tells a method's rows apart, as the experiment has it: prompt, seed, the value of `by`."""
    by = rows[section.by] if section.by else [""] * len(rows)
    values = [f"{value:g}" if isinstance(value, float) else str(value) for value in by]
    return list(zip(map(str, rows["prompt_id"]), rows["seed"].map("{:.0f}".format), values, strict=True))


def _failed_keys(board: Board, section: str, method: str) -> list[tuple[str, str, str]]:
    return [
        (one.prompt_id, str(one.seed), one.value)
        for one in board.failures
        if (one.section, one.method) == (section, method)
    ]


def _compare(there: Sequence[tuple[str, ...]], expected: Collection[tuple[str, ...]]) -> str:
    """How a method's rows differ from those wanted; empty if they do not."""
    right = len(set(there) & set(expected))
    if len(there) == len(expected) == right:
        return ""
    return f"has {right} of {len(expected)} rows{' and others' if len(there) > right else ''}"


def _rows(board: Board, metrics: Mapping[str, Metric]) -> Iterator[str]:
    for one in board.failures:
        if one.section not in SECTIONS or one.section in COMPARISON:
            yield f"{one.section}: {one.method} failed, and such runs belong to no comparison."
        if not _HASH.fullmatch(one.fingerprint) or not one.commit:
            yield f"{one.section}: a failed run of {one.method} has no fingerprint or no commit."
    for name, frame in board.sections.items():
        hashes = frame["fingerprint"].astype(str)
        texts = (
            prompts_of("controls", PROMPT_SET)
            if name == "controls"
            else prompts_of(SECTIONS[name].experiment)
        )
        for row in frame[["prompt_id", "prompt"]].drop_duplicates().itertuples():
            now = texts.get(str(row.prompt_id), row.prompt)
            if row.prompt != now:
                yield f"{name}: prompt {row.prompt_id} is {row.prompt!r}, but {now!r} now."
        if not hashes.map(lambda text: bool(_HASH.fullmatch(text))).all() or hashes.duplicated().any():
            yield f"{name}: a row has no fingerprint, or the same as another."
        for column in () if name == "controls" else ("commit", *PACKAGES):
            if column not in frame or frame[column].isna().any():
                yield f"{name}: a row does not say its {column}."
        for metric in metrics:
            judge = board.versions.get("judges", {}).get(metric)
            if not (frame[f"{metric}_judge"] == judge).fillna(False).all():
                yield f"{name}: a row has no {metric} by the judge of the others."
