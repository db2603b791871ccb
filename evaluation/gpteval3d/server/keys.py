"""The judge's API key: read from the environment, passed to the client, never written."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable

from trace_bench.system.errors import TraceBenchError

OPENAI = "https://api.openai.com/v1"
_DEFAULT, _NO_KEY = "OPENAI_API_KEY", "no-key"
_SECRET = (
    8  # characters; a shorter "key" (EMPTY, none, 1) is a placeholder, and its letters are in every answer
)


def api_key(name: str | None, base_url: str | None) -> str:
    """The key in the environment variable `name`.

    OPENAI_API_KEY is the default only for requests to OpenAI. Another server gets a key only if `name` is
    set, else a placeholder.
    """
    if name is None and base_url is not None:
        return _NO_KEY
    name = name or _DEFAULT
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise TraceBenchError(
            "judge.api_key_env must be the name of the environment variable with the key, not the key itself."
        )
    value = os.environ.get(name, "").strip()
    if not value:
        raise TraceBenchError(
            f"The environment variable {name} with the judge's key is not set: export it, or use "
            "another variable with judge.api_key_env=NAME; judge=clip needs no key."
        )
    if not re.fullmatch(r"[!-~]+", value):
        raise TraceBenchError(
            f"The environment variable {name} does not hold a key: a key has only ASCII letters, digits "
            "and signs, "
            "without blanks; export it again."
        )
    return value


def redactor(key: str) -> Callable[[str], str]:
    """A function that removes the key from a text, also where the text quotes it as JSON."""
    forms = {key, json.dumps(key)[1:-1]} if len(key) >= _SECRET else set()

    def redact(text: str) -> str:
        for form in sorted(forms, key=len, reverse=True):
            text = text.replace(form, "[key]")
        return text

    return redact
