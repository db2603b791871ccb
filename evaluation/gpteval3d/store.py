"""Every request and every answer of a judge, in a file that is only ever appended to: answers.jsonl.

    {"event": "sent",   "key", "attempt", "choices", "usd", "utc"}          written before a request leaves
    {"event": "answer", "key", "attempt", "model", "utc", "usage", "choices": [{"text", ...}]}
    {"event": "failed", "key", "attempt", "reason", "perhaps_paid", "utc"}

`key` is the question's hash. A request that was sent and never closed, because the program was killed,
may have been paid for: it counts against the budget at the price that was estimated. What the answers
say is parsed again whenever they are read.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from evaluation.gpteval3d.parsing import Status, read_choice
from trace_bench.run_folder.manifest import utc_now
from trace_bench.system.errors import TraceBenchError

log = logging.getLogger(__name__)

Event = dict[str, Any]
Reading = tuple[Status, tuple[int, ...] | None]


class AnswerStore:
    """The file, read once and then appended to; one process at a time."""

    def __init__(self, path: Path, redact: Callable[[str], str] = str, returned: str | None = None) -> None:
        """`redact` takes secrets out of what is written; `returned`: only this model's answers count."""
        self.path, self.redact, self._returned = path, redact, returned
        self.answers: dict[str, list[Event]] = defaultdict(list)  # key -> answers in the order of asking
        self.open: dict[tuple[str, int], float] = {}  # sent and not closed -> estimated USD
        self.paid = 0.0  # USD of answers, and of requests that failed after they may have been served
        self.overrun = 1.0  # the most that an answer cost beyond what was set aside for it, as a factor
        self.usage: list[dict[str, Any]] = []  # of all answers
        self.attempts: dict[str, int] = defaultdict(int)  # requests sent, by key
        for event in _events(path):
            self._take(event)

    def _take(self, event: Event) -> None:
        key, attempt = str(event["key"]), int(event["attempt"])
        if event["event"] == "sent":
            self.open[key, attempt] = float(event["usd"])
            self.attempts[key] = max(self.attempts[key], attempt + 1)
            return
        estimate = self.open.pop((key, attempt), 0.0)
        if event["event"] == "answer":
            self.usage.append(event.get("usage") or {})
            self.paid += float(event["usd"])
            if estimate > 0:
                self.overrun = max(self.overrun, float(event["usd"]) / estimate)
            if self._returned is None or event["model"] in (None, self._returned):
                self.answers[key].append(event)
        elif event.get("perhaps_paid"):
            self.paid += estimate

    @property
    def spent(self) -> float:
        """USD, requests that nobody knows the end of at their estimate."""
        return self.paid + sum(self.open.values())

    @property
    def models(self) -> list[str]:
        """The models that answered, as they call themselves."""
        found = (answer["model"] for answers in self.answers.values() for answer in answers)
        return list(dict.fromkeys(str(model) for model in found if model is not None))

    def write(self, event: Event) -> None:
        """Append one event; it is on the disk when this returns, unless it only announces a request."""
        line = self.redact(json.dumps(event | {"utc": utc_now()}, ensure_ascii=False))
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            if event["event"] != "sent":
                os.fsync(file.fileno())
        self._take(json.loads(line))

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Refuse to ask while another process does: both would pay for the same answers."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_suffix(".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise TraceBenchError(
                    f"Another process is asking this judge ({self.path.parent}): wait for it, or stop it."
                ) from None
            _end_line(self.path)
            yield


def _events(path: Path) -> Iterator[Event]:
    """What was stored. A line that a kill left unfinished is passed over: its answer is asked for again."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            event = json.loads(line) if line else None
            if event is not None:
                _ = event["event"], event["key"], int(event["attempt"])
                yield event
        except (ValueError, KeyError, TypeError):
            log.warning("%s has an unfinished line, which is passed over.", path)


def _end_line(path: Path) -> None:
    """Close a line that a kill left unfinished, so that the next one begins on its own."""
    with path.open("ab+") as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")


def readings(answers: list[Event], wanted: int, criteria: int) -> tuple[list[Reading], int]:
    """The `wanted` choices of a question as far as they are there, and how many are still to be asked for.

    A choice that cannot be used is asked for once more; what that gives stands.
    """
    found = [read_choice(choice, criteria) for answer in answers for choice in answer["choices"]]
    first, again = found[:wanted], found[wanted:]
    bad = [i for i, (status, _) in enumerate(first) if status != "valid"]
    for i, reading in zip(bad, again, strict=False):
        first[i] = reading
    missing = wanted - len(first)
    return first, missing or max(0, len(bad) - len(again))
