"""What a user types: texts are data, and Hydra's grammar gets them in quotes.

A prompt, a negative prompt and a name are texts: commas, brackets and `${...}` in them mean nothing to Hydra.
"""

from __future__ import annotations

import numbers
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, QuotedString, ValueType
from hydra.errors import HydraException

from trace_bench.settings.inputs import PLACEHOLDERS
from trace_bench.system.errors import TraceBenchError

#: Settings with free text, besides the prompt.
TEXTS = (
    "method.source",
    "method.display_name",
    "method.negative_prompt",
    "method.prompt_suffixes.source",
    "method.prompt_suffixes.target",
)
_NOT_TEXTS = ("null", "true", "false", "nan", "inf")
_OPENING = ("'", '"', "[")
_INTERPOLATION = re.compile(r"(\\*)\$\{")
_SWEEPS = (ValueType.CHOICE_SWEEP, ValueType.RANGE_SWEEP)


def readable_overrides(overrides: Sequence[str], multirun: bool) -> list[str]:
    """The overrides with quotes around texts, and around paths with placeholders such as {prompt_id}, if
    Hydra's grammar requires quotes.

    With -m, a comma separates prompts if it stands outside brackets and quotes, with no blank after it:
    "a crab, low poly" is one prompt, "a crab,a duck" are two.
    """
    return [_readable(item, multirun) for item in overrides]


def as_data(override: str) -> str:
    """The override, with `${` in a text escaped, so that OmegaConf does not interpolate it."""
    key, is_pair, value = override.partition("=")
    if not is_pair or key.lstrip("+") not in (*TEXTS, "prompt", "prompt_set.prompts"):
        return override
    return f"{key}=" + _INTERPOLATION.sub(lambda m: m[1] * 2 + r"\${", value)


def _readable(override: str, multirun: bool) -> str:
    key, _, value = override.partition("=")
    if key == "prompt":
        return _prompt(value, multirun)
    is_text = key.lstrip("+") in TEXTS or any(f"{{{name}}}" in value for name in PLACEHOLDERS)
    if not is_text or not value or (value.lstrip()[:1] in _OPENING and _parsed(override)):
        return override
    return f"{key}={_in_quotes(value)}"


def _in_quotes(text: str) -> str:
    """Backslashes count double only before a quotation mark, the closing one too."""
    text = re.sub(r'(\\*)("|$)', lambda m: m[1] * 2 + ('\\"' if m[2] else ""), text.strip())
    return f'"{text}"'


def _prompt(value: str, multirun: bool) -> str:
    """The override of a prompt: indices, lists and quoted texts stay as they are, other texts are quoted."""
    override = f"prompt={value}"
    parsed = _parsed(override)
    if parsed is not None and _is_grammar(parsed, value, multirun):
        return override
    texts = _split(value) if multirun else [value]
    return "prompt=" + ",".join(map(_in_quotes, texts))


def _is_grammar(parsed: Override, value: str, multirun: bool) -> bool:
    """Whether a prompt is in Hydra's grammar: an index, a list, texts in quotes, choice() or range()."""
    if value.lstrip()[:1] in _OPENING or parsed.value_type in _SWEEPS:
        return True
    if not any(letter.isalpha() for letter in value):
        return True
    found = parsed.value()
    if not multirun or not isinstance(found, ChoiceSweep):
        return False
    return any(isinstance(item, QuotedString) for item in found.list)


def _split(value: str) -> list[str]:
    """A text at its commas, except those before a blank, between digits, and inside brackets or quotes."""
    pieces, depth, quoted = [""], 0, False
    for i, letter in enumerate(value):
        depth = max(0, depth + (letter in "([{") - (letter in ")]}"))
        quoted ^= letter == '"'
        after = value[i + 1 : i + 2]
        is_number = value[i - 1 : i].isdigit() and after.isdigit()
        if letter == "," and not (depth or quoted or is_number or after in ("", ",") or after.isspace()):
            pieces.append("")
        else:
            pieces[-1] += letter
    return pieces


def _parsed(override: str) -> Override | None:
    try:
        return OverridesParser.create().parse_override(override)
    except HydraException:  # also covers characters outside the grammar, not only OverrideParseException
        return None


def as_overrides(settings: Mapping[str, Any]) -> list[str]:
    """Python settings as overrides of the command: {"steps": 9, "rig": {"n_views": 8}} is steps=9 and
    rig.n_views=8.
    """
    found = []
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            found += as_overrides({f"{key}.{name}": item for name, item in value.items()})
        else:
            found.append(f"{key}={_as_text(key, value)}")
    return found


def _as_text(key: str, value: Any) -> str:
    """A value in Hydra's grammar; texts are quoted unless they are plain words, such as a group's choice."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (str, Path)):
        text = str(value)
        is_word = key != "prompt" and re.fullmatch(r"[A-Za-z_][\w./-]*", text)
        return text if is_word and text.lower() not in _NOT_TEXTS else _in_quotes(text)
    if isinstance(value, numbers.Integral):
        return str(int(value))
    if isinstance(value, numbers.Real):
        return repr(float(value))
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{name}:{_as_text(key, item)}" for name, item in value.items()) + "}"
    if isinstance(value, Sequence):
        return "[" + ",".join(_as_text(key, item) for item in value) + "]"
    raise TraceBenchError(
        f"{key} cannot be a {type(value).__name__}; give a number, a text, a list or a dict."
    )
