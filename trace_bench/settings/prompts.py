"""Prompt sets: the source of their texts, selecting prompts, and splitting a set into jobs."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trace_bench.system.cache import cache_dir, fetch
from trace_bench.system.errors import TraceBenchError

_INDICES = re.compile(r"\s*\d+(\s*-\s*\d+)?(\s*,\s*\d+(\s*-\s*\d+)?)*\s*")
_SLUG_LENGTH = 48


@dataclass(frozen=True)
class Prompt:
    """One text to make an asset from, with its id in the set."""

    prompt_id: str  # the 0-based index in the set; "x" and a hash for a text from the command line
    text: str

    @property
    def slug(self) -> str:
        """The text as part of a folder name: lower-case ASCII words and hyphens, at most 48 characters."""
        plain = unicodedata.normalize("NFKD", self.text).encode("ascii", "ignore").decode().lower()
        slug = "-".join(re.findall(r"[a-z0-9]+", plain))[:_SLUG_LENGTH].strip("-")
        return slug or "prompt"


@dataclass(frozen=True)
class PromptSet:
    """The prompts of a set, in a fixed order, and the file they were read from."""

    name: str
    prompts: tuple[Prompt, ...]
    source: str  # file name, or "config" if the texts are in the YAML
    sha256: str | None  # of the file
    whole: int | None = None  # number of prompts in the whole set, if this is a part of it

    @property
    def count(self) -> int:
        """Number of prompts in the whole set."""
        return len(self.prompts) if self.whole is None else self.whole

    def only(self, prompts: Sequence[Prompt]) -> PromptSet:
        """The set reduced to some of its prompts, for a job that needs no others."""
        return replace(self, prompts=tuple(prompts), whole=self.count)

    def select(self, wanted: Any) -> list[Prompt]:
        """The prompts for an index, a range "0-9", "0,3,5-7", a text, or a list of these; no duplicates."""
        if isinstance(wanted, (list, tuple)):
            if not wanted:
                raise TraceBenchError("prompt=[] selects nothing; use an index, a range like 0-9, or a text.")
            return list({p: None for item in wanted for p in self.select(item)})
        if isinstance(wanted, int) and not isinstance(wanted, bool):
            return [self._at(wanted)]
        if not isinstance(wanted, str) or not wanted.strip():
            raise TraceBenchError(
                f"prompt={wanted!r} is not a prompt; use an index, a list [0,3], a range 0-9, or a text."
            )
        if _INDICES.fullmatch(wanted):
            return list({self._at(i): None for part in wanted.split(",") for i in _indices(part)})
        return [self._named(wanted.strip())]

    def _at(self, index: int) -> Prompt:
        if not 0 <= index < len(self.prompts):
            raise TraceBenchError(
                f"There is no prompt {index} in prompt_set={self.name}, which has {len(self.prompts)} "
                f"(0 to {len(self.prompts) - 1})."
            )
        return self.prompts[index]

    def _named(self, text: str) -> Prompt:
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        return next((p for p in self.prompts if p.text == text), Prompt(f"x{digest}", text))


def _indices(part: str) -> range:
    """ "3" or "0-9", both ends included."""
    first, _, last = (piece.strip() for piece in part.partition("-"))
    low, high = int(first), int(last or first)
    if high < low:
        raise TraceBenchError(f"The range prompt={part.strip()} is reversed; put the smaller index first.")
    return range(low, high + 1)


def prompt_shards(spec: Mapping[str, Any], prompts_per_job: int, last: int | None = None) -> str:
    """The sweep over a set in Hydra's syntax: "0,1,2" or, with several prompts per job, "0-9,10-19,20-21";
    only the first `last` prompts, if that is fewer than all."""
    if not isinstance(prompts_per_job, int) or isinstance(prompts_per_job, bool) or prompts_per_job < 1:
        raise TraceBenchError(
            f"prompts_per_job must be an integer of at least 1, but is {prompts_per_job!r}."
        )
    count = spec.get("count") or len(load_prompt_set("", spec).prompts)
    count = count if last is None else min(count, last)
    spans = [(low, min(low + prompts_per_job, count) - 1) for low in range(0, count, prompts_per_job)]
    return ",".join(f"{low}" if low == high else f"{low}-{high}" for low, high in spans)


def load_prompt_set(name: str, spec: Mapping[str, Any]) -> PromptSet:
    """Read a set described by conf/prompt_set/*.yaml.

    Keys: `prompts` (the texts themselves), or `file` (a .txt with one prompt per line, a .json list of texts
    or COCO captions), read from `folder` or else downloaded from `url`; `sha256` of the file; `limit` (only
    the first n); `count` (the number of prompts, so that a sweep can be planned without the file).
    """
    if spec.get("prompts") is not None:
        texts, source, sha256 = list(spec["prompts"]), "config", None
    else:
        if not spec.get("file"):
            raise TraceBenchError(
                "prompt_set.file has no value; add prompt_set.file=mine.txt to the command."
            )
        data, source = _read(name, spec)
        sha256 = hashlib.sha256(data).hexdigest()
        if spec.get("sha256") and sha256 != spec["sha256"]:
            raise TraceBenchError(
                f"{source} is not the file of prompt_set={name}: its sha256 is {sha256}, "
                f"expected {spec['sha256']}; delete it, or set prompt_set.folder=... to the right folder."
            )
        texts = _parse(data, source)
    texts = [text.strip() for text in texts[: spec.get("limit")]]
    if not texts or not all(texts):
        what = "an empty prompt" if texts else "no prompts"
        raise TraceBenchError(f"{source} of prompt_set={name} has {what}.")
    if spec.get("count") not in (None, len(texts)):
        raise TraceBenchError(
            f"prompt_set={name} should have {spec['count']} prompts, but {source} has {len(texts)}."
        )
    prompts = tuple(Prompt(str(i), text) for i, text in enumerate(texts))
    return PromptSet(spec.get("name") or name, prompts, Path(source).name, sha256)


def _read(name: str, spec: Mapping[str, Any]) -> tuple[bytes, str]:
    """The file's content and path: from `folder`, the cache, or `url`, in this order."""
    folder, url = spec.get("folder"), spec.get("url")
    path = Path(folder or ".", spec["file"]).expanduser()
    if url and not folder:
        if not isinstance(spec.get("sha256"), str):
            raise TraceBenchError(
                f"prompt_set={name} has a url, but no sha256: add prompt_set.sha256=..., as `sha256sum` "
                "prints it for "
                "the file, or download the file and set prompt_set.folder=... to its folder."
            )
        path = cache_dir() / "prompts" / f"{spec['sha256'][:16]}-{Path(spec['file']).name}"
        if not path.is_file():
            _fetch(name, url, spec["sha256"], path)
    try:
        return path.read_bytes(), str(path)
    except OSError as error:
        raise TraceBenchError(f"prompt_set={name} cannot read {path}: {error.strerror}.") from error


def _fetch(name: str, url: str, sha256: str, path: Path) -> None:
    """Download `url` into the cache."""
    try:
        fetch(url, sha256, path)
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise TraceBenchError(
            f"The prompts of prompt_set={name} could not be downloaded from {url} ({reason}); download them "
            f"elsewhere and set prompt_set.folder=... to its folder (file {Path(url).name})."
        ) from error
    except ValueError as error:
        raise TraceBenchError(
            f"{url} no longer has the expected file of prompt_set={name} ({error})."
        ) from error


def _parse(data: bytes, source: str) -> list[str]:
    """The texts in a file: COCO captions, a JSON list, or one prompt per line."""
    try:
        text = data.decode("utf-8-sig")
        if not source.endswith(".json"):
            return [line for line in text.splitlines() if line.strip()]
        content = json.loads(text)
    except ValueError as error:
        raise TraceBenchError(f"{source} is not UTF-8 text or JSON: {error}.") from error
    if isinstance(content, dict):
        content = [note.get("caption") for note in content.get("annotations", []) if isinstance(note, dict)]
    if not isinstance(content, Sequence) or not all(isinstance(item, str) for item in content):
        raise TraceBenchError(
            f'{source} must be a list of texts, or COCO captions ("annotations" with "caption").'
        )
    return list(content)
