"""tracker=tensorboard or wandb: the records of a run, sent to a program that draws them.

It gets the rows of metrics.jsonl, pictures and scores; it is never read. tracker.json in the run folder keeps
what has been sent, so that a resumed run goes on where it was and sends no step twice. Whatever fails here is
one warning: a tracker never fails a run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import TypeAdapter

from trace_bench.run_folder.manifest import Manifest
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.files import write_json
from trace_bench.system.typed import Count, FormatError, Integer, read_typed

if TYPE_CHECKING:
    import numpy as np

NONE = "none"
SENT = "tracker.json"
METRICS = "metrics.jsonl"
_EVERY_S = 5.0  # seconds between two deliveries
_PAUSE_S = 600.0  # seconds without scores for a tracker that could not be opened
log = logging.getLogger(__name__)


class Sink(Protocol):
    """Where the records go."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of one step."""

    def picture(self, step: int, name: str, rgb: np.ndarray) -> None:
        """A picture, uint8 [H, W, 3]."""

    def close(self) -> None:
        """Everything is sent."""


class _TensorBoard:
    """Event files in the run folder; `tensorboard --logdir outputs/runs` shows all runs."""

    def __init__(self, folder: Path, manifest: Manifest, sent_before: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder / "tensorboard"))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def picture(self, step: int, name: str, rgb: np.ndarray) -> None:
        self._writer.add_image(name, rgb, step, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()


class _Wandb:
    """A run of Weights & Biases, whose id follows from the run, so that a resumed run is the same one.

    Its records are numbered on from those sent before. Offline, each attempt is a folder of its own that
    knows nothing of the others, and wandb would number the records of each from 0.
    """

    def __init__(self, folder: Path, manifest: Manifest, sent_before: int) -> None:
        import wandb

        self._number = sent_before

        self._wandb = wandb
        identity = asdict(manifest.run)
        self._run: Any = wandb.init(
            project="trace_bench",
            id=hashlib.sha256(f"{manifest.fingerprint} {manifest.started}".encode()).hexdigest()[:16],
            name=f"{manifest.run.method}: {manifest.run.prompt}"[:120],
            group=manifest.run.method,
            config=identity,
            dir=str(folder),
            mode=wandb_mode(),
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off", init_timeout=60),
        )
        self._run.define_metric("*", step_metric="step")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._log({"step": step, **values})

    def picture(self, step: int, name: str, rgb: np.ndarray) -> None:
        self._log({"step": step, name: self._wandb.Image(rgb)})

    def _log(self, record: Mapping[str, Any]) -> None:
        self._run.log(record, step=self._number)
        self._number += 1

    def close(self) -> None:
        self._run.finish()


#: Made with the run folder, its manifest, and the number of records that were sent before.
_SINKS: dict[str, Callable[[Path, Manifest, int], Sink]] = {"tensorboard": _TensorBoard, "wandb": _Wandb}
TRACKERS = (NONE, *_SINKS)
#: When a tracker that could not be opened may get scores again, by its name; time.monotonic().
_paused_until: dict[str, float] = {}


def wandb_mode() -> Any:
    """WANDB_MODE if set; else offline without a key, and on Slurm, whose nodes often have no internet."""
    if mode := os.environ.get("WANDB_MODE"):
        return mode
    is_offline = "SLURM_JOB_ID" in os.environ or "WANDB_API_KEY" not in os.environ
    return "offline" if is_offline else "online"


def check_tracker(kind: str) -> None:
    """Refuse a tracker whose package is not installed."""
    if kind != NONE and find_spec(kind) is None:
        raise TraceBenchError(
            f"tracker={kind} needs the package {kind}: pip install 'trace-bench[{kind}]', or tracker=none."
        )


@dataclass(frozen=True)
class _Sent:
    """The content of tracker.json: the last step of each kind that was sent, -1 if none, and all records."""

    tracker: str
    row: Integer = -1
    picture: Integer = -1
    records: Count = 0


@cache
def _sents() -> TypeAdapter[_Sent]:
    return TypeAdapter(_Sent)


class Tracker:
    """The tracker of one run; opens its sink when the first record is sent."""

    def __init__(self, kind: str, folder: Path, manifest: Manifest) -> None:
        self._kind, self._folder, self._manifest = kind, folder, manifest
        self._sink: Sink | None = None
        self._works = kind != NONE
        self._tried = time.monotonic()
        sent = _read_sent(folder) if self._works else None
        self._sent = sent if sent is not None and sent.tracker == kind else _Sent(kind)

    def follow(self) -> None:
        """Send the new rows, every few seconds."""
        if time.monotonic() - self._tried > _EVERY_S:
            self._try(self._send_rows)

    def picture(self, step: int, name: str, rgb: Callable[[], np.ndarray]) -> None:
        """Send a picture, uint8 [H, W, 3], unless one of this step or a later one was sent."""

        def send() -> None:
            if step > self._sent.picture:
                picture, sink = rgb(), self._opened()
                self._note(1, picture=step)
                sink.picture(step, name, picture)

        self._try(send)

    def scores(self, metric: str, values: Mapping[str, float | None]) -> None:
        """Send the scores of the finished asset.

        Scoring goes through many runs. If a tracker cannot be opened, which may take a minute, the others do
        not try it for a while.
        """
        if time.monotonic() < _paused_until.get(self._kind, 0.0):
            return
        found = {f"{metric}/{name}": value for name, value in values.items() if value is not None}

        def send() -> None:
            sink = self._opened()
            self._note(1)
            sink.scalars(self._manifest.run.steps, found)

        self._try(send)

    def close(self) -> None:
        """Send what is left."""
        self._try(self._send_rows)
        if self._sink is not None:
            self._try(self._sink.close)
            self._sink = None

    def _send_rows(self) -> None:
        """Send the rows of metrics.jsonl that were not sent."""
        self._tried = time.monotonic()
        rows = [row for row in _rows(self._folder / METRICS) if row["step"] > self._sent.row]
        if not rows:
            return
        sink = self._opened()
        self._note(len(rows), row=max(row["step"] for row in rows))
        for row in rows:
            numbers = {name: v for name, v in row.items() if name != "step" and isinstance(v, int | float)}
            sink.scalars(row["step"], numbers)

    def _opened(self) -> Sink:
        if self._sink is None:
            try:
                self._sink = _SINKS[self._kind](self._folder, self._manifest, self._sent.records)
            except Exception:
                _paused_until[self._kind] = time.monotonic() + _PAUSE_S
                raise
        return self._sink

    def _note(self, records: int, **steps: int) -> None:
        """Written before the records are sent: after a kill some may be missing, but none is there twice."""
        steps["records"] = self._sent.records + records
        self._sent = _Sent(**{**asdict(self._sent), **steps})
        write_json(self._folder / SENT, asdict(self._sent))

    def _try(self, work: Callable[[], None]) -> None:
        """Do nothing without a tracker, and nothing more after a failure."""
        if not self._works:
            return
        try:
            work()
        except Exception as error:  # noqa: BLE001  whatever a tracker raises, the run goes on
            self._works = False
            why = f"{type(error).__name__}: {' '.join(str(error).split())}"
            log.warning("tracker=%s failed (%s); the run goes on without it.", self._kind, why)


def tracker_of(folder: Path, manifest: Manifest) -> Tracker:
    """The tracker that a finished run used."""
    sent = _read_sent(folder)
    return Tracker(NONE if sent is None or sent.tracker not in _SINKS else sent.tracker, folder, manifest)


def _read_sent(folder: Path) -> _Sent | None:
    try:
        return read_typed(_sents(), folder / SENT, "all records are sent again")
    except FormatError:
        return None


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """The complete rows of metrics.jsonl."""
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return
    for line in lines:
        with contextlib.suppress(ValueError):
            row = json.loads(line)
            if isinstance(row, dict) and isinstance(row.get("step"), int):
                yield row
