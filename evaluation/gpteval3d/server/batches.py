"""The batches of a judge, in the append-only file batches.jsonl: what is open at the server.

    {"event": "planned",   "shard", "requests": [[key, attempt, choices, usd, tokens], ...], "utc"}
    {"event": "uploaded",  "shard", "file", "utc"}          after the upload
    {"event": "created",   "shard", "batch", "utc"}         from here on it costs money
    {"event": "collected", "shard", "status", "output", "error", "utc"}    all answers are in answers.jsonl
    {"event": "dropped",   "shard", "reason", "too_many", "utc"}           nothing was paid

Each event is on the disk before the next step begins, and the batch carries the shard's name as metadata. So
whatever step a kill interrupts, the next session knows what may be open, and asks nothing twice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from evaluation.gpteval3d.server import journal
from evaluation.gpteval3d.server.store import AnswerStore
from trace_bench.run_folder.manifest import utc_now

_LOST = "what it said is looked up at the server"
_NEEDS = {
    "planned": "requests", "uploaded": "file", "created": "batch", "collected": "status", "dropped": "reason",
}  # fmt: skip
_SHORT = 40  # digits of the key in a custom_id, which should stay below 64 characters


class Request(NamedTuple):
    """One line of a batch."""

    key: str
    attempt: int
    choices: int
    usd: float  # reserved
    tokens: int  # estimated input

    @property
    def custom_id(self) -> str:
        return f"{self.key[:_SHORT]}-{self.attempt}"


@dataclass
class Shard:
    """The requests of one batch, and how far it has come."""

    name: str
    requests: list[Request]
    utc: str  # when it was planned
    max_output_tokens: int | None = None  # of its requests; None in the file of an earlier version
    file: str | None = None
    batch: str | None = None
    ended: str | None = None  # the status when it was collected, or "dropped"


class Ledger:
    """The file, read once and then appended to by one process at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.shards: dict[str, Shard] = {}
        self.most_requests: int | None = None  # per batch; a larger one did not fit into the server's queue
        for event in journal.read(path, _is_right, _LOST):
            self._take(event)

    def _take(self, event: dict[str, Any]) -> None:
        kind, name = event["event"], event["shard"]
        if kind == "planned":
            requests = [Request(*request) for request in event["requests"]]
            limit = event.get("max_output_tokens")
            self.shards.setdefault(name, Shard(name, requests, str(event.get("utc")), limit))
            return
        shard = self.shards.get(name)
        if shard is None:  # its line is damaged: the answers were held by no one
            return
        if kind == "uploaded":
            shard.file = event["file"]
        elif kind == "created":
            shard.batch = event["batch"]
        else:
            shard.ended = event["status"] if kind == "collected" else "dropped"
            if event.get("too_many"):
                self.most_requests = max(1, len(shard.requests) // 2)

    def write(self, event: dict[str, Any]) -> None:
        """Append one event; it is on the disk when this returns."""
        event = event | {"utc": utc_now()}
        journal.append(self.path, event)
        self._take(event)

    @property
    def open(self) -> list[Shard]:
        """Shards that may be at the server and are not collected."""
        return [shard for shard in self.shards.values() if shard.ended is None]

    @property
    def keys(self) -> set[str]:
        """Keys of the questions in open shards."""
        return {request.key for shard in self.open for request in shard.requests}

    def hold(self, store: AnswerStore) -> None:
        """Count open requests in the store, also those of which it has no event yet."""
        for shard in self.shards.values():
            for request in shard.requests:
                if shard.ended is None:
                    store.hold(request.key, request.attempt, request.usd)
                else:  # no attempt, and so no custom_id, is used twice
                    store.attempts[request.key] = max(store.attempts[request.key], request.attempt + 1)

    def open_in_words(self) -> str | None:
        """What is open, for the user; None if nothing is."""
        if not self.open:
            return None
        questions, batches = len(self.keys), len(self.open)
        return (
            f"{questions} question{'s are' if questions != 1 else ' is'} in "
            f"{batches} open batch{'es' if batches != 1 else ''} at the server, which may take up to 24 "
            "hours. The same command with judge.batch=true collects the answers; nothing is asked or paid "
            "twice"
        )


def _is_right(event: dict[str, Any]) -> bool:
    """Whether an event has what the ledger needs."""
    value = event[_NEEDS[event["event"]]]
    if event["event"] == "planned":
        limit = event.get("max_output_tokens", 0)
        return isinstance(event["shard"], str) and type(limit) is int and all(map(_is_request, value))
    return isinstance(event["shard"], str) and isinstance(value, str)


def _is_request(value: Any) -> bool:
    key, attempt, choices, usd, tokens = value if len(value) == 5 else [None] * 5
    counts = all(type(number) is int and number >= 0 for number in (attempt, choices, tokens))
    return isinstance(key, str) and counts and isinstance(usd, int | float) and 0 <= usd < math.inf
