"""The run folder's contract: manifest.json, and when a run counts as done.

Light on purpose (no torch): the evaluation and the status of a sweep read thousands of these.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from trace_bench.system.errors import TraceBenchError
from trace_bench.system.files import write_atomic

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
Status = Literal["running", "done", "failed", "preempted"]
STATUSES: tuple[Status, ...] = ("running", "done", "failed", "preempted")
SECONDS = ("load", "init", "distill", "render", "total")
COST = ("unet_fwd", "unet_bwd", "vae_enc_fwd", "vae_enc_bwd", "vae_dec", "tflop")


RENDERS = "renders"


class ManifestError(TraceBenchError):
    """A manifest.json that cannot be read as one."""


@dataclass(frozen=True)
class RunIdentity:
    """What a run is: method x representation x prompt x guidance scale x seed, and the budget it had."""

    method: str
    representation: str
    init: str
    prior: str
    protocol: str
    prompt_set: str
    prompt_id: str
    prompt: str
    guidance_scale: float | None  # None where the method has none
    seed: int
    steps: int
    views_per_step: int
    resolution: int  # pixels a side of the training renders


@dataclass
class Manifest:
    """All that is known of a run; `done` is written last, after every file in `files` exists."""

    status: Status
    fingerprint: str  # sha256 of everything that changes the asset
    run: RunIdentity
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(SECONDS, 0.0))
    cost: dict[str, float | None] = field(default_factory=lambda: dict.fromkeys(COST, None))
    n_primitives: int | None = None
    peak_memory_gb: float | None = None
    prior: dict[str, Any] = field(default_factory=dict)  # repositories, revisions, weights' sha256
    prompt_source: dict[str, Any] = field(default_factory=dict)  # where the prompt's text came from, sha256
    start: dict[str, Any] = field(default_factory=dict)  # what the init gave: points, seconds spent elsewhere
    declared: dict[str, Any] = field(default_factory=dict)  # of an external asset: name, source, minutes
    rig: dict[str, Any] = field(default_factory=dict)  # the evaluation cameras of renders/
    budget: dict[str, Any] = field(
        default_factory=dict
    )  # where steps come from: own, or as much work as another
    environment: dict[str, Any] = field(default_factory=dict)
    attempts: int = 0  # how often the run was started, resumes included
    started: str = ""  # ISO 8601, UTC, of the first attempt
    finished: str | None = None
    files: list[str] = field(
        default_factory=list
    )  # relative to the run folder, all but the pictures of renders/
    views: int = 0  # renders/rgb_<i>.png and normal_<i>.png, i < views
    schema_version: int = SCHEMA_VERSION

    @property
    def minutes(self) -> float | None:
        """What the asset took: declared where another system made it (None: nobody knows), else measured."""
        if self.declared:
            return self.declared.get("minutes")
        return self.seconds["total"] / 60.0 if "total" in self.seconds else None

    def to_json(self) -> str:
        """Content of manifest.json."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    @staticmethod
    def from_json(text: str) -> Manifest:
        """The inverse of `to_json`; keys that this version does not know are left out."""
        try:
            data = json.loads(text)
            if data["schema_version"] != SCHEMA_VERSION or data["status"] not in STATUSES:
                found = f"schema_version {data['schema_version']!r}, status {data['status']!r}"
                raise ManifestError(f"{found} are not of this version")
            known = {f.name: data[f.name] for f in fields(Manifest) if f.name in data}
            identity = {f.name: data["run"][f.name] for f in fields(RunIdentity)}
            return Manifest(**{**known, "run": RunIdentity(**identity)})
        except (ValueError, KeyError, TypeError) as error:
            raise ManifestError(f"it is not a manifest ({type(error).__name__}: {error})") from error


def utc_now() -> str:
    """The time as manifests write it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a run folder, None where there is none; ManifestError where it cannot be read."""
    path = folder / MANIFEST
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path} cannot be read: it is not text ({error}).") from error
    try:
        return Manifest.from_json(text)
    except ManifestError as error:
        raise ManifestError(f"{path} cannot be read: {error}.") from error


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace the run folder's manifest in one step."""
    write_atomic(folder / MANIFEST, manifest.to_json())


def missing_files(folder: Path, manifest: Manifest) -> list[str]:
    """Those of the manifest's files that are not there or empty; one look at renders/ counts its pictures."""

    def is_there(path: Path) -> bool:
        return path.is_file() and path.stat().st_size > 0

    missing = [name for name in manifest.files if not is_there(folder / name)]
    if manifest.views:
        try:
            there = {entry.name for entry in os.scandir(folder / RENDERS)}
        except FileNotFoundError:
            there = set()
        wanted = (f"{kind}_{i}.png" for kind in ("rgb", "normal") for i in range(manifest.views))
        missing += [f"{RENDERS}/{name}" for name in wanted if name not in there]
    return missing


def is_done(folder: Path, manifest: Manifest | None) -> bool:
    """Whether the run is finished: the manifest says so and every file that it names is there."""
    return manifest is not None and manifest.status == "done" and not missing_files(folder, manifest)
