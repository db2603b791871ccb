"""The run folder's manifest.json, and when a run counts as done.

Does not import torch: the evaluation and the status of a sweep read thousands of these files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, TypeAdapter

from trace_bench.system.errors import TraceBenchError
from trace_bench.system.files import content_of, sha256_of, sync_file, sync_folder, write_atomic
from trace_bench.system.typed import Amount, Count, Finite, FormatError, Integer, parse

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
Status = Literal["running", "done", "failed", "preempted"]
STATUSES: tuple[Status, ...] = ("running", "done", "failed", "preempted")
SECONDS = ("load", "init", "distill", "render", "total")
COST = ("unet_fwd", "unet_bwd", "vae_enc_fwd", "vae_enc_bwd", "vae_dec", "reward", "tflop")
RENDERS = "renders"
#: Files that grow after the run is done; only their existence is checked.
GROWING = ("log.txt",)
#: Files that may be empty: a run that resumes after its last step may have lost its rows.
_MAY_BE_EMPTY = ("log.txt", "metrics.jsonl")
_MOST_VIEWS = 100_000  # a larger number is a mistake, which would take hours to check
#: The representation of controls: assets whose answer is known, made to try metrics on.
CONTROL = "control"


class ManifestError(TraceBenchError):
    """A manifest.json that cannot be read as a manifest."""


class NewerManifestError(ManifestError):
    """A manifest.json of a newer version of trace_bench."""


def _holds(**known: type | tuple[type, ...]) -> AfterValidator:
    """Check the types of a dictionary's known keys, which readers use; others may hold anything."""

    def check(found: dict[str, Any]) -> dict[str, Any]:
        for key, wanted in known.items():
            if not isinstance(found.get(key), (wanted, type(None))) or isinstance(found.get(key), bool):
                raise ValueError(f"{key} cannot be {found[key]!r}")
        return found

    return AfterValidator(check)


_TEXT, _NUMBER = str, (int, float)


@dataclass(frozen=True)
class FileRecord:
    """What a finished run's file holds."""

    bytes: Count
    sha256: str


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
    guidance_scale: Finite | None  # None if the method has none
    seed: Integer
    steps: Integer
    views_per_step: Integer
    resolution: Integer  # side of the training renders in pixels

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
    seconds: dict[str, Amount] = field(default_factory=lambda: dict.fromkeys(SECONDS, 0.0))
    # single: the networks compute what the run asks for; batched: in batches of batch_sizes (docs/lanes.md)
    mode: Literal["single", "batched"] = "single"
    batch_sizes: dict[str, list[Count]] = field(default_factory=dict)  # rows, by network
    lanes: Count = 1  # runs that shared the process; with more than one, `seconds` are this run's share
    cost: dict[str, Amount | None] = field(default_factory=lambda: dict.fromkeys(COST, None))
    n_primitives: Integer | None = None
    peak_memory_gb: Amount | None = None
    tflop_per_s: Amount | None = None  # counted work of the prior by the time of distilling
    mfu: Amount | None = None  # that by the published peak of the GPU; null where it is not known
    prior: dict[str, Any] = field(default_factory=dict)  # repositories, revisions, weights' sha256
    #: what the method maximised beside the prior: `metrics` of the evaluation that show it, and its settings
    reward: Annotated[dict[str, Any], _holds(metrics=list)] = field(default_factory=dict)
    prompt_source: dict[str, Any] = field(default_factory=dict)  # where the prompt's text came from, sha256
    prompt_cut: bool = False  # the texts of the views lack the prompt's last words (too long for the encoder)
    init: dict[str, Any] = field(default_factory=dict)  # the init: points, seconds spent elsewhere
    declared: Annotated[dict[str, Any], _holds(name=_TEXT, source=_TEXT, minutes=_NUMBER)] = field(
        default_factory=dict
    )  # of an external asset: name, source, minutes
    display_names: dict[str, str] = field(default_factory=dict)  # of method and representation, from YAML
    rig: dict[str, Any] = field(default_factory=dict)  # the evaluation cameras of renders/
    budget: dict[str, Any] = field(
        default_factory=dict
    )  # source of the number of steps: the method's own, or work equal to another method's run
    environment: Annotated[dict[str, Any], _holds(gpu=_TEXT, cpu=_TEXT, slurm=dict)] = field(
        default_factory=dict
    )
    attempts: Count = 0  # number of attempts, including resumes
    started: str = ""  # ISO 8601, UTC, of the first attempt
    finished: str | None = None
    files: list[str] = field(
        default_factory=list
    )  # relative to the run folder, all except the images in renders/
    views: Annotated[int, Field(ge=0, le=_MOST_VIEWS)] = (
        0  # renders/rgb_<i>.png and normal_<i>.png, i < views
    )
    contents: dict[str, FileRecord] = field(
        default_factory=dict
    )  # size and sha256 of every file of a finished run, except those that grow; the run index leaves it out
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        self.asset = self.asset or self.fingerprint

    @property
    def minutes(self) -> float | None:
        """Minutes of init, distilling and rendering; of an external asset the declared ones.

        None if unknown, or if the process was shared (`minutes_shared`).

        What a process pays once is apart, in `minutes_of_loading`.
        """
        if self.declared:
            return self.declared.get("minutes")
        return None if self.lanes > 1 else self._minutes

    @property
    def minutes_shared(self) -> float | None:
        """The same of a run that shared its process with others, as its share. None if it did not."""
        return self._minutes if self.lanes > 1 and not self.declared else None

    @property
    def _minutes(self) -> float | None:
        found = [self.seconds.get(name) for name in ("init", "distill", "render")]
        return None if None in found else sum(value or 0.0 for value in found) / 60.0

    @property
    def minutes_of_loading(self) -> float | None:
        """Minutes of loading and compiling, paid by the first run of a process for all; None if unknown."""
        return self.seconds["load"] / 60.0 if "load" in self.seconds else None

    def to_json(self) -> str:
        """The content of manifest.json."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    def plain(self) -> dict[str, Any]:
        """The fields as plain data, for a cache that nobody else writes."""
        return vars(self) | {"run": vars(self.run), "contents": {}}

    @staticmethod
    def from_plain(fields: dict[str, Any]) -> Manifest:
        """The inverse of `plain`, not checked again; TypeError if it has other fields."""
        return Manifest(**fields | {"run": RunIdentity(**fields["run"])})

    @staticmethod
    def from_json(text: str) -> Manifest:
        """The inverse of `to_json`; ignores keys unknown to this version.

        Raises:
            NewerManifestError: a newer version wrote it.
            ManifestError: it is not a manifest; the reason names the key.
        """
        try:
            found = parse(_versions(), text).schema_version
            if found > SCHEMA_VERSION:
                raise NewerManifestError(
                    f"schema_version {found} is newer than {SCHEMA_VERSION}, which this version knows; "
                    "update trace_bench"
                )
            if found < SCHEMA_VERSION:
                raise ManifestError(f"schema_version {found} is not {SCHEMA_VERSION}")
            manifest = parse(_manifests(), text)
        except FormatError as error:
            raise ManifestError(f"it is not a manifest ({error})") from error
        if manifest.status == "done" and not manifest.files:
            raise ManifestError("it says done, but names no files")
        return manifest


@dataclass(frozen=True)
class _Version:
    schema_version: Integer


@cache
def _versions() -> TypeAdapter[_Version]:
    return TypeAdapter(_Version)


@cache
def _manifests() -> TypeAdapter[Manifest]:
    return TypeAdapter(Manifest)


def utc_now() -> str:
    """The current time in the manifest's format."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a run folder; None if there is none; ManifestError if it cannot be read."""
    path = folder / MANIFEST
    try:
        text = content_of(path).decode()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path} cannot be read: it is not text ({error}).") from error
    except OSError as error:  # a folder of this name, a loop of links, a failing disk
        raise ManifestError(f"{path} cannot be read ({error.strerror}).") from error
    try:
        return Manifest.from_json(text)
    except ManifestError as error:
        raise type(error)(f"{path} cannot be read: {error}.") from error


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace the run folder's manifest atomically."""
    write_atomic(folder / MANIFEST, manifest.to_json())


