"""A run folder while it is written: what there is, what of it is to be trusted, how the attempt ends."""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from trace_bench.run_folder.index import ERROR
from trace_bench.run_folder.manifest import (
    SECONDS,
    Manifest,
    ManifestError,
    Status,
    is_done,
    missing_files,
    read_manifest,
    utc_now,
    write_manifest,
)
from trace_bench.runs.checkpoint import CHECKPOINT, Checkpoint, CheckpointError, load_checkpoint
from trace_bench.runs.claim import CLAIM
from trace_bench.runs.environment import describe_environment
from trace_bench.runs.identity import RunSpec
from trace_bench.settings.config import Job
from trace_bench.system.files import write_atomic, write_json

CONFIG, LOG = "config.yaml", "log.txt"
_TRACEBACK_LINES = 40
log = logging.getLogger(__name__)


class Stopwatch:
    """Seconds by phase; `total` is wall-clock time, earlier attempts up to their last checkpoint included."""

    def __init__(self) -> None:
        self._seconds = dict.fromkeys(SECONDS, 0.0)
        self._began = time.monotonic()

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Charge the block to a phase."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._seconds[name] += time.monotonic() - began

    def go_on_from(self, seconds: dict[str, float]) -> None:
        """Add what the kept part of earlier attempts took."""
        self._seconds = {key: value + seconds.get(key, 0.0) for key, value in self._seconds.items()}

    def set(self, name: str, seconds: float) -> None:
        """A phase that keeps its own time."""
        self._seconds[name] = seconds

    def charge(self, name: str, seconds: float) -> None:
        """Add to a phase, and to the total, what was spent elsewhere."""
        self._seconds[name] += seconds
        self._seconds["total"] += seconds

    def __getitem__(self, name: str) -> float:
        return self._seconds[name]

    def snapshot(self) -> dict[str, float]:
        """All phases and the total."""
        total = self._seconds["total"] + time.monotonic() - self._began
        return {key: round(value, 3) for key, value in (self._seconds | {"total": total}).items()}


class OpenRun:
    """The folder of one attempt at a run; the claim on it is held by the caller."""

    def __init__(self, spec: RunSpec) -> None:
        self.spec, self.folder = spec, spec.folder
        self.watch = Stopwatch()
        self.manifest = Manifest("running", spec.fingerprint, spec.identity, started=utc_now())

    def is_finished(self) -> bool:
        """Whether there is nothing to do; clears a folder whose content cannot be gone on with."""
        earlier, force = self._earlier(), self.spec.job.force
        if earlier is None:
            return False
        if earlier.status == "done":
            if is_done(self.folder, earlier) and not force:
                (self.folder / CHECKPOINT).unlink(missing_ok=True)
                return True
            if not force:
                lacking = ", ".join(missing_files(self.folder, earlier)[:3])
                log.warning("%s is marked done but lacks %s; it starts from scratch.", self.folder, lacking)
            clear(self.folder)
        elif force and earlier.status == "failed":
            clear(self.folder)
        else:  # a run that was interrupted goes on even with force=true, or a requeued job would never end
            self.manifest.started, self.manifest.attempts = earlier.started, earlier.attempts
        return False

    def _earlier(self) -> Manifest | None:
        """The manifest of an earlier attempt; where it is damaged the folder is cleared."""
        try:
            manifest = read_manifest(self.folder)
        except ManifestError as error:
            log.warning("%s The run starts from scratch.", error)
        else:
            if manifest is None or manifest.fingerprint == self.spec.fingerprint:
                return manifest
            log.warning("%s holds another run's files; the run starts from scratch.", self.folder)
        clear(self.folder)
        return None

    def begin(self, device: str) -> None:
        """Say that the run is being made, and of what."""
        job, manifest = self.spec.job, self.manifest
        manifest.attempts += 1
        manifest.rig = dict(job.rig)
        manifest.budget = budget_of(job)
        prompts = self.spec.prompt_set
        manifest.prompt_source = {
            "file": prompts.source,
            "sha256": prompts.sha256,
            "count": prompts.count,
        }
        manifest.environment = describe_environment(device)
        (self.folder / ERROR).unlink(missing_ok=True)
        for leftover in self.folder.glob(".*.partial"):
            remove(leftover)
        write_manifest(self.folder, manifest)
        settings = {**vars(job), "prompt": self.spec.prompt.text, "prompt_id": self.spec.prompt.prompt_id}
        write_atomic(self.folder / CONFIG, OmegaConf.to_yaml(OmegaConf.create(settings)))

    def checkpoint(self) -> Checkpoint | None:
        """Where to go on, None for the start."""
        try:
            return load_checkpoint(self.folder, self.spec.fingerprint)
        except CheckpointError as error:
            self.distrust_checkpoint(str(error))
            return None

    def distrust_checkpoint(self, why: str) -> None:
        """Remove a checkpoint that cannot be gone on from."""
        log.warning("%s The run starts from scratch.", why)
        (self.folder / CHECKPOINT).unlink(missing_ok=True)

    def close(self, status: Status) -> None:
        """Write how the attempt ended; `done` only after everything that the manifest names."""
        self.manifest.seconds = self.watch.snapshot()
        self.manifest.status, self.manifest.finished = status, utc_now()
        if status == "done" and (lacking := missing_files(self.folder, self.manifest)):
            raise OSError(f"{', '.join(lacking[:3])} vanished from {self.folder} while the run was finished")
        write_manifest(self.folder, self.manifest)
        if status == "done":
            (self.folder / CHECKPOINT).unlink(missing_ok=True)

    def fail(self, error: Exception, step: int) -> None:
        """Leave error.json; a disk that takes no record takes none, the error itself has been logged."""
        lines = "".join(traceback.format_exception(error)).splitlines()
        record = {
            "type": type(error).__name__,
            "message": str(error),
            "step": getattr(error, "step", step),
            "traceback": lines[-_TRACEBACK_LINES:],
        }
        with contextlib.suppress(OSError):
            write_json(self.folder / ERROR, record)
            self.close("failed")

    @contextlib.contextmanager
    def logging(self) -> Iterator[None]:
        """Copy what is logged, details included, into the run's log.txt."""
        handler = logging.FileHandler(self.folder / LOG, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger = logging.getLogger("trace_bench")
        level = logger.level
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
        try:
            yield
        finally:
            logger.setLevel(level)
            logger.removeHandler(handler)
            handler.close()


def budget_of(job: Job) -> dict[str, Any]:
    """Where the number of steps comes from: each method's own, or work equal to another's run."""
    own = {key: job.budget["own"][key] for key in ("steps", "views_per_step")}
    budget: dict[str, Any] = {"name": job.budget.get("name"), "own": own}
    if "tflop" in job.budget:
        against = job.budget["against"]
        budget |= {"against": against.get("display_name"), "tflop": job.budget["tflop"]}
    return budget


def clear(folder: Path) -> None:
    """Empty a run folder, but for the claim on it."""
    for path in folder.iterdir():
        if path.name != CLAIM:
            remove(path)


def remove(path: Path) -> None:
    """Delete a file, a link or a whole folder."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
