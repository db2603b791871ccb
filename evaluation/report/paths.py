"""Texts and commands without the paths of the machine that made the report."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trace_bench.system.text import printable

#: Settings that say where files go, which changes no result: a command is the same without them.
_PLACES = re.compile(r"[+~]*(output_root|hydra\.(run|sweep)\.(dir|subdir))(=|$)")
_CONFIG_FLAG = re.compile(r"(--config-[dp]\w*|-cd|-cp)(=.*)?", re.DOTALL)
_FOLDER = "FOLDER"
_QUOTED = re.compile(r"""(["'`])((?:file://)?(?:~[\w.-]*)?/(?!/)[^"'`\n]*)\1""")
#: At least two parts, so that "a/b", "</b>" and a web address are none.
_BARE = re.compile(
    r"""(?<![\w/.~<>…-])(?:file://)?(?:~[\w.-]*/|/(?![/>])[^\s"'`,;:()\[\]{}<>/]+/)[^\s"'`,;:()\[\]{}<>]*"""
)


def without_paths(text: str, root: Path | None = None) -> str:
    """The text with the last part of each absolute path only, and with paths below `root` relative to it."""
    text = printable(text)
    for place in _names(root) if root is not None else ():
        at = rf"(?<![\w./~-]){re.escape(place)}"
        text = re.sub(rf"{at}/+", "", text)
        text = re.sub(rf"{at}(?![\w.-]*\w)", Path(place).name, text)
    text = _QUOTED.sub(lambda found: f"{found[1]}{_last(found[2])}{found[1]}", text)
    return _BARE.sub(lambda found: _last(found[0]), text)


def scrubbed(value: Any) -> Any:
    """`without_paths` for every text in nested lists, tuples and dicts; keys stay."""
    if isinstance(value, str):
        return without_paths(value)
    if isinstance(value, dict):
        return {key: scrubbed(one) for key, one in value.items()}
    return [scrubbed(one) for one in value] if isinstance(value, (list, tuple)) else value


def shareable(command: str) -> str:
    """A command that others can run: without the places of files, and of other paths their last part."""
    try:
        words = shlex.split(command)
    except ValueError:  # not ours: a plan that somebody wrote by hand
        words = command.split()
    return shlex.join(_words(iter(words)))


def _words(words: Iterator[str]) -> Iterator[str]:
    for word in words:
        flag = _CONFIG_FLAG.fullmatch(word)
        if flag:
            if flag[2] is None:
                next(words, None)
            yield from (flag[1], _FOLDER)
        elif not _PLACES.match(word):
            key, equals, value = word.partition("=")
            yield f"{key}{equals}{setting(value)}" if equals else setting(word)


def setting(value: str) -> str:
    """A setting's value, or several with commas; one that is a path may have blanks in it."""
    return ",".join(
        _last(part) if re.match(r"(~[\w.-]*)?/", part) else without_paths(part) for part in value.split(",")
    )


def _last(path: str) -> str:
    return f"…/{Path(path).name}"


def _names(root: Path) -> list[str]:
    """How messages may name the output root, the longest first."""
    found = {str(root), str(root.absolute()), str(root.resolve())} - {".", "/"}
    return sorted((name for name in found if not name.endswith("..")), key=len, reverse=True)
