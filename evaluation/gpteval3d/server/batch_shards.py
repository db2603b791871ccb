"""Writes the requests of a batch to the file that is uploaded: as many as the server and the budget allow."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from evaluation.gpteval3d.questions import Question
from evaluation.gpteval3d.server.asking import needed
from evaluation.gpteval3d.server.batch_calls import ENDPOINT
from evaluation.gpteval3d.server.batches import Ledger, Request, Shard
from evaluation.gpteval3d.server.cost import Budget, Price, input_tokens, most_usd
from evaluation.gpteval3d.server.store import AnswerStore
from evaluation.gpteval3d.settings import JudgeSettings

SHARD_BYTES, SHARD_REQUESTS = 190_000_000, 50_000  # a file may have 200 MB and 50,000 lines


class ShardWriter:
    """Fills one file after the other from a queue of questions."""

    def __init__(
        self, settings: JudgeSettings, store: AnswerStore, budget: Budget, price: Price, ledger: Ledger
    ) -> None:
        self._settings, self._store, self._budget, self._price = settings, store, budget, price
        self._ledger = ledger
        self.no_money: str | None = None  # why the budget took no more

    @property
    def path(self) -> Path:
        """The file that holds the requests of the last shard."""
        return self._ledger.path.with_suffix(".upload")

    def fill(self, queue: deque[Question], stopped: Callable[[], bool]) -> Shard | None:
        """Write the next requests of the queue, as many as fit; None if none does."""
        requests: list[Request] = []
        size, digest = 0, hashlib.sha256()
        most = self._ledger.most_requests or SHARD_REQUESTS
        self._budget.spent = self._store.spent  # collected answers cost less than was reserved
        with self.path.open("wb") as file:
            while queue and len(requests) < most and not stopped():
                request = self._request(queue[0])
                if not self._fits_queue(request, requests):
                    break
                line = self._line(queue[0], request)
                if requests and size + len(line) > SHARD_BYTES:
                    break
                if not self._budget.reserve(request.usd):
                    self.no_money = (
                        f"the budget of {self._budget.limit:g} USD does not cover the next request "
                        f"({self._store.spent + self._budget.reserved:.2f} spent or reserved, up to "
                        f"{request.usd:.2f} needed)"
                    )
                    queue.clear()
                    break
                file.write(line)
                digest.update(line)
                size += len(line)
                requests.append(request)
                queue.popleft()
        self._budget.reserved = 0.0  # the store holds it once the batch is planned
        return Shard(digest.hexdigest()[:32], requests, "") if requests else None

    def _fits_queue(self, request: Request, requests: Sequence[Request]) -> bool:
        """Whether the server's queue, if it has a known limit, takes this request with all open ones."""
        limit = self._settings.batch_tokens
        if limit is None:
            return True
        waiting = [*requests, *(r for shard in self._ledger.open for r in shard.requests)]
        return not waiting or request.tokens + sum(r.tokens for r in waiting) <= limit

    def _request(self, question: Question) -> Request:
        settings, store = self._settings, self._store
        tokens = input_tokens(question, settings.tile_px, settings.detail, self._price)
        choices = needed(question, store, settings)
        most = store.overrun * most_usd(tokens, choices, settings.max_output_tokens, self._price)
        return Request(question.key, store.attempts[question.key], choices, round(most, 8), tokens)

    def _line(self, question: Question, request: Request) -> bytes:
        arguments = self._settings.request(request.attempt)
        body = arguments | arguments.pop("extra_body") | {"n": request.choices}
        body["messages"] = question.messages(self._settings.tile_px, self._settings.detail)
        line = {"custom_id": request.custom_id, "method": "POST", "url": ENDPOINT, "body": body}
        return json.dumps(line).encode() + b"\n"
