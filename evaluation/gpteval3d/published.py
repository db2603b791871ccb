"""The published tournament: its prompts, instructions and scores, fetched once by URL and SHA-256 or
read from a named folder, and its renders, which are a separate download.

None of it is ours to ship: the repository that holds it has no licence.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.gpteval3d.comparisons import Scores, read_scores
from trace_bench.system.cache import fetch
from trace_bench.system.errors import TraceBenchError

MADE_BY = "gpt-4-vision-preview"  # the judge of the published scores


@dataclass(frozen=True)
class Published:
    """Where the files are, and what they must be."""

    folder: Path | None  # named by the user
    cache: Path  # where fetched files are kept
    url: str
    sha256: Mapping[str, str]  # by name below the tournament's root

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
        """The file, fetched where it has to be, and checked."""
        if self.folder is not None:
            path = self.folder / name
            if not path.is_file():
                raise TraceBenchError(f"published.folder={self.folder} has no file {name}.")
        else:
            path = self.cache / name
            if not path.is_file():
                self._fetch(name, path)
        found, expected = hashlib.sha256(path.read_bytes()).hexdigest(), self.sha256.get(name)
        if expected and found != expected:
            raise TraceBenchError(
                f"{path} is not the published file: its sha256 is {found}, expected {expected}; delete it, "
                "or set published.sha256 where another tournament is meant."
            )
        return path

    def _fetch(self, name: str, path: Path) -> None:
        url = f"{self.url.rstrip('/')}/{name}"
        try:
            fetch(url, self.sha256.get(name), path)
        except OSError as error:
            raise TraceBenchError(
                f"{name} of the published tournament could not be fetched from {url} "
                f"({getattr(error, 'reason', error)}); where there is no network name a folder that holds it "
                "with published.folder=..., or take instructions=own."
            ) from error
        except ValueError as error:
            raise TraceBenchError(f"{url} does not hold the published file ({error}).") from error

    def instruction(self, name: str) -> str:
        """One of the published instruction texts."""
        return self.path(f"gpt_prompts/{name}.txt").read_text(encoding="utf-8")

    def prompts(self) -> list[str]:
        """The text prompts by id."""
        return [
            str(text).strip() for text in json.loads(self.path("prompts.json").read_text(encoding="utf-8"))
        ]

    def scores(self) -> Scores:
        """The published Elo by criterion and method."""
        return read_scores(self.path("config.json"))

    def method_folders(self, names: list[str]) -> dict[str, Path]:
        """The renders of the published methods; they have to be put into the named folder by hand."""
        if self.folder is None or not (self.folder / "methods").is_dir():
            raise TraceBenchError(
                "mode=new_method compares with the renders of the published methods, which are a download "
                "of their own: unpack them to FOLDER/methods/<method>/<prompt id>/0/rgb_<i>.png and "
                "normal_<i>.png, and name the folder with published.folder=FOLDER."
            )
        missing = [name for name in names if not (self.folder / "methods" / name).is_dir()]
        if missing:
            raise TraceBenchError(
                f"{self.folder / 'methods'} lacks the renders of {', '.join(missing)}; name those that "
                "are there with opponents=[...]."
            )
        return {name: self.folder / "methods" / name for name in names}
