"""A run folder as its readers see it: the manifest, the cameras, the pictures."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from trace_bench.run_folder.manifest import Manifest, RunIdentity
from trace_bench.system.errors import UNREADABLE, TraceBenchError
from trace_bench.system.files import content_of
from trace_bench.system.typed import Finite, read_typed

AGAIN = "repeat the run with force=true"
DIFF = "code.diff"  # the uncommitted changes of the code that made a run
#: The folder of the renders of single steps (`renders_at`), and the record beside each step's renders.
STEP_RENDERS, STEP = "renders_at", "step.json"


@dataclass(frozen=True)
class Run:
    """One asset and its folder."""

    folder: Path
    manifest: Manifest

    @property
    def identity(self) -> RunIdentity:
        return self.manifest.run

    @property
    def prompt(self) -> str:
        return self.manifest.run.prompt

    @property
    def geometry(self) -> Path:
        """alpha uint8 and z-depth float16, both [N, H, W]; missing if the asset has no shape."""
        return self.folder / "renders" / "geometry.npz"

    @property
    def cameras_file(self) -> Path:
        return self.folder / "renders" / "cameras.json"

    def rgb(self, view: int) -> Path:
        return self.folder / "renders" / f"rgb_{view}.png"

    def normal(self, view: int) -> Path:
        return self.folder / "renders" / f"normal_{view}.png"

    @property
    def steps_rendered(self) -> dict[int, Run]:
        """Number of steps -> the asset after them, as a run whose folder holds its renders and scores."""
        numbers = sorted(
            int(name.split("/")[1]) for name in self.manifest.files
            if name.startswith(f"{STEP_RENDERS}/") and name.endswith(f"/{STEP}")
        )  # fmt: skip
        return {n: Run(self.folder / STEP_RENDERS / f"{n:05d}", self.manifest) for n in numbers}

    @cached_property
    def cameras(self) -> list[dict[str, Any]]:
        """The cameras of the evaluation rig from cameras.json: one dict per view."""
        return [asdict(view) for view in read_typed(_camera_lists(), self.cameras_file, AGAIN)]


@dataclass(frozen=True)
class _View:
    """One view of cameras.json."""

    elevation_deg: Finite
    azimuth_deg: Finite
    distance: Finite
    fovy_deg: Finite
    width: Annotated[int, Field(ge=1, le=65536)]
    height: Annotated[int, Field(ge=1, le=65536)]
    c2w: Annotated[list[Annotated[list[Finite], Field(min_length=4, max_length=4)]], Field(min_length=3)]


@cache
def _camera_lists() -> TypeAdapter[list[_View]]:
    return TypeAdapter(Annotated[list[_View], Field(min_length=1)])


def one_per_asset(runs: Iterable[Run]) -> list[Run]:
    """The runs without those that made the same asset once more, with other snapshots.

    Kept is the run without snapshots, because its time includes none; else the first one given.
    """
    kept: dict[tuple[RunIdentity, str], Run] = {}
    for run in runs:
        if run.manifest.fingerprint == run.manifest.asset:
            kept[of_asset(run)] = run
        kept.setdefault(of_asset(run), run)
    return list(kept.values())


def of_asset(run: Run) -> tuple[RunIdentity, str]:
    """Equal for runs that made the same asset."""
    return run.identity, run.manifest.asset


def read_json(path: Path, advice: str = AGAIN) -> Any:
    """The content of a JSON file; if it is missing or broken, an error that names it and gives the advice."""
    try:
        return json.loads(content_of(path))
    except FileNotFoundError:
        raise TraceBenchError(f"{path} is missing: {advice}.") from None
    except (OSError, *UNREADABLE) as error:
        said = str(error) or type(error).__name__
        raise TraceBenchError(f"{path} cannot be read as JSON ({said}): {advice}.") from error


def natural(text: str) -> tuple[int, int, str]:
    """Sort key that puts 2 before 10 and numbers before words."""
    return (0, int(text), text) if text.isdecimal() else (1, 0, text)
