"""Reads what a batch gave back: one line per request, in any order, of successes and failures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from evaluation.gpteval3d.asking import AGAIN, DECLINED
from evaluation.gpteval3d.batches import Request
from evaluation.gpteval3d.completion import error_of, read_completion
from trace_bench.system.errors import UNREADABLE

_NOT_RUN = {"batch_expired", "batch_cancelled"}


@dataclass(frozen=True)
class Reply:
    """What became of one request."""

    request: Request
    answer: dict[str, Any] | None = None  # as stored
    reason: str = ""  # of a failure
    perhaps_paid: bool = False
    rejected: tuple[int, bytes] | None = None  # status and body: asking again would not help


def read_replies(content: bytes, requests: Mapping[str, Request], model: str) -> Iterator[Reply | None]:
    """One reply per line; None for a line that is not of these requests, by custom_id."""
    for line in content.split(b"\n"):
        if not line.strip():
            continue
        try:
            found = json.loads(line.decode("utf-8-sig", "replace"))
            request = requests.get(found["custom_id"])
        except (*UNREADABLE, KeyError, TypeError):
            request = None
        yield None if request is None else _reply(found, request, model)


def _reply(line: dict[str, Any], request: Request, model: str) -> Reply:
    response = line.get("response")
    response = response if isinstance(response, dict) else {}
    body = json.dumps(response.get("body")).encode()
    status = response.get("status_code")
    status = status if type(status) is int else 0
    if status == 200 and (answer := read_completion(body, request.choices, model)):
        return Reply(request, answer | {"request_id": _text(response.get("request_id"))})
    code = _code(line.get("error")) or _code(error_of(body))
    if code in _NOT_RUN:
        return Reply(request, reason=code)
    if code in DECLINED:
        declined = {"text": None, "refusal": code, "finish_reason": "content_filter"}
        usage = {"prompt_tokens": 0, "completion_tokens": 0}
        return Reply(request, {"model": None, "usage": usage, "choices": [declined] * request.choices})
    if status in {0, 200}:
        return Reply(request, reason=code or "malformed answer", perhaps_paid=True)
    if status in AGAIN or status >= 500:
        return Reply(request, reason=code or f"HTTP {status}", perhaps_paid=status == 408 or status >= 500)
    return Reply(request, reason=code or f"HTTP {status}", rejected=(status, body))


def _code(error: Any) -> str:
    return str(error["code"]) if isinstance(error, dict) and isinstance(error.get("code"), str) else ""


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
