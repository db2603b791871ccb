"""Strict parsing of an answer.

Only the last line counts; lines of punctuation alone are skipped. After stripping punctuation and a label
such as "Final answer:", it must hold exactly one number (1, 2 or 3) per criterion, separated by blanks,
commas, semicolons or slashes, and nothing else. Nothing is searched for or guessed. The judge sees the text
prompt as a one-line JSON string, so even an answer that quotes it has no line taken from the prompt.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Literal

Status = Literal["valid", "unparsable", "refused", "truncated"]

RESULTS = {"1": -1, "2": 1, "3": 0}  # left is better, right is better, draw
_MARKS = " \t\r*_`~#>|()[]{}:."
_EMPTY = (
    _MARKS + "\"'“”‘’«»-–—"
)  # lines of only these are skipped; quotation marks are not stripped around numbers
_LABEL = re.compile(r"(?:(?:my |the )?final )?(?:answers?|decisions?|verdicts?)[*_ \t]*[:：=]", re.IGNORECASE)
_NUMBERS = re.compile(r"[123](?:(?:[ \t]*[,;/][ \t]*|[ \t]+)[123])*")
_BREAKS = {code: f"\\u{code:04x}" for code in (0x7F, 0x85, 0x2028, 0x2029)}


def parse_answer(text: str, criteria: int) -> tuple[int, ...] | None:
    """One result per criterion (-1 left, 1 right, 0 draw), or None if the answer is malformed."""
    lines = [line for line in text.split("\n") if line.strip(_EMPTY)]
    if not lines:
        return None
    last = lines[-1].strip(_MARKS)
    if label := _LABEL.match(last):
        last = last[label.end() :].strip(_MARKS)
    if not _NUMBERS.fullmatch(last):
        return None
    numbers = re.findall("[123]", last)
    return tuple(RESULTS[number] for number in numbers) if len(numbers) == criteria else None


def read_choice(choice: Mapping[str, Any], criteria: int) -> tuple[Status, tuple[int, ...] | None]:
    """The status of a stored choice, and its results if it is valid."""
    if choice.get("refusal") or choice.get("finish_reason") == "content_filter":
        return "refused", None
    if choice.get("finish_reason") == "length":
        return "truncated", None
    text = choice.get("text")
    results = parse_answer(text, criteria) if isinstance(text, str) else None
    return ("unparsable", None) if results is None else ("valid", results)


def as_data(prompt: str) -> str:
    """A text prompt as a JSON string without line breaks, so that it reads as data, not as instructions."""
    return json.dumps(prompt, ensure_ascii=False).translate(_BREAKS)
