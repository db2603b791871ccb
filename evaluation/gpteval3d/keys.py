"""The judge's key: taken from the environment, given to the client, written nowhere."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable

from trace_bench.system.errors import TraceBenchError

OPENAI = "https://api.openai.com/v1"
_DEFAULT, _NO_KEY = "OPENAI_API_KEY", "no-key"


def api_key(name: str | None, base_url: str | None) -> str:
    """The key in the environment variable `name`.

    OPENAI_API_KEY is taken by itself only where the requests go to OpenAI; another server gets a key
    only when its variable is named, else a placeholder.
    """
    if name is None and base_url is not None:
        return _NO_KEY
    name = name or _DEFAULT
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise TraceBenchError(
            "judge.api_key_env must be the name of an environment variable that holds the key, never the key."
        )
    value = os.environ.get(name, "").strip()
    if not value:
        raise TraceBenchError(
            f"The judge's key is read from the environment variable {name}, which is not set: export it, "
            "or name another variable with judge.api_key_env=NAME; judge=clip needs no key."
        )
    return value


def redactor(key: str) -> Callable[[str], str]:
    """A function that takes the key out of any text, be it plain or in JSON."""
    forms = {key, json.dumps(key)[1:-1], json.dumps(key, ensure_ascii=False)[1:-1]} - {_NO_KEY}

    def redact(text: str) -> str:
        for form in forms:
            text = text.replace(form, "[key]")
        return text

    return redact
