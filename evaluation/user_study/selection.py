"""Selects the runs to show: per prompt one asset of every method, with the same settings per method."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from trace_bench.run_folder.manifest import RunIdentity
from trace_bench.run_folder.reading import Run, natural, one_per_asset
from trace_bench.system.errors import TraceBenchError

FILM = "turntable.mp4"
#: Identity keys that may select runs; prompts are drawn, not selected.
SELECTABLE = tuple(f.name for f in fields(RunIdentity) if f.name not in {"method", "prompt_id", "prompt"})
#: Keys that must be equal for all runs of a method; seeds may differ, and the lowest is shown.
SETTINGS = tuple(name for name in SELECTABLE if name != "seed")
#: Keys that must be equal for all methods.
COMMON = ("prompt_set", "prior", "representation")


@dataclass(frozen=True)
class StudyPrompt:
    """A prompt and the run shown for each method."""

    id: str
    text: str
    runs: dict[str, Run]  # method -> run


def select(
    runs: Sequence[Run],
    methods: Sequence[str],
    chosen: Mapping[str, Any],
    of: Mapping[str, Mapping[str, Any]],
) -> tuple[list[StudyPrompt], list[str]]:
    """Prompts with a turntable of every method, sorted by id, and the ids of all other prompts.

    Args:
        chosen: {"representation": "gaussians", ...}, for every method.
        of: {"trace": {"guidance_scale": 20.0}}, for one method; overrides `chosen`.

    Raises: TraceBenchError if a method has no run, or runs with several settings.
    """
    _check_names(chosen, of, methods)
    runs = one_per_asset(runs)
    runs_of: dict[str, dict[tuple[str, str], Run]] = {}
    for method in methods:
        wanted = {**chosen, **of.get(method, {})}
        mine = [run for run in runs if run.identity.method == method and _fits(run, wanted)]
        if not mine:
            raise TraceBenchError(
                f"There is no finished run of {method}{_words(wanted)}: create it with "
                "`python -m trace_bench`, or choose available methods with ours= and baselines=[...]."
            )
        runs_of[method] = _one_a_prompt(method, mine)
    _check_common(runs_of)
    keys = sorted(set().union(*runs_of.values()), key=lambda key: (natural(key[0]), key[1]))
    complete = [
        key
        for key in keys
        if all(key in mine and (mine[key].folder / FILM).is_file() for mine in runs_of.values())
    ]
    prompts = [StudyPrompt(*key, {method: runs_of[method][key] for method in methods}) for key in complete]
    return prompts, [key[0] for key in keys if key not in complete]


def _check_names(
    chosen: Mapping[str, Any], of: Mapping[str, Mapping[str, Any]], methods: Sequence[str]
) -> None:
    for key in [*chosen, *(key for mapping in of.values() for key in mapping)]:
        if key not in SELECTABLE:
            close = difflib.get_close_matches(str(key), SELECTABLE, n=1)
            hint = f"; did you mean {close[0]}?" if close else f": choose from {', '.join(SELECTABLE)}."
            raise TraceBenchError(f"select: a run has no '{key}'{hint}")
    for method in of:
        if method not in methods:
            raise TraceBenchError(
                f"select_of names {method}, which is not shown: ours and baselines are {', '.join(methods)}."
            )


def _fits(run: Run, wanted: Mapping[str, Any]) -> bool:
    return all(getattr(run.identity, key) == value for key, value in wanted.items() if value is not None)


def _words(wanted: Mapping[str, Any]) -> str:
    said = [f"{key}={value}" for key, value in wanted.items() if value is not None]
    return f" with {', '.join(said)}" if said else ""


def _one_a_prompt(method: str, runs: Sequence[Run]) -> dict[tuple[str, str], Run]:
    """(prompt id, prompt) -> the run with the lowest seed."""
    for name in SETTINGS:
        values = sorted(
            {getattr(run.identity, name) for run in runs}, key=lambda value: (value is None, value)
        )
        if len(values) > 1:
            where = f"select.{name}" if name in COMMON else f"+select_of.{method}.{name}"
            raise TraceBenchError(
                f"{method} has runs with {name} {' and '.join(map(str, values))}: choose one, "
                f"for example {where}={values[0]}."
            )
    found: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in runs:
        found[run.identity.prompt_id, run.prompt].append(run)
    lowest: dict[tuple[str, str], Run] = {}
    for key, candidates in found.items():
        seed = min(run.identity.seed for run in candidates)
        first, *others = [run for run in candidates if run.identity.seed == seed]
        if others:
            raise TraceBenchError(
                f"{first.folder} and {others[0].folder} are two runs of one prompt and seed that "
                "differ only in config.yaml: move the unwanted one out of the output root."
            )
        lowest[key] = first
    return lowest


def _check_common(runs_of: Mapping[str, Mapping[tuple[str, str], Run]]) -> None:
    """Raise unless all methods share prompt set, prior and representation."""
    for name in COMMON:
        seen = {method: getattr(next(iter(mine.values())).identity, name) for method, mine in runs_of.items()}
        if len(set(seen.values())) > 1:
            said = ", ".join(f"{method}: {value}" for method, value in seen.items())
            raise TraceBenchError(
                f"The methods' runs differ in {name} ({said}): choose one with select.{name}=..."
            )
