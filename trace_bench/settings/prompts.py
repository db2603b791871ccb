"""Prompt sets: where their texts come from, how one is picked, how a sweep cuts them into jobs."""

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
    """One text to make an asset from, and its name in its set."""

    prompt_id: str  # the 0-based index in the set, "x" and a hash for a text of the user's own
    text: str

    @property
    def slug(self) -> str:
        """The text as part of a folder's name: lower-case ASCII words and hyphens, at most 48 characters."""
        plain = unicodedata.normalize("NFKD", self.text).encode("ascii", "ignore").decode().lower()
        slug = "-".join(re.findall(r"[a-z0-9]+", plain))[:_SLUG_LENGTH].strip("-")
        return slug or "prompt"


@dataclass(frozen=True)
class PromptSet:
    """The prompts of a set, in an order that never changes, and the file they were read from."""

    name: str
    prompts: tuple[Prompt, ...]
    source: str  # file name, or "config" where the texts stand in the YAML
    sha256: str | None  # of the file
    whole: int | None = None  # how many prompts the set has, where this is a part of it

    @property
    def count(self) -> int:
        """How many prompts the whole set has."""
        return len(self.prompts) if self.whole is None else self.whole

    def only(self, prompts: Sequence[Prompt]) -> PromptSet:
        """The set with some of its prompts, for a job that needs no others."""
        return replace(self, prompts=tuple(prompts), whole=self.count)

    def select(self, wanted: Any) -> list[Prompt]:
        """The prompts meant by an index, a range "0-9", "0,3,5-7", a text, or a list of these, each once."""
        if isinstance(wanted, (list, tuple)):
            if not wanted:
                raise TraceBenchError(
                    "prompt=[] asks for nothing; give an index, a range like 0-9, or a text."
                )
            return list({p: None for item in wanted for p in self.select(item)})
        if isinstance(wanted, int) and not isinstance(wanted, bool):
            return [self._at(wanted)]
        if not isinstance(wanted, str) or not wanted.strip():
            raise TraceBenchError(
                f"prompt={wanted!r} is no prompt; give an index, a list [0,3], a range 0-9, or a text."
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
        raise TraceBenchError(
            f"The range prompt={part.strip()} runs backwards; write the smaller index first."
        )
    return range(low, high + 1)


def prompt_shards(spec: Mapping[str, Any], prompts_per_job: int, last: int | None = None) -> str:
    """The sweep over a set as Hydra takes it: "0,1,2" or, several a job, "0-9,10-19,20-21"; over the first
    `last` prompts, where that is less than all."""
    if not isinstance(prompts_per_job, int) or isinstance(prompts_per_job, bool) or prompts_per_job < 1:
        raise TraceBenchError(
            f"prompts_per_job must be an integer of at least 1, but is {prompts_per_job!r}."
        )
    count = spec.get("count") or len(load_prompt_set("", spec).prompts)
    count = count if last is None else min(count, last)
    spans = [(low, min(low + prompts_per_job, count) - 1) for low in range(0, count, prompts_per_job)]
    return ",".join(f"{low}" if low == high else f"{low}-{high}" for low, high in spans)


def load_prompt_set(name: str, spec: Mapping[str, Any]) -> PromptSet:
    """Read a set as conf/prompt_set/*.yaml describes it.

    Keys: `prompts` (the texts themselves), or `file` (a .txt with a prompt a line, a .json list of texts or
    COCO captions), which is looked for in `folder` and else fetched from `url`; `sha256` of the file; `limit`
    (the first n only); `count` (how many there are, so that a sweep can be planned without the file).
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
                f"{source} is not the file that prompt_set={name} is defined by: its sha256 is {sha256}, "
                f"expected {spec['sha256']}; delete it, or name the right folder with prompt_set.folder=..."
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
    """The file's content and where it was found: `folder`, the cache, or `url` in this order."""
    folder, url = spec.get("folder"), spec.get("url")
    path = Path(folder or ".", spec["file"]).expanduser()
    if url and not folder:
        path = cache_dir() / "prompts" / f"{spec['sha256'][:16]}-{Path(spec['file']).name}"
        if not path.is_file():
            _fetch(name, url, spec["sha256"], path)
    try:
        return path.read_bytes(), str(path)
    except OSError as error:
        raise TraceBenchError(f"prompt_set={name} cannot read {path}: {error.strerror}.") from error


def _fetch(name: str, url: str, sha256: str, path: Path) -> None:
    """Download `url` into the cache, once."""
    try:
        fetch(url, sha256, path)
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise TraceBenchError(
            f"The prompts of prompt_set={name} could not be fetched from {url} ({reason}); fetch the file on "
            f"a machine with internet and name its folder with prompt_set.folder=... (file {Path(url).name})."
        ) from error
    except ValueError as error:
        raise TraceBenchError(
            f"{url} does not hold the file that prompt_set={name} is defined by ({error})."
        ) from error


def _parse(data: bytes, source: str) -> list[str]:
    """The texts in a file's content: COCO captions, a JSON list, or a prompt a line."""
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
            f'{source} must hold a list of texts, or COCO captions ("annotations" with "caption").'
        )
    return list(content)
