"""Asks a server through its batch interface, at a lower price and within a day.

One session collects every batch that has ended, sends the questions that have no answer and are in no open
batch, and waits a while. It may end at any moment, also by a kill: batches.jsonl says what may be open, and
the next session goes on from there (evaluation.gpteval3d.batches). The client sends nothing twice by itself:
a batch that may have been created without our hearing of it is looked for by its metadata first.
"""

from __future__ import annotations

import hashlib
import json
import random
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from evaluation.gpteval3d.asking import (
    AGAIN,
    HOPELESS,
    LONGEST_WAIT_S,
    Session,
    Stop,
    check_model,
    needed,
    refusal,
)
from evaluation.gpteval3d.batch_output import Reply, read_replies
from evaluation.gpteval3d.batches import Ledger, Request, Shard
from evaluation.gpteval3d.completion import said
from evaluation.gpteval3d.cost import Budget, Price, counted, input_tokens, most_usd
from evaluation.gpteval3d.keys import OPENAI
from evaluation.gpteval3d.limits import retry_after
from evaluation.gpteval3d.questions import Question
from evaluation.gpteval3d.settings import JudgeSettings
from evaluation.gpteval3d.store import AnswerStore
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.text import one_line, printable

if TYPE_CHECKING:
    from openai import OpenAI

Found = TypeVar("Found")

