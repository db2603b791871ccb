"""All requests and answers of a judge, in the append-only file answers.jsonl.

    {"event": "sent",   "key", "attempt", "choices", "usd", "utc"}          written before a request leaves
    {"event": "answer", "key", "attempt", "model", "utc", "usage", "choices": [{"text", ...}]}
    {"event": "failed", "key", "attempt", "reason", "perhaps_paid", "utc"}

`key` is the question's hash. Requests in a batch also have its id ("batch"), their answers "via": "batch". A
request without an answer or failure (the program was killed) may have been billed, so it counts against the
budget at its estimated price. Answers are stored as they came, without the key and without what UTF-8 cannot
hold, and parsed on reading.
"""

from __future__ import annotations

import fcntl
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from evaluation.gpteval3d import journal
from evaluation.gpteval3d.journal import Event
from evaluation.gpteval3d.parsing import Status, is_cut, read_choice
from trace_bench.run_folder.manifest import utc_now
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.text import without_surrogates

Reading = tuple[Status, tuple[int, ...] | None]


_OURS = {"event", "key", "attempt", "utc"}  # never a server's words
_LOST = "if it was an answer, its question is asked again"


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
        self.sent: set[tuple[str, int]] = set()  # requests
        self.closed: set[tuple[str, int]] = set()  # requests with an answer or a failure
        self._seen: set[tuple[str, int]] = set()  # answered requests; an event counts once
        for event in journal.read(path, _is_right, _LOST):
            self._take(event)

    def _take(self, event: Event) -> None:
        key, attempt = str(event["key"]), int(event["attempt"])
        self.attempts[key] = max(self.attempts[key], attempt + 1)
        if event["event"] == "sent":
            self.sent.add((key, attempt))
            self.open[key, attempt] = float(event["usd"])
            return
        self.closed.add((key, attempt))
        estimate = self.open.pop((key, attempt), 0.0)
        if event["event"] == "answer":
            if (key, attempt) in self._seen:
                return
            self._seen.add((key, attempt))
            self.usage.append(event.get("usage") or {})
            self.paid += float(event["usd"])
            if estimate > 0:
                self.overrun = max(self.overrun, float(event["usd"]) / estimate)
            if self._returned is None or event["model"] in (None, self._returned):
                self.answers[key].append(event)
        elif event.get("perhaps_paid"):
            self.paid += estimate

    def hold(self, key: str, attempt: int, usd: float) -> None:
        """Count a request that may leave as if it had; it is not written."""
        self.attempts[key] = max(self.attempts[key], attempt + 1)
        if (key, attempt) not in self.closed:
            self.open.setdefault((key, attempt), usd)

    def release(self, key: str, attempt: int) -> None:
        """Stop counting a request that was held and never left."""
        if (key, attempt) not in self.sent:
            self.open.pop((key, attempt), None)

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
        """Append one event; except for "sent", it is on disk when this returns.

        Raises:
            TraceBenchError: it cannot be written; the file is as it was before.
        """
        event = {name: value if name in _OURS else self.safe(value) for name, value in event.items()}
        event["utc"] = utc_now()
        journal.append(self.path, event, sync=event["event"] != "sent")
        self._take(event)

    def safe(self, value: Any) -> Any:
        """The value with safe texts, at any depth."""
        if isinstance(value, str):
            return self.redact(without_surrogates(value))
        if isinstance(value, dict):
            return {key: self.safe(item) for key, item in value.items()}
        return [self.safe(item) for item in value] if isinstance(value, list) else value


@contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Raise if another process is asking the judge of this file: both would pay for the same answers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise TraceBenchError(
                f"Another process is asking this judge ({path.parent}): wait for it, or stop it."
            ) from None
        journal.end_line(path)
        yield


def _is_right(event: Event) -> bool:
    """Whether an event has what the store needs."""
    known = {"sent", "answer", "failed"}
    right = event["event"] in known and isinstance(event["key"], str) and event["attempt"] >= 0
    right &= isinstance(event["attempt"], int) and (event["event"] == "failed" or _is_price(event["usd"]))
    if event["event"] == "answer":
        right &= isinstance(event["model"], str | None) and isinstance(event.get("usage", {}), dict | None)
        right &= isinstance(event.get("max_output_tokens", 0), int)
        right &= isinstance(event["choices"], list) and all(isinstance(c, dict) for c in event["choices"])
        for count in (event.get("usage") or {}).values():
            right &= count is None or isinstance(count, int)
    return bool(right)


def _is_price(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value < math.inf


def readings(answers: list[Event], wanted: int, criteria: int, limit: int = 0) -> tuple[list[Reading], int]:
    """The choices of a question so far (at most `wanted`), and the number still to request.

    An unusable choice is requested once more; the second result is final, except that a choice cut off at
    fewer output tokens than `limit` does not count: it is asked for anew.
    """
    found = [
        read_choice(choice, criteria)
        for answer in answers
        for choice in answer["choices"]
        if not (is_cut(choice) and 0 < answer.get("max_output_tokens", 0) < limit)
    ]
    first, again = found[:wanted], found[wanted:]
    bad = [i for i, (status, _) in enumerate(first) if status != "valid"]
    for i, reading in zip(bad, again, strict=False):
        first[i] = reading
    missing = wanted - len(first)
    return first, missing or max(0, len(bad) - len(again))
