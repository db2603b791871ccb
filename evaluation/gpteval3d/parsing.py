"""Strict parsing of an answer: what is not clear is not guessed.

The decisions stand at the end of an answer, one number (1, 2 or 3) per criterion, in one of these forms, with
markup and a label such as "Final answer:" around them:

- one line with the numbers and nothing else, separated by blanks, commas, semicolons or slashes;
- such a line in LaTeX's \\boxed{};
- JSON: a list, {"answer": list or text}, or, from three criteria on, an object with the keys "1" to "n";
- from three criteria on, a numbered list, "1. Texture details: 2", one line per criterion, in order.

Only lines of punctuation and of courtesy ("Thank you!") may follow. Nothing is searched for. The judge sees
the text prompt as a one-line JSON string, so even an answer that quotes it has no line taken from the prompt.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from trace_bench.system.errors import UNREADABLE

Status = Literal["valid", "unparsable", "refused", "truncated"]

RESULTS = {"1": -1, "2": 1, "3": 0}  # left is better, right is better, draw
_MARKS = " \t\r*_`~#>|()[]{}:."
_EMPTY = (
    _MARKS + "\"'“”‘’«»-–—"
)  # lines of only these are skipped; quotation marks are not stripped around numbers
_LABEL = re.compile(
    r"(?:my |the )?(?:final )?(?:answers?|decisions?|verdicts?)(?:[*_ \t]*[:：=]| (?:is|are)\b:?)",
    re.IGNORECASE,
)
_NUMBERS = re.compile(r"[123](?:(?:[ \t]*[,;/][ \t]*|[ \t]+)[123])*")
_BOXED = re.compile(r"\\boxed\s*\{\s*(?:\\text\s*\{([^{}]*)\}|([^{}]*))\s*\}")
_ITEM = re.compile(
    r"(?:criterion )?\(?([0-9]+)[.):][*_ \t]+(?:([^:：=\d]*(?:3D)?[^:：=\d]*)[:：=][*_ \t]*)?([0-9]+)[*_.]*",
    re.IGNORECASE,
)
_FEWEST = 3  # criteria of a numbered list; "1. 2, 2. 1" could also be about objects 1 and 2
_BRACKETS = re.compile(r"[\[\]{}, \t]+")  # a line of JSON
_DECIDES = re.compile(  # words beside a number that could be a second decision
    r"\b(?:left|right|first|second|third|one|two|three|object|better|worse|best|tie|tied|draw|equal|both|neither"
    r"|not|but|however|actually|instead|except|wait|correct(?:ion|ed)?|mistake|swap(?:ped)?|revers\w*|chang\w*)\b",
    re.IGNORECASE,
)
_COURTESY = re.compile(
    r"(?:thank you|thanks|i hope (?:this|that|it)|hope (?:this|that|it)|let me know|feel free|please let "
    r"me know"
    r"|please feel free|if you (?:have|need)|happy to help|you(?:'|’)?re welcome|have a (?:nice|good|great))"
    r"[^\d\\{}\[\]|]*",
    re.IGNORECASE,
)
_LONGEST_COURTESY = 160
_KEYS = ("answer", "answers", "final_answer", "decision", "decisions", "verdict", "verdicts")
_BREAKS = {code: f"\\u{code:04x}" for code in (0x7F, 0x85, 0x2028, 0x2029)}


def parse_answer(text: str, criteria: int) -> tuple[int, ...] | None:
    """One result per criterion (-1 left, 1 right, 0 draw), or None if the answer is not clear."""
    every = (line.rstrip("\r") for line in text.split("\n"))
    lines = [
        line for line in every if line.strip(_EMPTY + "$\\") or (line.strip() and _BRACKETS.fullmatch(line))
    ]
    while lines and _is_courtesy(lines[-1]):
        lines.pop()
    if not lines:
        return None
    if _is_balanced(lines[-1]):
        numbers = _of_line(lines[-1]) or _of_list(lines, criteria) or _of_json(lines, criteria)
    else:  # the end of something that began in an earlier line
        numbers = _of_json(lines, criteria)
    if numbers is None or len(numbers) != criteria:
        return None
    return tuple(RESULTS[number] for number in numbers)


def _is_balanced(line: str) -> bool:
    return all(line.count(left) == line.count(right) for left, right in ("[]", "{}"))


def _is_courtesy(line: str) -> bool:
    line = line.strip(_EMPTY + "!")
    polite = len(line) <= _LONGEST_COURTESY and _COURTESY.fullmatch(line)
    return bool(polite) and not _DECIDES.search(line)


def _of_line(line: str) -> list[str] | None:
    """The numbers of a line that holds nothing else."""
    if boxed := _BOXED.search(line):
        around = _unlabelled(line[: boxed.start()] + " " + line[boxed.end() :], _MARKS + "$\\")
        last = "" if around else (boxed[1] or boxed[2] or "").strip(_MARKS)
    else:
        last = _unlabelled(line, _MARKS)
    return re.findall("[123]", last) if _NUMBERS.fullmatch(last) else None


def _unlabelled(line: str, marks: str) -> str:
    """A line without markup and label."""
    found = line.lstrip(marks)
    label = _LABEL.match(found)
    return found[label.end() if label else 0 :].strip(marks)


def _of_list(lines: Sequence[str], criteria: int) -> list[str] | None:
    """The numbers of a numbered list at the end, with exactly one line for each of several criteria."""
    if criteria < _FEWEST or len(lines) < criteria:
        return None
    found = [_item(line) for line in lines[-criteria - 1 :]]
    before = found.pop(0) if len(lines) > criteria else None
    if before is not None or [item[0] if item else None for item in found] != [
        str(i) for i in range(1, criteria + 1)
    ]:
        return None
    numbers = [item[1] for item in found if item]
    return numbers if all(number in RESULTS for number in numbers) else None


def _item(line: str) -> tuple[str, str] | None:
    """(number of the criterion, decision) of a line of a list."""
    item = _ITEM.fullmatch(line.strip(" \t\r*_`~#>|-"))
    return None if item is None or _DECIDES.search(item[2] or "") else (item[1], item[3])


def _of_json(lines: Sequence[str], criteria: int) -> list[str] | None:
    """The numbers of the JSON that ends the lines."""
    if not lines[-1].rstrip().endswith(("}", "]")):
        return None
    for first in range(len(lines) - 1, max(-1, len(lines) - 200), -1):
        if not lines[first].lstrip().startswith(("{", "[")):
            continue
        try:
            value = json.loads("\n".join(lines[first:]), object_pairs_hook=_once)
        except UNREADABLE:
            continue
        return _of_value(value, criteria)
    return None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; raises ValueError if a key is there twice."""
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a key is there twice")
    return dict(pairs)


