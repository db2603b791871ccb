"""The run folder's manifest.json, and when a run counts as done.

Does not import torch: the evaluation and the status of a sweep read thousands of these files.
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
#: The representation of controls: assets whose answer is known, made to try metrics on.
CONTROL = "control"


class ManifestError(TraceBenchError):
    """A manifest.json that cannot be read as a manifest."""


@dataclass(frozen=True)
class RunIdentity:
    """Identity of a run: method x representation x prompt x guidance scale x seed, and its budget."""

    method: str
    representation: str
    init: str
    prior: str
    protocol: str
    prompt_set: str
    prompt_id: str
    prompt: str
    guidance_scale: float | None  # None if the method has none
    seed: int
    steps: int
    views_per_step: int
    resolution: int  # side of the training renders in pixels

    @property
    def is_control(self) -> bool:
        """Whether this is no asset of a method, but one made to try metrics on."""
        return self.representation == CONTROL


@dataclass
class Manifest:
    """The record of a run; status `done` is written last, after every file in `files` exists."""

    status: Status
    fingerprint: str  # sha256 of everything that changes the asset or the snapshots
    run: RunIdentity
    asset: str = ""  # sha256 of everything that changes the asset; the fingerprint of a run without snapshots
    # load: the prior, compiling; init, distill, render: the asset; total: wall-clock time
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(SECONDS, 0.0))
    cost: dict[str, float | None] = field(default_factory=lambda: dict.fromkeys(COST, None))
    n_primitives: int | None = None
    peak_memory_gb: float | None = None
    prior: dict[str, Any] = field(default_factory=dict)  # repositories, revisions, weights' sha256
    prompt_source: dict[str, Any] = field(default_factory=dict)  # where the prompt's text came from, sha256
    prompt_cut: bool = False  # the texts of the views lack the prompt's last words (too long for the encoder)
    init: dict[str, Any] = field(default_factory=dict)  # the init: points, seconds spent elsewhere
    declared: dict[str, Any] = field(default_factory=dict)  # of an external asset: name, source, minutes
    display_names: dict[str, str] = field(default_factory=dict)  # of method and representation, from YAML
    rig: dict[str, Any] = field(default_factory=dict)  # the evaluation cameras of renders/
    budget: dict[str, Any] = field(
        default_factory=dict
    )  # source of the number of steps: the method's own, or work equal to another method's run
    environment: dict[str, Any] = field(default_factory=dict)
    attempts: int = 0  # number of attempts, including resumes
    started: str = ""  # ISO 8601, UTC, of the first attempt
    finished: str | None = None
    files: list[str] = field(
        default_factory=list
    )  # relative to the run folder, all except the images in renders/
    views: int = 0  # renders/rgb_<i>.png and normal_<i>.png, i < views
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        self.asset = self.asset or self.fingerprint

    @property
    def minutes(self) -> float | None:
        """Minutes of init, distilling and rendering; of an external asset the declared ones. None if unknown.

        What a process pays once is apart, in `minutes_of_loading`.
        """
        if self.declared:
            return self.declared.get("minutes")
        found = [self.seconds.get(name) for name in ("init", "distill", "render")]
        return None if None in found else sum(value or 0.0 for value in found) / 60.0

    @property
    def minutes_of_loading(self) -> float | None:
        """Minutes of loading and compiling, paid by the first run of a process for all; None if unknown."""
        return self.seconds["load"] / 60.0 if "load" in self.seconds else None

    def to_json(self) -> str:
        """The content of manifest.json."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    @staticmethod
    def from_json(text: str) -> Manifest:
        """The inverse of `to_json`; ignores keys unknown to this version."""
        try:
            data = json.loads(text)
            if data["schema_version"] != SCHEMA_VERSION or data["status"] not in STATUSES:
                found = f"schema_version {data['schema_version']!r}, status {data['status']!r}"
                raise ManifestError(f"{found} do not belong to this version")
            known = {f.name: data[f.name] for f in fields(Manifest) if f.name in data}
            identity = {f.name: data["run"][f.name] for f in fields(RunIdentity)}
            return Manifest(**{**known, "run": RunIdentity(**identity)})
        except (ValueError, KeyError, TypeError) as error:
            raise ManifestError(f"it is not a manifest ({type(error).__name__}: {error})") from error


def utc_now() -> str:
    """The current time in the manifest's format."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a run folder; None if there is none; ManifestError if it cannot be read."""
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
    """Replace the run folder's manifest atomically."""
    write_atomic(folder / MANIFEST, manifest.to_json())


def missing_files(folder: Path, manifest: Manifest) -> list[str]:
    """The manifest's files that are missing or empty; images in renders/ are only checked for existence."""

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
    """Whether the run is finished: the manifest says so and all its files exist."""
    return manifest is not None and manifest.status == "done" and not missing_files(folder, manifest)
