"""A score file in a run folder, parsed strictly; written by `evaluation.metrics.base`."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from trace_bench.system.typed import Finite, Integer, read_typed

SCHEMA_VERSION = 1
_AGAIN = "run `python -m evaluation.score`, which writes it again"


@dataclass(frozen=True)
class Inputs:
    """What the score depends on."""

    images: str
    prompt: str
    version: str
    weights: str
    settings: dict[str, Any]


@dataclass(frozen=True)
class ScoreFile:
    """The content of scores/<metric>.json."""

    run: dict[str, str | None]  # the state of the run that was scored
    inputs: Inputs
    values: dict[str, Finite | bool | None]
    rows: list[dict[str, Any]]  # one per view
    details: dict[str, Any]
    inapplicable: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Version:
    schema_version: Integer


@cache
def _versions() -> TypeAdapter[_Version]:
    return TypeAdapter(_Version)


@cache
def _files() -> TypeAdapter[ScoreFile]:
    return TypeAdapter(ScoreFile)


def read_score_file(path: Path) -> ScoreFile | None:
    """The score file; None if another version wrote it.

    Raises:
        FormatError: it is missing, or not a score file; one sentence with the path and the reason.
    """
    if read_typed(_versions(), path, _AGAIN).schema_version != SCHEMA_VERSION:
        return None
    return read_typed(_files(), path, _AGAIN)