SHARD_BYTES, SHARD_REQUESTS = 190_000_000, 50_000  # a file may have 200 MB and 50,000 lines
_ENDED = {"completed", "expired", "cancelled"}
_LOOKS = 6  # for a batch whose creation was not confirmed
_TRIES = 3  # of a question in one session
_LONGEST_POLL_S = 300.0
_UPLOAD_S = 900.0
_NO_BATCHES = "the server does not speak the batch interface: check judge.base_url, or use judge.batch=false"
_ODD = (AttributeError, TypeError, ValueError)  # from a web page, or another kind of JSON, with status 200
_URL: Final = "/v1/chat/completions"


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
        self.settings, self.store, self.budget, self.price = settings, store, budget, price
        self.ledger, self._key = ledger, key
        self._session = Session()
        self._failed: Counter[str] = Counter()  # by question
        self._no_money: str | None = None
        self._jitter = random.Random()

    def run(self, questions: Sequence[Question]) -> Session:
        """Collect, send, wait. The first SIGINT or SIGTERM ends this after the step in hand."""
        from openai import OpenAI

        if self.ledger.open or self._waiting(questions):
            timeout, url = self.settings.timeout_s, self.settings.base_url or OPENAI
            with OpenAI(api_key=self._key, base_url=url, max_retries=0, timeout=timeout) as client:
                self._client: OpenAI = client
                with self._signals():
                    try:
                        self._work(questions)
                    except (Stop, TraceBenchError) as why:  # TraceBenchError: unreadable render, full disk
                        self._session.why_stopped = str(why).rstrip(".")
            self._file.unlink(missing_ok=True)
        self._session.why_stopped = self._session.why_stopped or self._no_money
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
            if not self.ledger.open or self._session.signal is not None or time.monotonic() >= until:
                return
            self._pause(min(delay, until - time.monotonic()))
            delay = min(2 * delay, _LONGEST_POLL_S)

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
        self._no_money, sent = None, False
        queue = deque(self._waiting(questions).values())
        while queue and self._session.signal is None:
            if self.ledger.most_requests and self.ledger.open:
                break  # the server's queue is full: one batch at a time
            shard = self._fill(queue)
            if shard is None:
                break
            self._send(shard)
            sent = True
        return sent

    def _fill(self, queue: deque[Question]) -> Shard | None:
        """Write the next requests of the queue to a file, as many as fit; None if none does."""
        requests: list[Request] = []
        size, digest = 0, hashlib.sha256()
        most = self.ledger.most_requests or SHARD_REQUESTS
        self.budget.spent = self.store.spent  # collected answers cost less than was reserved
        with self._file.open("wb") as file:
            while queue and len(requests) < most and self._session.signal is None:
                request = self._request(queue[0])
                if not self._fits_queue(request, requests):
                    break
                line = self._line(queue[0], request)
                if requests and size + len(line) > SHARD_BYTES:
                    break
                if not self.budget.reserve(request.usd):
                    self._no_money = (
                        f"the budget of {self.budget.limit:g} USD does not cover the next request "
                        f"({self.store.spent + self.budget.reserved:.2f} spent or reserved, up to "
                        f"{request.usd:.2f} needed)"
                    )
                    queue.clear()
                    break
                file.write(line)
                digest.update(line)
                size += len(line)
                requests.append(request)
                queue.popleft()
        self.budget.reserved = 0.0  # the store holds it once the batch is planned
        return Shard(digest.hexdigest()[:32], requests, "") if requests else None

    def _fits_queue(self, request: Request, requests: Sequence[Request]) -> bool:
        """Whether the server's queue, if it has a known limit, takes this request with all open ones."""
        limit = self.settings.batch_tokens
        if limit is None:
            return True
        waiting = [*requests, *(r for shard in self.ledger.open for r in shard.requests)]
        return not waiting or request.tokens + sum(r.tokens for r in waiting) <= limit

    def _request(self, question: Question) -> Request:
        settings, store = self.settings, self.store
        tokens = input_tokens(question, settings.tile_px, settings.detail, self.price)
        choices = needed(question, store, settings)
        most = store.overrun * most_usd(tokens, choices, settings.max_output_tokens, self.price)
        return Request(question.key, store.attempts[question.key], choices, round(most, 8), tokens)

    def _line(self, question: Question, request: Request) -> bytes:
        arguments = self.settings.request(request.attempt)
        body = arguments | arguments.pop("extra_body") | {"n": request.choices}
        body["messages"] = question.messages(self.settings.tile_px, self.settings.detail)
        line = {"custom_id": request.custom_id, "method": "POST", "url": _URL, "body": body}
        return json.dumps(line).encode() + b"\n"

    @property
    def _file(self) -> Any:
        return self.ledger.path.with_suffix(".upload")

    def _send(self, planned: Shard) -> None:
        """Upload and create, each step on the disk before the next."""
        requests = [list(request) for request in planned.requests]
        self.ledger.write({"event": "planned", "shard": planned.name, "requests": requests})
        self.ledger.hold(self.store)
        shard = self.ledger.shards[planned.name]
        upload = self._client.with_options(timeout=max(_UPLOAD_S, self.settings.timeout_s)).files

        def send() -> str:
            with self._file.open("rb") as file:
                made = upload.create(file=(f"{shard.name}.jsonl", file), purpose="batch")
            return str(self.store.safe(made.id))

        try:
            found = self._asked(send, interface=True)
        except Stop:
            self._drop(shard, "not uploaded")
            raise
        self.ledger.write({"event": "uploaded", "shard": shard.name, "file": found})
        self._create(shard)

    def _create(self, shard: Shard) -> None:
        """Create the batch of an uploaded file, once."""
        import openai

        for tried in range(self.settings.retries + 1):
            wait = self._delay(tried)
            try:
                made = self._client.batches.create(
                    input_file_id=str(shard.file),
                    endpoint=_URL,
                    completion_window="24h",
                    metadata={"trace_bench_shard": shard.name},
                )
            except _ODD:
                raise Stop(_NO_BATCHES) from None
            except openai.APIConnectionError:  # also a time-out: it may have been created
                if self._adopt(shard):
                    return
                reason = "no answer"
            except openai.APIStatusError as error:
                status = int(error.status_code)
                if status >= 500 and self._adopt(shard):
                    return
                unknown_file = status in {400, 404} and "file" in said(error.response.content, str).lower()
                passing = status in AGAIN or status >= 500 or (unknown_file and tried < _TRIES)
                if not passing or str(error.code) in HOPELESS:
                    message = refusal(status, error.response.content, self.settings, self.store)
                    self._drop(shard, message)
                    raise Stop(f"the server rejects the batch (HTTP {status}): {message}") from None
                reason, wait = f"HTTP {status}", max(wait, retry_after(error.response.headers))
            else:
                if isinstance(id_ := getattr(made, "id", None), str):
                    self._created(shard, str(self.store.safe(id_)))
                    return
                raise Stop(_NO_BATCHES)
            self._session.failures[reason] += 1
            if wait > LONGEST_WAIT_S:
                raise Stop(f"the server asks to wait {wait:.0f} s; run the command again after that")
            self._pause(wait)
            if self._session.signal is not None:
                return
        raise Stop(f"the server makes no batch ({reason}); the same command goes on from there")

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
        self._delete(shard)

    def _fail(self, request: Request, reason: str, perhaps_paid: bool) -> None:
        """Record a failed request, if it was recorded as sent and has no end yet."""
        pair = request.key, request.attempt
        if pair in self.store.sent and pair not in self.store.closed:
            failed = {"event": "failed", "reason": reason, "perhaps_paid": perhaps_paid, "via": "batch"}
            self.store.write({"key": request.key, "attempt": request.attempt} | failed)

    # --- what an earlier session left ----------------------------------------------------------------------

    def _recover(self) -> None:
        """Find out whether shards without a confirmed batch have one; send or drop the others."""
        for shard in self.ledger.open:
            if shard.batch is not None:
                self._record_sent(shard)
            elif self._adopt(shard):
                pass
            elif shard.file is None:  # killed before or during the upload: nothing can have been created
                self._drop(shard, "not uploaded")
            else:
                self._create(shard)

    def _adopt(self, shard: Shard) -> bool:
        """Look for the batch of a shard at the server; a young one may not be listed at once."""
        planned = _seconds(shard.utc)
        looks = _LOOKS if shard.file and time.time() - planned < LONGEST_WAIT_S else 1
        for look in range(looks):
            if look:
                self._pause(self._delay(look))
            found = self._asked(lambda: self._find(shard, planned), interface=True)
            if found is not None:
                self._created(shard, found)
                return True
        return False

    def _find(self, shard: Shard, planned: float) -> str | None:
        for batch in self._client.batches.list(limit=100):  # the newest first
            if (batch.metadata or {}).get("trace_bench_shard") == shard.name:
                return str(batch.id)
            if batch.created_at and batch.created_at < planned - 86400:
                return None
        return None

    def _delete(self, shard: Shard) -> None:
        """Delete an input file; it would expire anyway, so a failure does not matter."""
        import openai

        try:
            if shard.file is not None:
                self._client.files.delete(shard.file)
                return
            for file in self._client.files.list(purpose="batch", limit=100):
                if file.filename == f"{shard.name}.jsonl":
                    self._client.files.delete(file.id)
        except (openai.OpenAIError, *_ODD):
            pass

    # --- collecting ---------------------------------------------------------------------------------------

    def _collect(self) -> None:
        """Store the answers of every batch that has ended."""
        why: Stop | None = None
        for shard in self.ledger.open:
            if shard.batch is None or self._session.signal is not None:
                continue
            batch = self._asked(partial(self._state, shard.batch), missing_ok=True)
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

    def _state(self, id_: str) -> Any:
        """A batch as it is now; an AttributeError if the server sends something else."""
        batch = self._client.batches.retrieve(id_)
        return batch if isinstance(batch.status, str) else None

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
            content = self._download(id_) if id_ else b""
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
        self._delete(shard)
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
        limit = {"max_output_tokens": self.settings.max_output_tokens, "via": "batch", "batch": shard.batch}
        self.store.write(record | answer | limit)
        return str(self.store.safe(answer["model"] or ""))

    def _note(self, request: Request, reason: str, perhaps_paid: bool) -> None:
        """Record a request without an answer; its question is asked again, but not for ever."""
        self._fail(request, reason, perhaps_paid)
        self._failed[request.key] += 1
        self._session.failures[self.store.redact(reason)] += 1

    def _download(self, id_: str) -> bytes | None:
        """The content of a file; None if it is gone."""
        found = self._asked(lambda: self._client.files.content(id_).read(), missing_ok=True)
        return None if found is None else bytes(found)

    # --- calls --------------------------------------------------------------------------------------------

    def _asked(
        self, call: Callable[[], Found], missing_ok: bool = False, interface: bool = False
    ) -> Found | None:
        """The result of a call that may be repeated; None for a 404 with `missing_ok`.

        `interface`: a 404 means that the server has no batches.
        """
        import openai

        for tried in range(self.settings.retries + 1):
            wait = self._delay(tried)
            try:
                return call()
            except _ODD:
                raise Stop(_NO_BATCHES) from None
            except openai.APITimeoutError:
                reason = "time-out"
            except openai.APIConnectionError:
                reason = "no connection"
            except openai.APIStatusError as error:
                status = int(error.status_code)
                if status == 404 and missing_ok:
                    return None
                if str(error.code) in HOPELESS or not (status in AGAIN or status >= 500):
                    message = refusal(status, error.response.content, self.settings, self.store)
                    if status in {404, 405} and interface:
                        message += "; a server without a batch interface needs judge.batch=false"
                    raise Stop(f"the server rejects the request (HTTP {status}): {message}") from None
                reason, wait = f"HTTP {status}", max(wait, retry_after(error.response.headers))
            self._session.failures[reason] += 1
            if wait > LONGEST_WAIT_S:
                raise Stop(f"the server asks to wait {wait:.0f} s; run the command again after that")
            if self._session.signal is not None:
                break
            self._pause(wait)
        raise Stop(f"the server does not answer ({reason})")

    def _delay(self, tried: int) -> float:
        ceiling = min(self.settings.backoff_max_s, self.settings.backoff_s * 2**tried)
        return self._jitter.uniform(ceiling / 2, ceiling)

    def _pause(self, seconds: float) -> None:
        """Wait, but not after a signal."""
        until = time.monotonic() + seconds
        while self._session.signal is None and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.2))

    def _say(self, text: str) -> None:
        print(printable(self.store.redact(text)), file=sys.stderr)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """The first SIGINT or SIGTERM ends the session after the step in hand; the second at once."""
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def on(number: int, _: Any) -> None:
            again = self._session.signal is not None
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


def _seconds(utc: str) -> float:
    """Seconds since the epoch; now if the text is no time."""
    try:
        when = datetime.fromisoformat(utc)
    except ValueError:
        return time.time()
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
