"""A score file in a run folder: written with a checksum, parsed strictly."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from trace_bench.system.errors import UNREADABLE
from trace_bench.system.files import write_json
from trace_bench.system.typed import Finite, FormatError, Integer, read_content, typed

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

    schema_version: Integer
    run: dict[str, str | None]  # the state of the run that was scored
    inputs: Inputs
    values: dict[str, Finite | bool | None]
    rows: list[dict[str, Any]]  # one per view
    details: dict[str, Any]
    inapplicable: list[str] = field(default_factory=list)
    checksum: str | None = None  # of everything else; None in a file of an earlier version


@cache
def _objects() -> TypeAdapter[dict[str, Any]]:
    return TypeAdapter(dict[str, Any])


@cache
def _files() -> TypeAdapter[ScoreFile]:
    return TypeAdapter(ScoreFile)


def read_score_file(path: Path) -> ScoreFile | None:
    """The score file; None if another version wrote it.

    Raises:
        FormatError: it is missing, or not a score file; one sentence with the path and the reason.
    """
    content = read_content(path, _AGAIN)
    plain = _plain(content)
    version = plain.get("schema_version", SCHEMA_VERSION)
    if type(version) is int and version != SCHEMA_VERSION:
        return None
    file = typed(_files(), content, path, _AGAIN)
    if file.checksum is not None and file.checksum != _checksum(plain):
        raise FormatError(f"{path} was changed after it was written (its checksum does not match): {_AGAIN}.")
    return file


def _plain(content: bytes) -> dict[str, Any]:
    """The JSON object in the file; empty if it holds something else, which `typed` then says."""
    try:
        return _objects().validate_json(content)
    except UNREADABLE:
        return {}


def write_score_file(path: Path, content: Mapping[str, Any]) -> None:
    """Write the score file with its checksum, so that no changed number reaches a table."""
    plain = json.loads(json.dumps(content))
    write_json(path, plain | {"checksum": _checksum(plain)})


def _checksum(content: Mapping[str, Any]) -> str:
    """SHA-256 of everything but the checksum, however the file is laid out."""
    rest = {key: value for key, value in content.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
