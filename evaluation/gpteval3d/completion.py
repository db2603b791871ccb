"""Reduces a server's chat completion to the stored fields."""

from __future__ import annotations

import json
from typing import Any


def read_completion(content: bytes, choices: int, model: str) -> dict[str, Any] | None:
    """Model, usage and the first `choices` choices as stored; None if `content` is not a completion.

    `model` is the requested model, used if the server does not return one.
    """
    try:
        return _read(json.loads(content), choices, model)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _read(body: Any, choices: int, model: str) -> dict[str, Any]:
    """The same, but raises on malformed input."""
    found = []
    for choice in body["choices"][:choices]:
        message = choice["message"]
        text = message.get("content")
        if isinstance(text, list):  # some servers send a list of parts
            text = "".join(str(part["text"]) for part in text if part.get("type") == "text")
        if text is not None and not isinstance(text, str):
            raise TypeError
        refusal, reason = message.get("refusal"), choice.get("finish_reason")
        found.append(
            {
                "text": text,
                "refusal": None if refusal is None else str(refusal),
                "finish_reason": None if reason is None else str(reason),
            }
        )
    if not found:
        raise KeyError("choices")
    usage = body.get("usage") or {}
    counts = {key: int(usage[key]) for key in ("prompt_tokens", "completion_tokens") if key in usage}
    return {
        "model": str(body.get("model") or model),
        "fingerprint": body.get("system_fingerprint"),
        "usage": counts,
        "choices": found,
    }
