"""The batch interface of an OpenAI-compatible server: each call is repeated until it has an answer.

A call that has no effect may be repeated at will. Creating a batch costs money, so a creation that was not
confirmed is first looked for by its metadata.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from evaluation.gpteval3d.server.asking import AGAIN, HOPELESS, LONGEST_WAIT_S, Session, Stop, refusal
from evaluation.gpteval3d.server.batches import Shard
from evaluation.gpteval3d.server.completion import said
from evaluation.gpteval3d.server.limits import retry_after
from evaluation.gpteval3d.server.store import AnswerStore
from evaluation.gpteval3d.settings import JudgeSettings

if TYPE_CHECKING:
    from openai import APIStatusError, OpenAI

Found = TypeVar("Found")

ENDPOINT: Final = "/v1/chat/completions"
_LOOKS = 6  # for a batch whose creation was not confirmed
_UNKNOWN_FILE_TRIES = 3  # a server may need a while to know an uploaded file
_UPLOAD_S = 900.0
_METADATA: Final = "trace_bench_shard"
_NO_BATCHES = "the server does not speak the batch interface: check judge.base_url, or use judge.batch=false"
_ODD = (AttributeError, TypeError, ValueError)  # from a web page, or another kind of JSON, with status 200


class Rejected(Stop):
    """The server will not create this batch; nothing was run or paid."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"the server rejects the batch (HTTP {status}): {reason}")
        self.reason = reason


