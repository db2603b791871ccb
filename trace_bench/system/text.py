"""Text of others (prompts, answers of servers) for terminals and files: without control characters."""

from __future__ import annotations

import contextlib
import io
import sys
import unicodedata

#: Control characters, lone surrogates, and invisible ones, which also turn the direction of a line.
_UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_KEPT = {"\u200c", "\u200d"}  # joiners, which some scripts and emoji need


def without_surrogates(text: str) -> str:
    """The text with U+FFFD for each lone surrogate, which UTF-8 cannot hold."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def printable(text: str) -> str:
    """The text with U+FFFD for what could control a terminal; line breaks and tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join("\ufffd" if _is_unseen(c) and c not in "\n\t" else c for c in without_surrogates(text))


def one_line(text: str, limit: int | None = None) -> str:
    """The text as one printable line of at most `limit` characters."""
    line = printable(" ".join(text.split()))
    return line if limit is None or len(line) <= limit else line[: limit - 1] + "…"


def _is_unseen(character: str) -> bool:
    return unicodedata.category(character) in _UNSEEN and character not in _KEPT


def tolerate_terminal() -> None:
    """Print "?" for characters that the terminal's encoding lacks, instead of an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(ValueError, OSError):  # already closed
                stream.reconfigure(errors="replace")
