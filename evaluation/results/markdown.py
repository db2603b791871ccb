"""Texts of others (prompts, names) in Markdown."""

from __future__ import annotations

import re

from trace_bench.system.text import one_line

_SPECIAL = re.compile(
    r"[\\|]|<(?=[A-Za-z/!?])|(?<=\])\("
)  # ends a cell, starts a tag, makes a link or picture


def plain(text: str) -> str:
    """The text as one line that stays text: no cell ends, no HTML, no link, nothing for the terminal."""
    return _SPECIAL.sub(lambda match: f"\\{match[0]}", one_line(text))


def sentence(text: str) -> str:
    """The same for captions and notes, which may have `code` and brackets of their own."""
    return re.sub(r"<(?=[A-Za-z/!?])", r"\\<", one_line(text))
