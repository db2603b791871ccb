"""Client for an OpenAI-compatible server: concurrent, with retries, each question answered once.

Errors are handled in this order:
- the server rejects the request (other 4xx, an empty account): the run stops with a message;
- it declines this one question (content policy): stored as refused;
- it sends something else than chat completions (an error or a web page with status 200) and never sent one:
  the run stops with what it said;
- 408, 409, 425, 429, 5xx, no connection, a timeout, a body that is cut off: retried after an exponential
  delay with full jitter, and not before the server's Retry-After; after `retries` retries the question stays
  unanswered until the command runs again.
Each answer is on disk before its worker sends the next request.
"""

from __future__ import annotations

import asyncio
import random
import re
import signal
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from evaluation.gpteval3d.questions import Question
from evaluation.gpteval3d.server.asking import (
    AGAIN,
    DECLINED,
    HOPELESS,
    LONGEST_WAIT_S,
    Session,
    Stop,
    check_model,
    needed,
    refusal,
    where,
)
from evaluation.gpteval3d.server.completion import error_of, is_whole, read_completion, said
from evaluation.gpteval3d.server.cost import Budget, Price, counted, input_tokens, most_usd
from evaluation.gpteval3d.server.keys import OPENAI
from evaluation.gpteval3d.server.limits import RateLimit, retry_after, sleep_unless
from evaluation.gpteval3d.server.store import AnswerStore
from evaluation.gpteval3d.settings import JudgeSettings
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.tracked import tracker

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_FAILED_IN_A_ROW = 8


