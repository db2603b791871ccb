"""A run folder during a run: its existing files, which of them to trust, and how the attempt ends."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import yaml

from trace_bench.run_folder.index import ERROR
from trace_bench.run_folder.live import LiveFile
from trace_bench.run_folder.manifest import (
    MANIFEST,
    SECONDS,
    Manifest,
    ManifestError,
    NewerManifestError,
    Status,
    differing_files,
    read_manifest,
    record_files,
    utc_now,
    write_manifest,
)
from trace_bench.run_folder.reading import DIFF
from trace_bench.run_folder.rendering import Away, here
from trace_bench.run_folder.states import CLAIM
from trace_bench.runs.checkpoint import CHECKPOINT, Checkpoint, CheckpointError, load_checkpoint
from trace_bench.runs.environment import code_diff, describe_environment
from trace_bench.runs.identity import RunSpec
from trace_bench.settings.config import Job
from trace_bench.system.files import sync_folder, write_atomic, write_json

CONFIG, LOG = "config.yaml", "log.txt"
_TRACEBACK_LINES = 40
log = logging.getLogger(__name__)


class Stopwatch:
    """Seconds per phase; `total` is all of them, with earlier attempts up to their last checkpoint.

    clock: the time in seconds; of a run that shares its process, the time that is its own.
    """

    def __init__(
        self,
        enter: Callable[[str], None] = lambda phase: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._enter = enter  # told of each phase as it begins
        self._clock = clock
        self._seconds = dict.fromkeys(SECONDS, 0.0)
        self._began = clock()

    @contextlib.contextmanager
    def phase(self, name: str, shown: bool = True) -> Iterator[None]:
        """Add the block's time to a phase, which the display shows."""
        if shown:
            self._enter(name)
        began = self._clock()
        try:
            yield
        finally:
            self._seconds[name] += self._clock() - began

    def go_on_from(self, seconds: dict[str, float]) -> None:
        """Add the times of earlier attempts up to the checkpoint."""
        self._seconds = {key: value + seconds.get(key, 0.0) for key, value in self._seconds.items()}

    def forget(self, seconds: dict[str, float]) -> None:
        """The inverse of `go_on_from`."""
        self.go_on_from({key: -value for key, value in seconds.items()})

    def set(self, name: str, seconds: float) -> None:
        """Set the time of a phase that measures its own."""
        self._seconds[name] = seconds

    def charge(self, name: str, seconds: float) -> None:
        """Add time spent elsewhere to a phase and to the total."""
        self._seconds[name] += seconds
        self._seconds["total"] += seconds

    def __getitem__(self, name: str) -> float:
        return self._seconds[name]

    def snapshot(self) -> dict[str, float]:
        """The times of all phases, with the total."""
        total = self._seconds["total"] + self._clock() - self._began
        return {key: round(value, 3) for key, value in (self._seconds | {"total": total}).items()}


