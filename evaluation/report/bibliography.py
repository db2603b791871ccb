"""The papers behind a citation of conf/ or of a metric: links, and BibTeX."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

Entry = Mapping[str, Any]
_FILE = Path(__file__).with_name("bibliography.yaml")
_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
}


@cache
def entries() -> dict[str, Entry]:
    """All known papers by key."""
    return yaml.safe_load(_FILE.read_text(encoding="utf-8"))


def keys_of(citation: str | None, part: str = "") -> list[str]:
    """The papers that a citation names, or that belong to a part such as prior/sd21."""
    return [
        key
        for key, entry in entries().items()
        if part in entry.get("parts", ()) or any(name in (citation or "") for name in entry.get("names", ()))
    ]


def links(keys: Iterable[str]) -> list[dict[str, str]]:
    """Title and address of papers."""
    return [{"title": str(entries()[key]["title"]), "url": str(entries()[key]["url"])} for key in keys]


def bibtex(keys: Iterable[str], unknown: Iterable[str] = ()) -> str:
    """BibTeX of papers in the order given; citations without an entry become @misc with their text."""
    found = [_entry(key, entries()[key]) for key in dict.fromkeys(keys)]
    for i, text in enumerate(dict.fromkeys(unknown), start=1):
        found.append(_block("misc", f"other{i}", {"note": text}))
    return "\n\n".join(found) + "\n"


def software(version: str) -> str:
    """BibTeX of trace_bench itself, as in CITATION.cff."""
    return _block("software", "trace_bench", {
        "title": "trace_bench: a fair bench for text-to-3D score distillation",
        "author": "{The trace_bench contributors}",
        "version": version,
    })  # fmt: skip


def _entry(key: str, entry: Entry) -> str:
    kind = "article" if "journal" in entry else "inproceedings" if "booktitle" in entry else "misc"
    names = ("title", "author", "booktitle", "journal", "year", "url")
    return _block(kind, key, {name: str(entry[name]) for name in names if name in entry})


def _block(kind: str, key: str, fields: Mapping[str, str]) -> str:
    lines = [f"  {name} = {{{_tex(name, value)}}}," for name, value in fields.items()]
    return "\n".join([f"@{kind}{{{key},", *lines, "}"])


def _tex(name: str, value: str) -> str:
    if name in ("url", "author"):
        return value
    text = re.sub(
        "|".join(map(re.escape, _LATEX)), lambda match: _LATEX[match.group()], " ".join(value.split())
    )
    # braces keep capitals inside a title, such as 3D and DreamFusion
    return (
        re.sub(r"\b\w*[A-Z0-9]\w*[A-Z]\w*\b|\b[a-z]+[A-Z]\w*\b", r"{\g<0>}", text)
        if name == "title"
        else text
    )
