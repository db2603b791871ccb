"""What to tell a user none of whose answers could be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.gpteval3d.parsing import Status, read_choice
from evaluation.gpteval3d.settings import JudgeSettings
from trace_bench.system.text import one_line

_SHOWN = 300  # characters of the raw answer


def explain(choices: Sequence[tuple[Mapping[str, Any], int]], settings: JudgeSettings) -> str | None:
    """One raw answer of the most frequent kind, and the setting that helps; None if an answer is valid.

    Args:
        choices: stored choices, each with the number of criteria that were asked.
    """
    read = [(read_choice(choice, criteria)[0], choice, criteria) for choice, criteria in choices]
    if not read or any(status == "valid" for status, _, _ in read):
        return None
    status = Counter(status for status, _, _ in read).most_common(1)[0][0]
    choice, criteria = next((choice, criteria) for found, choice, criteria in read if found == status)
    advice = _advice(status, choice, criteria, settings)
    return f"No answer could be read. One of them, {_raw(choice)}.\n{advice}"


def _raw(choice: Mapping[str, Any]) -> str:
    text = choice.get("text") or choice.get("refusal")
    ended = f"which ended with finish_reason {one_line(str(choice.get('finish_reason')))!r}"
    if text and str(text).strip():
        words = one_line(str(text))
        return f"{ended}: {words if len(words) <= _SHOWN else '… ' + words[-_SHOWN:]}"
    if choice.get("reasoning"):
        return (
            f"{ended}, is empty; its reasoning_content ends: … {one_line(str(choice['reasoning']))[-_SHOWN:]}"
        )
    return f"{ended}, is empty"


def _advice(status: Status, choice: Mapping[str, Any], criteria: int, settings: JudgeSettings) -> str:
    if status == "truncated":
        thinks = " (it was still in reasoning_content)" if choice.get("reasoning") else ""
        return (
            f"The model reached the limit before its decisions{thinks}: raise judge.max_output_tokens, now "
            f"{settings.max_output_tokens}; the same command then asks these questions again."
        )
    if choice.get("reasoning"):
        return (
            "The server put the whole answer into reasoning_content: raise judge.max_output_tokens, now "
            f"{settings.max_output_tokens}, or switch the model's thinking off, for many servers with "
            "'judge.extra_body={chat_template_kwargs:{enable_thinking:false}}'."
        )
    if status == "refused":
        return "The model or its server refuses these questions: use another judge.model."
    return (
        f"An answer must end with {criteria} number{'s' if criteria > 1 else ''} of 1 to 3 and nothing else "
        "(docs/gpteval3d.md): use another judge.model, or raise judge.max_output_tokens, now "
        f"{settings.max_output_tokens}, if the answer is cut off."
    )