def _of_value(value: Any, criteria: int) -> list[str] | None:
    if isinstance(value, dict):
        if criteria >= _FEWEST and set(value) == {str(i) for i in range(1, criteria + 1)}:
            return _of_value([value[str(i)] for i in range(1, criteria + 1)], criteria)
        named = [item for key, item in value.items() if key.lower().replace(" ", "_") in _KEYS]
        return _of_value(named[0], criteria) if len(named) == 1 else None
    if isinstance(value, str):
        return re.findall("[123]", value) if _NUMBERS.fullmatch(value.strip()) else None
    if isinstance(value, list):
        numbers = [str(item) for item in value if isinstance(item, int | str) and not isinstance(item, bool)]
        return numbers if len(numbers) == len(value) and all(n in RESULTS for n in numbers) else None
    if isinstance(value, int) and not isinstance(value, bool) and str(value) in RESULTS:
        return [str(value)]
    return None


def is_cut(choice: Mapping[str, Any]) -> bool:
    """Whether a stored choice ended at the limit of output tokens."""
    return choice.get("finish_reason") == "length"


def read_choice(choice: Mapping[str, Any], criteria: int) -> tuple[Status, tuple[int, ...] | None]:
    """The status of a stored choice, and its results if it is valid."""
    if choice.get("refusal") or choice.get("finish_reason") == "content_filter":
        return "refused", None
    if is_cut(choice):
        return "truncated", None
    text = choice.get("text")
    results = parse_answer(text, criteria) if isinstance(text, str) else None
    return ("unparsable", None) if results is None else ("valid", results)


def as_data(prompt: str) -> str:
    """A text prompt as a JSON string without line breaks, so that it reads as data, not as instructions."""
    return json.dumps(prompt, ensure_ascii=False).translate(_BREAKS)
