"""What an answer says, read from its text and the number of criteria alone.

Only the last line that holds more than marks counts. After marks and a label such as "Final answer:" are
taken off, it must be exactly as many of the numbers 1, 2 and 3 as there are criteria, separated by
blanks, commas, semicolons or slashes, and nothing else. Nothing is searched for and nothing is guessed.
The text prompt takes no part: it reaches the judge as a JSON string on one line, so that even an answer
that quotes it has no line of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Literal

Status = Literal["valid", "unparsable", "refused", "truncated"]

RESULTS = {"1": -1, "2": 1, "3": 0}  # left is better, right is better, cannot decide
_MARKS = " \t\r*_`~#>|()[]{}:."
_EMPTY = (
    _MARKS + "\"'“”‘’«»-–—"
)  # a line of these alone is none; around numbers a quotation mark is not taken off
_LABEL = re.compile(r"(?:(?:my |the )?final )?(?:answers?|decisions?|verdicts?)[*_ \t]*[:：=]", re.IGNORECASE)
_NUMBERS = re.compile(r"[123](?:(?:[ \t]*[,;/][ \t]*|[ \t]+)[123])*")
_BREAKS = {code: f"\\u{code:04x}" for code in (0x7F, 0x85, 0x2028, 0x2029)}


def parse_answer(text: str, criteria: int) -> tuple[int, ...] | None:
    """A result for each criterion (-1 left, 1 right, 0 a draw), or None where the answer breaks the rule."""
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
    """The status of a stored choice, and its results where it is valid."""
    if choice.get("refusal") or choice.get("finish_reason") == "content_filter":
        return "refused", None
    if choice.get("finish_reason") == "length":
        return "truncated", None
    text = choice.get("text")
    results = parse_answer(text, criteria) if isinstance(text, str) else None
    return ("unparsable", None) if results is None else ("valid", results)


def as_data(prompt: str) -> str:
    """A text prompt as a JSON string without any line break, for a reader who must not take it for orders."""
    return json.dumps(prompt, ensure_ascii=False).translate(_BREAKS)
