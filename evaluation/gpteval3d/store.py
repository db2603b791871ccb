"""All requests and answers of a judge, in the append-only file answers.jsonl.

    {"event": "sent",   "key", "attempt", "choices", "usd", "utc"}          written before a request leaves
    {"event": "answer", "key", "attempt", "model", "utc", "usage", "choices": [{"text", ...}]}
    {"event": "failed", "key", "attempt", "reason", "perhaps_paid", "utc"}

`key` is the question's hash. A request without an answer or failure (the program was killed) may have been
billed, so it counts against the budget at its estimated price. Answers are stored raw and parsed on reading.
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
    """The file, read once and then appended to by one process at a time."""

    def __init__(self, path: Path, redact: Callable[[str], str] = str, returned: str | None = None) -> None:
        """`redact` removes secrets before writing; `returned`: only this model's answers count."""
        self.path, self.redact, self._returned = path, redact, returned
        self.answers: dict[str, list[Event]] = defaultdict(list)  # key -> answers in the order of requests
        self.open: dict[tuple[str, int], float] = {}  # unanswered requests -> estimated USD
        self.paid = 0.0  # USD of answers, and of failed requests that may have been billed
        self.overrun = 1.0  # largest ratio of actual to reserved cost
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
        """USD spent; open requests count at their estimated price."""
        return self.paid + sum(self.open.values())

    @property
    def models(self) -> list[str]:
        """The models that answered, by the names they returned."""
        found = (answer["model"] for answers in self.answers.values() for answer in answers)
        return list(dict.fromkeys(str(model) for model in found if model is not None))

    def write(self, event: Event) -> None:
        """Append one event; except for "sent", it is on disk when this returns."""
        line = self.redact(json.dumps(event | {"utc": utc_now()}, ensure_ascii=False))
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            if event["event"] != "sent":
                os.fsync(file.fileno())
        self._take(json.loads(line))

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Raise if another process is asking this judge: both would pay for the same answers."""
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
    """The stored events. An unfinished line (killed process) is skipped, so its question is asked again."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            event = json.loads(line) if line else None
            if event is not None:
                _ = event["event"], event["key"], int(event["attempt"])
                yield event
        except (ValueError, KeyError, TypeError):
            log.warning("%s has an unfinished line, which is skipped.", path)


def _end_line(path: Path) -> None:
    """End an unfinished line (killed process), so that the next event starts on a new line."""
    with path.open("ab+") as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")


def readings(answers: list[Event], wanted: int, criteria: int) -> tuple[list[Reading], int]:
    """The choices of a question so far (at most `wanted`), and the number still to request.

    An unusable choice is requested once more; the second result is final.
    """
    found = [read_choice(choice, criteria) for answer in answers for choice in answer["choices"]]
    first, again = found[:wanted], found[wanted:]
    bad = [i for i, (status, _) in enumerate(first) if status != "valid"]
    for i, reading in zip(bad, again, strict=False):
        first[i] = reading
    missing = wanted - len(first)
    return first, missing or max(0, len(bad) - len(again))