class BatchServer:
    """Uploads files, creates, finds and reads batches.

    Every call raises `Stop` if the server refuses it, does not answer after `retries` retries, or asks to
    wait longer than a session lasts.
    """

    def __init__(self, client: OpenAI, settings: JudgeSettings, store: AnswerStore, session: Session) -> None:
        """`session`: a signal in it ends every wait; failed calls are counted in it."""
        self._client, self._settings, self._store, self._session = client, settings, store, session
        self._jitter = random.Random()

    def upload(self, path: Path, shard: Shard) -> str:
        """Upload the requests of a shard; returns the file's id."""
        files = self._client.with_options(timeout=max(_UPLOAD_S, self._settings.timeout_s)).files

        def send() -> str:
            with path.open("rb") as file:
                return str(files.create(file=(f"{shard.name}.jsonl", file), purpose="batch").id)

        return str(self._store.safe(self._asked(send, interface=True)))

    def create(self, shard: Shard) -> str | None:
        """Create the batch of an uploaded file, once; returns its id, or None after a signal.

        Raises `Rejected` if the server refuses this batch.
        """
        import openai

        reason = "no answer"
        for tried in range(self._settings.retries + 1):
            asked_wait = 0.0
            try:
                return self._new_batch(shard)
            except _ODD:
                raise Stop(_NO_BATCHES) from None
            except openai.APIConnectionError:  # also a time-out: it may have been created
                if found := self.find(shard):
                    return found
                reason = "no answer"
            except openai.APIStatusError as error:
                if error.status_code >= 500 and (found := self.find(shard)):
                    return found
                self._refuse_unless_passing(error, tried)
                reason, asked_wait = f"HTTP {error.status_code}", retry_after(error.response.headers)
            if not self._wait_again(reason, tried, asked_wait):
                return None
        raise Stop(f"the server makes no batch ({reason}); the same command goes on from there")

    def _new_batch(self, shard: Shard) -> str:
        made = self._client.batches.create(
            input_file_id=str(shard.file),
            endpoint=ENDPOINT,
            completion_window="24h",
            metadata={_METADATA: shard.name},
        )
        if not isinstance(made.id, str):
            raise Stop(_NO_BATCHES)
        return str(self._store.safe(made.id))

    def _refuse_unless_passing(self, error: APIStatusError, tried: int) -> None:
        """Raise `Rejected` unless another try may help."""
        status, content = error.status_code, error.response.content
        unknown_file = status in {400, 404} and "file" in said(content, str).lower()
        passing = _may_pass(error) or (unknown_file and tried < _UNKNOWN_FILE_TRIES)
        if not passing or str(error.code) in HOPELESS:
            raise Rejected(status, refusal(status, content, self._settings, self._store)) from None

    def find(self, shard: Shard) -> str | None:
        """The id of a shard's batch if the server has one; a young batch may not be listed at once."""
        planned = _seconds(shard.utc)
        looks = _LOOKS if shard.file and time.time() - planned < LONGEST_WAIT_S else 1
        for look in range(looks):
            if look:
                self.pause(self._delay(look))
            found = self._asked(lambda: self._listed(shard.name, planned), interface=True)
            if found is not None:
                return str(self._store.safe(found))
        return None

    def _listed(self, name: str, planned: float) -> str | None:
        for batch in self._client.batches.list(limit=100):  # the newest first
            if (batch.metadata or {}).get(_METADATA) == name:
                return str(batch.id)
            if batch.created_at and batch.created_at < planned - 86400:
                return None
        return None

    def state(self, id_: str) -> Any:
        """A batch as it is now; None if the server does not know it."""

        def retrieve() -> Any:
            batch = self._client.batches.retrieve(id_)
            return batch if isinstance(batch.status, str) else None

        return self._asked(retrieve, missing_ok=True)

    def download(self, id_: str) -> bytes | None:
        """The content of a file; None if it is gone."""
        found = self._asked(lambda: self._client.files.content(id_).read(), missing_ok=True)
        return None if found is None else bytes(found)

    def delete(self, shard: Shard) -> None:
        """Delete a shard's input file; it would expire anyway, so a failure does not matter."""
        import openai

        with suppress(openai.OpenAIError, *_ODD):
            if shard.file is not None:
                self._client.files.delete(shard.file)
                return
            for file in self._client.files.list(purpose="batch", limit=100):
                if file.filename == f"{shard.name}.jsonl":
                    self._client.files.delete(file.id)

    def pause(self, seconds: float) -> None:
        """Wait, but not after a signal."""
        until = time.monotonic() + seconds
        while self._session.signal is None and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.2))

    def _asked(
        self, call: Callable[[], Found], missing_ok: bool = False, interface: bool = False
    ) -> Found | None:
        """The result of a call that may be repeated; None for a 404 with `missing_ok`.

        `interface`: a 404 means that the server has no batches.
        """
        import openai

        reason = ""
        for tried in range(self._settings.retries + 1):
            asked_wait = 0.0
            try:
                return call()
            except _ODD:
                raise Stop(_NO_BATCHES) from None
            except openai.APITimeoutError:
                reason = "time-out"
            except openai.APIConnectionError:
                reason = "no connection"
            except openai.APIStatusError as error:
                status = error.status_code
                if status == 404 and missing_ok:
                    return None
                if str(error.code) in HOPELESS or not _may_pass(error):
                    message = refusal(status, error.response.content, self._settings, self._store)
                    if status in {404, 405} and interface:
                        message += "; a server without a batch interface needs judge.batch=false"
                    raise Stop(f"the server rejects the request (HTTP {status}): {message}") from None
                reason, asked_wait = f"HTTP {status}", retry_after(error.response.headers)
            if not self._wait_again(reason, tried, asked_wait):
                break
        raise Stop(f"the server does not answer ({reason})")

    def _wait_again(self, reason: str, tried: int, asked_wait: float) -> bool:
        """Wait before the next try; returns False after a signal."""
        self._session.failures[reason] += 1
        if asked_wait > LONGEST_WAIT_S:
            raise Stop(f"the server asks to wait {asked_wait:.0f} s; run the command again after that")
        self.pause(max(self._delay(tried), asked_wait))
        return self._session.signal is None

    def _delay(self, tried: int) -> float:
        ceiling = min(self._settings.backoff_max_s, self._settings.backoff_s * 2**tried)
        return self._jitter.uniform(ceiling / 2, ceiling)


def _may_pass(error: APIStatusError) -> bool:
    """Whether the same call may succeed later."""
    return error.status_code in AGAIN or error.status_code >= 500


def _seconds(utc: str) -> float:
    """Seconds since the epoch; now if the text is no time."""
    try:
        when = datetime.fromisoformat(utc)
    except ValueError:
        return time.time()
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
