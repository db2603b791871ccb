"""What both ways of asking a server share, request by request and in batches: outcome, open questions, and
what a server's refusal means.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from evaluation.gpteval3d.completion import said
from evaluation.gpteval3d.questions import Question
from evaluation.gpteval3d.settings import JudgeSettings
from evaluation.gpteval3d.store import AnswerStore, readings

AGAIN = {408, 409, 425, 429}  # with 5xx: worth another try
DECLINED = {"content_filter", "content_policy_violation", "invalid_prompt"}
HOPELESS = {"insufficient_quota", "billing_hard_limit_reached"}
LONGEST_WAIT_S = 600.0
_N = re.compile(r"(?<!\w)n(?![\w-])|\bbest_of\b")  # the parameter


@dataclass
class Session:
    """Outcome of a session."""

    why_stopped: str | None = None  # None: every question was tried
    signal: int | None = None
    failures: Counter[str] = field(default_factory=Counter)  # requests, by reason
    given_up: int = 0  # questions
    in_batches: str | None = None  # what is open in batches, and how to collect it


class Stop(Exception):
    """Ends the session; the message says why."""


def needed(
    question: Question, store: AnswerStore, settings: JudgeSettings, busy: Collection[str] = ()
) -> int:
    """The number of choices to request for a question; 0 if its key is `busy`: in an open batch."""
    if question.key in busy:
        return 0
    answers = store.answers.get(question.key, [])
    criteria, limit = len(question.ensemble.criteria), settings.max_output_tokens
    return readings(answers, settings.choices, criteria, limit)[1]


def check_model(model: str, known: Sequence[str], settings: JudgeSettings) -> None:
    """Stop if the answering model changes."""
    expected = [settings.returned] if settings.returned else known
    if model and expected and model not in expected:
        raise Stop(
            f"{settings.model} now answers as {model}, but earlier answers are by {expected[0]}, "
            "and judges are never mixed: set a dated model with judge.model=..., or choose whose answers "
            "count with judge.returned=..."
        )


def refusal(status: int, content: bytes, settings: JudgeSettings, store: AnswerStore) -> str:
    """The server's message, shortened and without the key, and what may help."""
    if status in {401, 403}:
        return "the key was rejected; check the variable named by judge.api_key_env"
    message = said(content, store.redact)
    if status == 404:
        return message + where(settings)
    if status in {400, 422} and settings.choices > 1 and _N.search(message):
        return f"{message}; this server gives one answer per request: set judge.choices=1"
    if status in {400, 422} and settings.max_output_tokens_field in message:
        other = {"max_tokens", "max_completion_tokens"} - {settings.max_output_tokens_field}
        return f"{message}; if it does not know that key, set judge.max_output_tokens_field={min(other)}"
    return message


def where(settings: JudgeSettings) -> str:
    """A hint at the part of the address that is most often missing."""
    url = settings.base_url
    if url is None or url.rstrip("/").endswith("/v1"):
        return "; check judge.base_url and judge.model"
    return f"; judge.base_url usually ends in /v1, as in {url.rstrip('/')}/v1"