class OpenRun:
    """The folder of one attempt at a run; the caller holds the claim on it."""

    def __init__(self, spec: RunSpec, clock: Callable[[], float] = time.monotonic) -> None:
        self.spec, self.folder = spec, spec.folder
        self.live = LiveFile(self.folder)
        self.watch = Stopwatch(self.live.enter, clock)
        self.manifest = Manifest(
            "running", spec.fingerprint, spec.identity, asset=spec.asset, started=utc_now()
        )

    def is_finished(self) -> bool:
        """Whether the run is already done. A folder that it cannot use is set aside; force=true clears a
        finished run.

        Raises:
            NewerManifestError: a newer version of trace_bench wrote the folder, which is left untouched.
        """
        earlier, force = self._earlier(), self.spec.job.force
        if earlier is None:
            return False
        if earlier.status == "done":
            if force:
                clear(self.folder)
                return False
            if wrong := differing_files(self.folder, earlier):
                self._set_aside(f"is marked done, but {in_words(wrong)}")
                return False
            (self.folder / CHECKPOINT).unlink(missing_ok=True)
            return True
        if force and earlier.status == "failed":
            clear(self.folder)
        else:  # resume an interrupted run even with force=true, or a requeued job would never finish
            self.manifest.started, self.manifest.attempts = earlier.started, earlier.attempts
        return False

    def _earlier(self) -> Manifest | None:
        """The manifest of an earlier attempt at this run; what else lies here is set aside."""
        try:
            manifest = read_manifest(self.folder)
        except NewerManifestError:
            raise
        except ManifestError as error:
            self._set_aside(f"cannot be used: {str(error).rstrip('.')}")
            return None
        if manifest is None or manifest.fingerprint == self.spec.fingerprint:
            return manifest
        self._set_aside(f"contains another run (fingerprint {manifest.fingerprint[:8]})")
        return None

    def _set_aside(self, why: str) -> None:
        """Move the content of the folder, except for the claim on it, to `<folder>.unreadable-<n>`."""
        names = (self.folder.with_name(f"{self.folder.name}.unreadable-{n}") for n in itertools.count(1))
        aside = next(path for path in names if not os.path.lexists(path))
        aside.mkdir()
        # The manifest last: until it is gone, another attempt sets the rest aside too.
        for path in sorted(self.folder.iterdir(), key=lambda path: path.name == MANIFEST):
            if path.name != CLAIM:
                path.rename(aside / path.name)
        sync_folder(aside)
        sync_folder(self.folder)
        log.warning("%s %s. It is kept as %s, and the asset is made again.", self.folder, why, aside.name)

    def begin(self, device: str) -> None:
        """Record that the run has started, and with which settings."""
        job, manifest = self.spec.job, self.manifest
        manifest.attempts += 1
        manifest.rig = dict(job.rig)
        parts = {"method": job.method, "representation": job.representation}
        manifest.display_names = {
            group: str(part["display_name"]) for group, part in parts.items() if part.get("display_name")
        }
        manifest.budget = budget_of(job)
        prompts = self.spec.prompt_set
        manifest.prompt_source = {
            "file": prompts.source,
            "sha256": prompts.sha256,
            "count": prompts.count,
        }
        manifest.environment = dict(describe_environment(device))
        (self.folder / ERROR).unlink(missing_ok=True)
        self._keep_diff()
        for leftover in self.folder.glob(".*.partial"):
            remove(leftover)
        write_manifest(self.folder, manifest)
        settings = {**vars(job), "prompt": self.spec.prompt.text, "prompt_id": self.spec.prompt.prompt_id}
        # Not through OmegaConf: it would interpolate a prompt such as "price ${5".
        write_atomic(self.folder / CONFIG, yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))

    def _keep_diff(self) -> None:
        """Keep the changes of the code beside the run; the manifest has their hash only."""
        if diff := code_diff():
            write_atomic(self.folder / DIFF, diff)
        else:
            (self.folder / DIFF).unlink(missing_ok=True)

    def checkpoint(self) -> Checkpoint | None:
        """The checkpoint to resume from; None to start from step 0."""
        try:
            return load_checkpoint(self.folder, self.spec.fingerprint, self.spec.job.steps)
        except CheckpointError as error:
            self.distrust_checkpoint(str(error))
            return None

    def distrust_checkpoint(self, why: str) -> None:
        """Remove a checkpoint that cannot be resumed from."""
        log.warning("%s Restarting from scratch.", why)
        path = self.folder / CHECKPOINT
        if os.path.lexists(path):
            remove(path)

    def close(self, status: Status, away: Away = here) -> None:
        """Record how the attempt ended; `done` requires that all of the manifest's files are on the disk."""
        if status == "done":
            away(self._record_files)
        self.manifest.seconds = self.watch.snapshot()
        self.manifest.status, self.manifest.finished = status, utc_now()
        write_manifest(self.folder, self.manifest)
        if status == "done":
            (self.folder / CHECKPOINT).unlink(missing_ok=True)

    def _record_files(self) -> None:
        if wrong := differing_files(self.folder, self.manifest):
            raise OSError(f"{self.folder}: {in_words(wrong)} before the run finished")
        record_files(self.folder, self.manifest)

    def fail(self, error: Exception, step: int) -> None:
        """Write error.json. Best effort: ignore a failed write; the error has already been logged."""
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
        """Copy log messages, including debug messages, into the run's log.txt, but none of another run's."""
        handler = _RunLog(self.folder / LOG, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        handler.addFilter(lambda record: _logged.get() in (None, self.folder))
        logger = logging.getLogger("trace_bench")
        if not _open_logs(logger):
            _levels[logger.name] = logger.level
            logger.setLevel(logging.DEBUG)
        logger.addHandler(handler)
        outer = _logged.set(self.folder)
        try:
            yield
        finally:
            _logged.reset(outer)
            logger.removeHandler(handler)
            handler.close()
            if not _open_logs(logger):
                logger.setLevel(_levels.pop(logger.name))


class _RunLog(logging.FileHandler):
    """The log.txt of a run."""


#: The folder of the run that goes on, in its lane or thread.
_logged: ContextVar[Path | None] = ContextVar("logged", default=None)
_levels: dict[str, int] = {}  # of a logger, before the first run


def _open_logs(logger: logging.Logger) -> bool:
    """Whether a run is being logged."""
    return any(isinstance(handler, _RunLog) for handler in logger.handlers)


def budget_of(job: Job) -> dict[str, Any]:
    """Source of the number of steps: each method's own, or work equal to another method's run."""
    own = {key: job.budget["own"][key] for key in ("steps", "views_per_step")}
    budget: dict[str, Any] = {"name": job.budget.get("name"), "own": own}
    if "tflop" in job.budget:
        against = job.budget["against"]
        budget |= {"against": against.get("display_name"), "tflop": job.budget["tflop"]}
    return budget


def in_words(differing: Mapping[str, str]) -> str:
    """The first of the files that are not as recorded, and why."""
    said = [f"{name} ({why})" for name, why in differing.items()]
    return f"its files differ: {', '.join(said[:3])}{' ...' if len(said) > 3 else ''}"


def clear(folder: Path) -> None:
    """Empty a run folder, except for the claim on it."""
    for path in folder.iterdir():
        if path.name != CLAIM:
            remove(path)


def remove(path: Path) -> None:
    """Delete a file, a link or a whole folder."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
