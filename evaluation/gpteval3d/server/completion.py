"""Reduces a server's chat completion to the stored fields, and finds what a server says instead of one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from trace_bench.system.errors import UNREADABLE
from trace_bench.system.text import one_line

_SAID = 300  # characters of a server's message
_REASONING = 2000  # stored characters of what a model thought before it gave no answer


def read_completion(content: bytes, choices: int, model: str) -> dict[str, Any] | None:
    """Model, usage and the first `choices` choices as stored; None if `content` is not a completion.

    `model` is the requested model, used if the server does not return one. Whatever else is odd costs no
    answer: an unknown usage is stored as {}, a choice without a text as None.
    """
    body = _json(content)
    found = body.get("choices") if isinstance(body, dict) else None
    if not isinstance(found, list) or not found:
        return None
    return {
        "model": _text(body.get("model")) or model,
        "fingerprint": _text(body.get("system_fingerprint")),
        "usage": _usage(body.get("usage")),
        "choices": [_choice(choice if isinstance(choice, dict) else {}) for choice in found[:choices]],
    }


def _choice(choice: dict[str, Any]) -> dict[str, Any]:
    message = choice.get("message")
    message = message if isinstance(message, dict) else {}
    text = message.get("content")
    if isinstance(text, list):  # some servers send a list of parts
        parts = (part.get("text") for part in text if isinstance(part, dict) and part.get("type") == "text")
        text = "".join(part for part in parts if isinstance(part, str))
    text, refusal = _text(text), message.get("refusal")
    read = {
        "text": text,
        "refusal": None if not refusal else str(refusal),
        "finish_reason": _text(choice.get("finish_reason")),
    }
    thought = _text(message.get("reasoning_content")) or _text(message.get("reasoning"))
    if thought and not (text or "").strip():
        read["reasoning"] = thought[-_REASONING:]
    return read


def _usage(usage: Any) -> dict[str, int]:
    """Both token counts, or nothing: half a usage would be half a price."""
    counts = {}
    for key in ("prompt_tokens", "completion_tokens"):
        count = usage.get(key) if isinstance(usage, dict) else None
        if isinstance(count, bool) or not isinstance(count, int | float) or not 0 <= count < 1e9:
            return {}
        counts[key] = int(count)
    return counts


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _json(content: bytes) -> Any:
    """The parsed body; None if it is not JSON. Bytes that are not UTF-8 cost only their characters."""
    try:
        return json.loads(content.decode("utf-8-sig", "replace"))
    except UNREADABLE:
        return None


def is_whole(content: bytes) -> bool:
    """Whether a body is complete: JSON, or no attempt at it (a web page)."""
    is_no_json = bool(content.strip()) and not content.lstrip().startswith((b"{", b"["))
    return is_no_json or _json(content) is not None


def error_of(content: bytes) -> Any:
    """The `error` of a body, which some servers and gateways send with status 200; None if there is none."""
    body = _json(content)
    if not isinstance(body, dict):
        return None
    return body.get("error") or (body if body.get("object") == "error" else None)


def said(content: bytes, redact: Callable[[str], str]) -> str:
    """What a server says instead of an answer: its message, else the beginning of the body, on one line."""
    body = _json(content)
    error = error_of(content) or body
    for key in ("message", "detail", "error", "msg"):
        if isinstance(error, dict) and error.get(key):
            error = error[key]
    text = error if isinstance(error, str) else content.decode("utf-8", "replace")
    return one_line(redact(text), _SAID) or "nothing"