def file_names(manifest: Manifest) -> Iterator[str]:
    """All files of a finished run, relative to its folder, with the images in renders/."""
    yield from manifest.files
    for kind in ("rgb", "normal"):
        yield from (f"{RENDERS}/{kind}_{i}.png" for i in range(manifest.views))


def differing_files(folder: Path, manifest: Manifest) -> dict[str, str]:
    """The files of a finished run that are missing, empty or of another size than recorded, with the reason.

    Cheap: reads no content.
    """
    sizes = _sizes(folder / RENDERS)
    found = {}
    for name in file_names(manifest):
        parent, _, file = name.rpartition("/")
        size = sizes.get(file) if parent == RENDERS else _size(folder / name)
        recorded = manifest.contents.get(name)
        if size is None:
            found[name] = "missing"
        elif size == 0 and name not in _MAY_BE_EMPTY:
            found[name] = "empty"
        elif recorded is not None and size != recorded.bytes:
            found[name] = f"{size} bytes instead of {recorded.bytes}"
    return found


def changed_files(folder: Path, manifest: Manifest) -> dict[str, str]:
    """`differing_files` and those whose content is not as recorded; reads every file."""
    found = differing_files(folder, manifest)
    for name in file_names(manifest):
        if name not in found and (why := changed_content(folder, manifest, name)):
            found[name] = why
    return found


def changed_content(folder: Path, manifest: Manifest, name: str) -> str | None:
    """Why the content of a file is not as recorded; None if it is, or if nothing is recorded of it."""
    recorded = manifest.contents.get(name)
    try:
        if recorded is None or sha256_of(folder / name) == recorded.sha256:
            return None
        return "its content has changed"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def record_files(folder: Path, manifest: Manifest) -> None:
    """Write every file of the run to the disk and record its size and hash in the manifest.

    After this, a manifest with the status `done` cannot outlive its files in a power failure.
    """
    names = list(dict.fromkeys(file_names(manifest)))
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        records = pool.map(lambda name: _synced(folder / name), names)
        manifest.contents = {
            name: record for name, record in zip(names, records, strict=True) if name not in GROWING
        }
    parents = {
        parent for name in names for parent in (folder / name).parents if parent.is_relative_to(folder)
    }
    for parent in sorted(parents, key=lambda path: -len(path.parts)):
        sync_folder(parent)


def _synced(path: Path) -> FileRecord:
    sync_file(path)
    return FileRecord(path.stat().st_size, sha256_of(path))


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size if path.is_file() else None
    except (OSError, ValueError):  # a name with a zero byte
        return None


def _sizes(folder: Path) -> dict[str, int]:
    """Sizes of the files directly in a folder, by name."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
    except OSError:
        return {}


def is_done(folder: Path, manifest: Manifest | None) -> bool:
    """Whether the run is finished: the manifest says so, and all its files are there with their sizes."""
    return manifest is not None and manifest.status == "done" and not differing_files(folder, manifest)
