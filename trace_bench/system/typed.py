"""Files of this project as typed objects: parsed once, strictly, with one reason for what does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

from pydantic import Field, FiniteFloat, ValidationError

from trace_bench.system.errors import TraceBenchError
from trace_bench.system.files import content_of
from trace_bench.system.text import one_line

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")
#: An integer that tables and parquet files can hold.
Integer = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Finite = FiniteFloat
#: A number of at least 0 that a table can print: seconds, network items, gigabytes.
Amount = Annotated[FiniteFloat, Field(ge=0.0, le=1e15)]
_LONGEST_REASON = 300


class FormatError(TraceBenchError):
    """A file whose content is not what this version writes."""


def parse(adapter: TypeAdapter[T], text: str | bytes) -> T:
    """The typed object in JSON `text`: no type is guessed, unknown keys are ignored.

    Raises:
        FormatError: names the first key that does not fit, or the place of the mistake in the JSON.
    """
    try:
        return adapter.validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        reason = first["msg"][:1].lower() + first["msg"][1:]
        text = f"{place}: {reason}" if place else reason
        raise FormatError(one_line(text, _LONGEST_REASON)) from error


def read_typed(adapter: TypeAdapter[T], path: Path, advice: str) -> T:
    """`parse` of a file.

    Raises:
        FormatError: one sentence with the path, the reason and `advice`; also for a file that cannot be read.
    """
    return typed(adapter, read_content(path, advice), path, advice)


def read_content(path: Path, advice: str) -> bytes:
    """The content of a file, for `typed`.

    Raises:
        FormatError: one sentence with the path, the reason and `advice`.
    """
    try:
        return content_of(path)
    except OSError as error:
        raise FormatError(f"{path} cannot be read ({error.strerror}): {advice}.") from error


def typed(adapter: TypeAdapter[T], content: bytes, path: Path, advice: str) -> T:
    """`parse` of the content of the file at `path`.

    Raises:
        FormatError: one sentence with the path, the reason and `advice`.
    """
    try:
        return parse(adapter, content)
    except FormatError as error:
        raise FormatError(f"{path} cannot be used ({error}): {advice}.") from error