class _Failed(Exception):
    """A failed request that may be retried."""

    def __init__(self, reason: str, perhaps_paid: bool, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.reason, self.perhaps_paid, self.wait = reason, perhaps_paid, wait


class Asker:
    """Works through questions with `settings.concurrency` requests at a time."""

    def __init__(
        self,
        settings: JudgeSettings,
        key: str,
        store: AnswerStore,
        budget: Budget,
        price: Price,
        busy: Collection[str] = (),
    ) -> None:
        """`busy`: keys of questions in open batches, which are not asked."""
        self.settings, self.store, self.budget, self.price = settings, store, budget, price
        self._busy = busy
        self._key = key
        self._rate = RateLimit(settings.requests_per_minute, settings.tokens_per_minute)
        self._session = Session()
        self._in_a_row = 0
        self._jitter = random.Random()

    def run(self, questions: Sequence[Question]) -> Session:
        """Ask all open questions. The first SIGINT or SIGTERM lets running requests finish, a second not."""
        asyncio.run(self._run(questions))
        return self._session

    async def _run(self, questions: Sequence[Question]) -> None:
        from openai import AsyncOpenAI

        self._stop = asyncio.Event()
        # by key: questions with the same pictures share one answer
        waiting = {question.key: question for question in questions if self._needed(question)}
        queue = iter(waiting.values())
        async with AsyncOpenAI(
            api_key=self._key,
            base_url=self.settings.base_url or OPENAI,
            max_retries=0,
            timeout=self.settings.timeout_s,
        ) as client:
            with tracker(len(waiting), "asking") as one_is_done:
                workers = [
                    asyncio.create_task(self._work(client, queue, one_is_done))
                    for _ in range(min(self.settings.concurrency, len(waiting)))
                ]
                with _Signals(self, workers):
                    ended = await asyncio.gather(*workers, return_exceptions=True)
        for error in ended:
            if isinstance(error, Exception):
                raise error

    def _needed(self, question: Question) -> int:
        return needed(question, self.store, self.settings, self._busy)

    def interrupt(self, number: int) -> bool:
        """Start no more requests; returns whether an interrupt came before."""
        again = self._session.signal is not None
        self._session.signal = number
        self._end(f"stopped by {signal.Signals(number).name}")
        return again

    def _end(self, why: str) -> None:
        self._session.why_stopped = self._session.why_stopped or why
        self._stop.set()

    async def _work(
        self, client: AsyncOpenAI, queue: Iterator[Question], one_is_done: Callable[[], None]
    ) -> None:
        """One worker; asks questions one by one."""
        for question in queue:
            if self._stop.is_set():
                return
            try:
                await self._settle(client, question)
            except (Stop, TraceBenchError) as why:  # TraceBenchError: unreadable render
                self._end(str(why).rstrip("."))
            except BaseException:
                self._stop.set()
                raise
            one_is_done()

    async def _settle(self, client: AsyncOpenAI, question: Question) -> None:
        """Ask until every choice has arrived or the retries are used up."""
        delays = 0
        while (missing := self._needed(question)) and not self._stop.is_set():
            try:
                await self._ask(client, question, missing)
                self._in_a_row = delays = 0
            except _Failed as failed:
                self._session.failures[failed.reason] += 1
                if failed.wait > LONGEST_WAIT_S:
                    raise Stop(
                        f"the server asks to wait {failed.wait:.0f} s; run the command again after that"
                    ) from None
                if delays >= self.settings.retries:
                    self._give_up(failed)
                    return
                ceiling = min(self.settings.backoff_max_s, self.settings.backoff_s * 2**delays)
                delays += 1
                self._rate.pause(failed.wait)
                await sleep_unless(self._stop, max(failed.wait, self._jitter.uniform(0.0, ceiling)))

    def _give_up(self, failed: _Failed) -> None:
        """Leave a question unanswered; end the session after too many in a row."""
        self._session.given_up += 1
        self._in_a_row += 1
        if self._in_a_row >= _FAILED_IN_A_ROW:
            raise Stop(f"the server does not answer ({failed.reason})")

    async def _ask(self, client: AsyncOpenAI, question: Question, choices: int) -> None:
        """Send one request and record it."""
        settings = self.settings
        tokens = input_tokens(question, settings.tile_px, settings.detail, self.price)
        await sleep_unless(self._stop, self._rate.reserve(tokens))
        messages = await asyncio.to_thread(question.messages, settings.tile_px, settings.detail)
        if self._stop.is_set():
            return
        most = self.store.overrun * most_usd(tokens, choices, settings.max_output_tokens, self.price)
        if not self.budget.reserve(most):
            raise Stop(
                f"the budget of {self.budget.limit:g} USD does not cover the next request "
                f"({self.budget.spent:.2f} spent, up to {most:.2f} needed)"
            )
        attempt = self.store.attempts[question.key]
        record = {"key": question.key, "attempt": attempt}
        self.store.write(record | {"event": "sent", "choices": choices, "usd": round(most, 8)})
        try:
            answer = await self._send(client, messages, choices, attempt)
        except _Failed as failed:
            self.budget.settle(most, most if failed.perhaps_paid else 0.0)
            reason = {"reason": failed.reason, "perhaps_paid": failed.perhaps_paid}
            self.store.write(record | {"event": "failed"} | reason)
            raise
        except Stop:
            self.budget.settle(most, 0.0)
            self.store.write(record | {"event": "failed", "reason": "rejected", "perhaps_paid": False})
            raise
        paid = counted([answer["usage"]], self.price)[2] if answer["usage"] else most
        self.budget.settle(most, paid)
        known = self.store.models
        self.store.write(record | {"event": "answer", "usd": round(paid, 8)} | answer)
        check_model(self.store.safe(answer["model"] or ""), known, self.settings)

    async def _send(
        self, client: AsyncOpenAI, messages: list[dict[str, Any]], choices: int, attempt: int
    ) -> dict[str, Any]:
        """Send a request; returns the answer as stored."""
        import openai

        began = time.monotonic()
        try:
            async with asyncio.timeout(self.settings.timeout_s):
                raw = await client.chat.completions.with_raw_response.create(
                    messages=messages,  # type: ignore[arg-type]
                    n=choices,
                    **self.settings.request(attempt),
                )
        except (openai.APITimeoutError, TimeoutError):
            raise _Failed("time-out", perhaps_paid=True) from None
        except openai.APIConnectionError as error:
            refused = type(error.__cause__).__name__ in {"ConnectError", "ConnectTimeout"}
            raise _Failed("no connection", perhaps_paid=not refused) from None
        except openai.APIStatusError as error:
            return self._on_status(error, choices)
        answer = read_completion(raw.content, choices, self.settings.model)
        if answer is None:
            return self._on_no_completion(raw.content)
        return answer | {
            "max_output_tokens": self.settings.max_output_tokens,
            "request_id": raw.request_id,
            "seconds": round(time.monotonic() - began, 3),
        }

    def _on_no_completion(self, content: bytes) -> NoReturn:
        """Handle a body with status 200 that is not a chat completion."""
        error = error_of(content)
        code = error.get("code") if isinstance(error, dict) else None
        status = int(str(code)) if re.fullmatch(r"[0-9]{3}", str(code)) else 0
        passing = status in AGAIN or status >= 500
        if not is_whole(content) or passing or self.store.answers:
            what = f"HTTP 200 with an error: {self._words(content)}" if error else "malformed answer"
            raise _Failed(what, perhaps_paid=True)
        raise Stop(f"the server sends no chat completion, but: {self._words(content)}{where(self.settings)}")

    def _on_status(self, error: Any, choices: int) -> dict[str, Any]:
        """Handle an error status; returns only if the question itself was declined."""
        status, code = int(error.status_code), str(error.code or "")
        if status == 400 and code in DECLINED:
            declined = {"text": None, "refusal": code, "finish_reason": "content_filter"}
            return {
                "model": None,
                "usage": {"prompt_tokens": 0, "completion_tokens": 0},
                "choices": [declined] * choices,
                "request_id": error.request_id,
            }
        if code not in HOPELESS and (status in AGAIN or status >= 500):
            raise _Failed(f"HTTP {status}", perhaps_paid=False, wait=retry_after(error.response.headers))
        message = refusal(status, error.response.content, self.settings, self.store)
        raise Stop(f"the server rejects the request (HTTP {status}): {message}")

    def _words(self, content: bytes) -> str:
        """What a body says, printable and without the key."""
        return said(content, self.store.redact)


class _Signals:
    """Handles SIGINT and SIGTERM while requests are running."""

    def __init__(self, asker: Asker, workers: Sequence[asyncio.Task[None]]) -> None:
        self._asker, self._workers = asker, workers
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.add_signal_handler(number, self._on, number)

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.remove_signal_handler(number)

    def _on(self, number: int) -> None:
        if self._asker.interrupt(number):
            for worker in self._workers:
                worker.cancel()
