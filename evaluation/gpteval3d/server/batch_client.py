"""Asks a server through its batch interface, at a lower price and within a day.

One session collects every batch that has ended, sends the questions that have no answer and are in no open
batch, and waits a while. It may end at any moment, also by a kill: batches.jsonl says what may be open, and
the next session goes on from there (see `batches`). The client sends nothing twice by itself: a batch that
may have been created without our hearing of it is looked for by its metadata first.
"""

from __future__ import annotations

import hashlib
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from evaluation.gpteval3d.questions import Question
from evaluation.gpteval3d.server.asking import Session, Stop, check_model, needed, refusal
from evaluation.gpteval3d.server.batch_calls import BatchServer, Rejected
from evaluation.gpteval3d.server.batch_output import Reply, read_replies
from evaluation.gpteval3d.server.batch_shards import ShardWriter
from evaluation.gpteval3d.server.batches import Ledger, Request, Shard
from evaluation.gpteval3d.server.cost import Budget, Price, counted
from evaluation.gpteval3d.server.keys import OPENAI
from evaluation.gpteval3d.server.store import AnswerStore
from evaluation.gpteval3d.settings import JudgeSettings
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.text import one_line, printable

_ENDED = {"completed", "expired", "cancelled"}
_TRIES = 3  # of a question in one session
_LONGEST_POLL_S = 300.0


