"""The published tournament: prompts, instructions and scores, downloaded once and checked by SHA-256 or read
from a given folder; and renders, which are a separate download.

We cannot ship any of it: the repository has no licence.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.gpteval3d.comparisons import Scores, read_scores
from trace_bench.run_folder.reading import read_json
from trace_bench.system.cache import fetch
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.files import sha256_of

_RESTORE = "get the published file again, or set published.folder=... to a folder that holds it"
# What the published program puts after an instruction (gpteval3d 0.0.1 on PyPI, MIT: make_comparison_prompt).
# A request to the letter needs it to the letter.
_CLOSING = (
    "Following is the text prompt from which these two 3D objects are generated:\n"
    '"{}"\n'
    "Please compare these two 3D objects as instructed."
)
MADE_BY = "gpt-4-vision-preview"  # the judge of the published scores


def closing(prompt: str) -> str:
    """What follows a published instruction: the text prompt, in quotes and as it is, and the request."""
    return _CLOSING.format(prompt)


@dataclass(frozen=True)
class Published:
    """Location and checksums of the files."""

    folder: Path | None  # given by the user
    cache: Path  # of downloaded files
    url: str
    sha256: Mapping[str, str]  # by path relative to the tournament's root

    @staticmethod
    def from_config(settings: Mapping[str, Any], cache: Path) -> Published:
        folder = settings.get("folder")
        return Published(
            Path(str(folder)).expanduser() if folder else None,
            cache,
            str(settings["url"]),
            settings["sha256"],
        )

    def path(self, name: str) -> Path:
        """Path of a file, downloaded if needed, and checked."""
        if self.folder is not None:
            path = self.folder / name
            if not path.is_file():
                raise TraceBenchError(f"published.folder={self.folder} has no file {name}.")
        else:
            path = self.cache / name
            if not self._is_whole(name, path):
                self._fetch(name, path)
        try:
            found = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise TraceBenchError(f"{path} cannot be read ({error.strerror}).") from error
        expected = self.sha256.get(name)
        if expected and found != expected:
            raise TraceBenchError(
                f"{path} is not the published file: its sha256 is {found}, expected {expected}; delete it, "
                "or set published.sha256 to use another tournament."
            )
        return path

    def _is_whole(self, name: str, path: Path) -> bool:
        """Whether a downloaded file is there, and not damaged."""
        expected = self.sha256.get(name)
        return path.is_file() and (not expected or sha256_of(path) == expected)

    def _fetch(self, name: str, path: Path) -> None:
        url = f"{self.url.rstrip('/')}/{name}"
        try:
            fetch(url, self.sha256.get(name), path)
        except OSError as error:
            raise TraceBenchError(
                f"{name} of the published tournament could not be downloaded from {url} "
                f"({getattr(error, 'reason', error)}); without a network, set published.folder=... to a "
                "folder that holds it, or use instructions=own."
            ) from error
        except ValueError as error:
            raise TraceBenchError(
                f"{url} cannot be used as the published file ({error}): set published.sha256 for it, or "
                "published.folder=... to a folder that holds the file."
            ) from error

    def instruction(self, name: str) -> str:
        """A published instruction text."""
        path = self.path(f"gpt_prompts/{name}.txt")
        try:
            return path.read_text(encoding="utf-8")
        except ValueError as error:
            raise TraceBenchError(f"{path} is not a text in UTF-8: {_RESTORE}.") from error

    def prompts(self) -> list[str]:
        """The text prompts by id."""
        texts = read_json(self.path("prompts.json"), _RESTORE)
        if not isinstance(texts, list):
            raise TraceBenchError(f"{self.path('prompts.json')} is not a list of prompts: {_RESTORE}.")
        return [str(text).strip() for text in texts]

    def scores(self) -> Scores:
        """The published Elo by criterion and method."""
        return read_scores(self.path("config.json"))

    def method_folders(self, names: list[str]) -> dict[str, Path]:
        """The renders of the published methods; the user must put them into the given folder."""
        if self.folder is None or not (self.folder / "methods").is_dir():
            raise TraceBenchError(
                "mode=new_method needs the renders of the published methods, a separate download: "
                "unpack them to FOLDER/methods/<method>/<prompt id>/0/rgb_<i>.png and "
                "normal_<i>.png, and set published.folder=FOLDER."
            )
        missing = [name for name in names if not (self.folder / "methods" / name).is_dir()]
        if missing:
            raise TraceBenchError(
                f"{self.folder / 'methods'} lacks the renders of {', '.join(missing)}; choose available "
                "methods with opponents=[...]."
            )
        return {name: self.folder / "methods" / name for name in names}