class BatchAsker:
    """Sends questions in batches and collects their answers."""

    def __init__(
        self,
        settings: JudgeSettings,
        key: str,
        store: AnswerStore,
        budget: Budget,
        price: Price,
        ledger: Ledger,
    ) -> None:
        """`price` is that of the batch interface."""
        self.settings, self.store, self.price, self.ledger = settings, store, price, ledger
        self._key = key
        self._writer = ShardWriter(settings, store, budget, price, ledger)
        self._session = Session()
        self._failed: Counter[str] = Counter()  # by question

    def run(self, questions: Sequence[Question]) -> Session:
        """Collect, send, wait. The first SIGINT or SIGTERM ends this after the step in hand."""
        from openai import OpenAI

        if self.ledger.open or self._waiting(questions):
            timeout, url = self.settings.timeout_s, self.settings.base_url or OPENAI
            with OpenAI(api_key=self._key, base_url=url, max_retries=0, timeout=timeout) as client:
                self._server = BatchServer(client, self.settings, self.store, self._session)
                with self._signals():
                    try:
                        self._work(questions)
                    except (Stop, TraceBenchError) as why:  # TraceBenchError: unreadable render, full disk
                        self._session.why_stopped = str(why).rstrip(".")
            self._writer.path.unlink(missing_ok=True)
        self._session.why_stopped = self._session.why_stopped or self._writer.no_money
        self._session.given_up = sum(times >= _TRIES for times in self._failed.values())
        self._session.in_batches = self.ledger.open_in_words()
        return self._session

    def _work(self, questions: Sequence[Question]) -> None:
        until, delay = time.monotonic() + self.settings.batch_wait_s, self.settings.backoff_s
        self._recover()
        while True:
            self._collect()
            if self._submit(questions):
                delay = self.settings.backoff_s
            if not self.ledger.open or self._stopped() or time.monotonic() >= until:
                return
            self._server.pause(min(delay, until - time.monotonic()))
            delay = min(2 * delay, _LONGEST_POLL_S)

    def _stopped(self) -> bool:
        return self._session.signal is not None

    # --- sending ------------------------------------------------------------------------------------------

    def _waiting(self, questions: Sequence[Question]) -> dict[str, Question]:
        """Questions to send, by key: those with the same pictures share one answer."""
        busy = self.ledger.keys
        return {
            question.key: question
            for question in questions
            if self._failed[question.key] < _TRIES and needed(question, self.store, self.settings, busy)
        }

    def _submit(self, questions: Sequence[Question]) -> bool:
        """Send what is needed and fits; returns whether a batch was sent."""
        self._writer.no_money, sent = None, False
        queue = deque(self._waiting(questions).values())
        while queue and not self._stopped():
            if self.ledger.most_requests and self.ledger.open:
                break  # the server's queue is full: one batch at a time
            shard = self._writer.fill(queue, self._stopped)
            if shard is None:
                break
            self._send(shard)
            sent = True
        return sent

    def _send(self, planned: Shard) -> None:
        """Upload and create, each step on the disk before the next."""
        requests = [list(request) for request in planned.requests]
        limit = {"max_output_tokens": self.settings.max_output_tokens}  # another command may collect it
        self.ledger.write({"event": "planned", "shard": planned.name, "requests": requests} | limit)
        self.ledger.hold(self.store)
        shard = self.ledger.shards[planned.name]
        try:
            file = self._server.upload(self._writer.path, shard)
        except Stop:
            self._drop(shard, "not uploaded")
            raise
        self.ledger.write({"event": "uploaded", "shard": shard.name, "file": file})
        self._create(shard)

    def _create(self, shard: Shard) -> None:
        """Create the batch of an uploaded file."""
        try:
            batch = self._server.create(shard)
        except Rejected as why:
            self._drop(shard, why.reason)
            raise
        if batch is not None:
            self._created(shard, batch)

    def _created(self, shard: Shard, batch: str) -> None:
        self.ledger.write({"event": "created", "shard": shard.name, "batch": batch})
        self._record_sent(shard)
        count = len(shard.requests)
        self._say(f"Batch {batch}: {count} question{'s' if count != 1 else ''} sent.")

    def _record_sent(self, shard: Shard) -> None:
        """Write the requests of a batch as sent, if a kill prevented it."""
        for request in shard.requests:
            if (request.key, request.attempt) not in self.store.sent | self.store.closed:
                sent = {"event": "sent", "choices": request.choices, "usd": request.usd, "batch": shard.batch}
                self.store.write({"key": request.key, "attempt": request.attempt} | sent)

    def _drop(self, shard: Shard, reason: str, too_many: bool = False) -> None:
        """Give up a shard of which nothing was run or paid."""
        for request in shard.requests:
            self._fail(request, reason, perhaps_paid=False)
        event = {"event": "dropped", "shard": shard.name, "reason": self.store.safe(reason)}
        self.ledger.write(event | {"too_many": too_many})
        for request in shard.requests:
            self.store.release(request.key, request.attempt)
        self._server.delete(shard)

    def _fail(self, request: Request, reason: str, perhaps_paid: bool) -> None:
        """Record a failed request, if it was recorded as sent and has no end yet."""
        pair = request.key, request.attempt
        if pair in self.store.sent and pair not in self.store.closed:
            failed = {"event": "failed", "reason": reason, "perhaps_paid": perhaps_paid, "via": "batch"}
            self.store.write({"key": request.key, "attempt": request.attempt} | failed)

    # --- collecting ---------------------------------------------------------------------------------------

    def _recover(self) -> None:
        """Find out whether shards without a confirmed batch have one; send or drop the others."""
        for shard in self.ledger.open:
            if shard.batch is not None:
                self._record_sent(shard)
            elif found := self._server.find(shard):
                self._created(shard, found)
            elif shard.file is None:  # killed before or during the upload: nothing can have been created
                self._drop(shard, "not uploaded")
            else:
                self._create(shard)

    def _collect(self) -> None:
        """Store the answers of every batch that has ended."""
        why: Stop | None = None
        for shard in self.ledger.open:
            if shard.batch is None or self._stopped():
                continue
            batch = self._server.state(shard.batch)
            if batch is None:
                raise Stop(
                    f"the server does not know batch {shard.batch}: use the key and the server that it was "
                    "made with"
                )
            try:
                if batch.status == "failed":
                    self._on_failed(shard, batch)
                elif batch.status in _ENDED:
                    self._take(shard, batch)
            except Stop as stop:  # the other batches are collected first
                why = why or stop
        if why is not None:
            raise why

    def _on_failed(self, shard: Shard, batch: Any) -> None:
        """A batch that was not accepted after all; nothing is charged."""
        errors = list((batch.errors and batch.errors.data) or [])
        words = one_line(
            self.store.redact("; ".join(str(e.message or e.code) for e in errors)) or "no reason", 300
        )
        too_many = any(error.code == "token_limit_exceeded" for error in errors)
        alone = len(self.ledger.open) == 1
        self._drop(shard, words, too_many)
        if not too_many:
            raise Stop(f"the server rejects batch {shard.batch}: {words}")
        if len(shard.requests) == 1 and alone:
            raise Stop(f"the server's queue does not take even one question: {words}; use judge.batch=false")
        self._say(f"Batch {shard.batch} is too large for the server's queue; smaller ones follow.")

    def _take(self, shard: Shard, batch: Any) -> None:
        """Store the answers of a batch that has ended. Doing it twice changes nothing."""
        requests = {request.custom_id: request for request in shard.requests}
        known, models = self.store.models, []
        rejected: tuple[int, bytes] | None = None
        hashes, strange, answered, gone = {}, 0, 0, False
        for name, id_ in (("output", batch.output_file_id), ("error", batch.error_file_id)):
            content = self._server.download(id_) if id_ else b""
            gone |= content is None
            hashes[name] = hashlib.sha256(content or b"").hexdigest()
            for reply in read_replies(content or b"", requests, self.settings.model):
                strange += reply is None
                if reply is None or (reply.request.key, reply.request.attempt) in self.store.closed:
                    continue
                if reply.answer is not None:
                    answered += 1
                    models.append(self._store(reply, shard))
                    continue
                self._note(reply.request, reply.reason, reply.perhaps_paid)
                rejected = rejected or reply.rejected
        counts = batch.request_counts
        none_done = counts is not None and counts.completed == 0
        ran = gone or (batch.status == "completed" and not none_done)
        for request in shard.requests:
            if (request.key, request.attempt) not in self.store.closed:
                reason = "the file of answers is gone" if gone else f"batch {batch.status} without an answer"
                self._note(request, reason, perhaps_paid=ran)
        self._server.delete(shard)
        self.ledger.write({"event": "collected", "shard": shard.name, "status": batch.status} | hashes)
        odd = f"; lines of no question of ours: {strange}" if strange else ""
        self._say(f"Batch {shard.batch}: {batch.status}, {answered} of {len(shard.requests)} answered{odd}.")
        for model in models:
            check_model(model, known or models[:1], self.settings)
        if rejected is not None:
            message = refusal(*rejected, self.settings, self.store)
            raise Stop(f"the server rejects a request (HTTP {rejected[0]}): {message}")

    def _store(self, reply: Reply, shard: Shard) -> str:
        """Write an answer; returns the model that gave it."""
        request, answer = reply.request, dict(reply.answer or {})
        paid = counted([answer["usage"]], self.price)[2] if answer["usage"] else request.usd
        record = {"event": "answer", "key": request.key, "attempt": request.attempt, "usd": round(paid, 8)}
        limit = shard.max_output_tokens or self.settings.max_output_tokens
        self.store.write(record | answer | {"max_output_tokens": limit, "via": "batch", "batch": shard.batch})
        return str(self.store.safe(answer["model"] or ""))

    def _note(self, request: Request, reason: str, perhaps_paid: bool) -> None:
        """Record a request without an answer; its question is asked again, but not for ever."""
        self._fail(request, reason, perhaps_paid)
        self._failed[request.key] += 1
        self._session.failures[self.store.redact(reason)] += 1

    # --- the terminal -------------------------------------------------------------------------------------

    def _say(self, text: str) -> None:
        print(printable(self.store.redact(text)), file=sys.stderr)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """The first SIGINT or SIGTERM ends the session after the step in hand; the second at once."""
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def on(number: int, _: Any) -> None:
            again = self._stopped()
            self._session.signal = number
            self._session.why_stopped = f"stopped by {signal.Signals(number).name}"
            if again:
                raise Stop(self._session.why_stopped)

        for number in before:
            signal.signal(number, on)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
