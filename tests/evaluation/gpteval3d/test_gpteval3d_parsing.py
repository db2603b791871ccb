"""Only the last line counts, and only if it holds nothing but the decisions."""

from __future__ import annotations

import json

import pytest

from evaluation.gpteval3d.parsing import as_data, parse_answer, read_choice
from evaluation.gpteval3d.server.store import readings

L, R, D = -1, 1, 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Left is sharper.\n1 2 3", (L, R, D)),
        ("1 2 3\n\n  \n", (L, R, D)),
        ("Analysis.\n\nFinal answer:\n1 2 3", (L, R, D)),
        ("Analysis.\nFinal answer: 1 2 3", (L, R, D)),
        ("Analysis.\n**Final Answer:** 1, 2, 3.", (L, R, D)),
        ("Analysis.\n**1 2 3**", (L, R, D)),
        ("```\n1 2 3\n```", (L, R, D)),
        ('"\nAnalysis\n1  2  3\n"', (L, R, D)),
        ("Analysis.\r\n1 / 2 / 3\r\n", (L, R, D)),
        ("My final decision: 1;2;3", (L, R, D)),
        ("[1, 2, 3]", (L, R, D)),
    ],
)
def test_what_is_read(text, expected):
    assert parse_answer(text, 3) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", "   \n", "1 2", "1 2 3 1", "1 2 4", "0 1 2", "123", "1 2 three", "I say 1 2 3", "1 2 3 (left)",
        "1. 2. 3.", "1-2-3", "１ ２ ３", "1 2 3 or 3 2 1", "Final answer: unclear",
        "1\n2\n3", '"1 2 3"', "-1 2 3", "Final answer: 1 2 3 Final answer: 3 2 1", "x: 1 2 3", "-1 2 3 4",
    ],
)  # fmt: skip
def test_what_is_not_guessed(text):
    assert parse_answer(text, 3) is None


def test_one_criterion():
    assert parse_answer("so: \nFinal answer:\n2", 1) == (R,)
    assert parse_answer("Both have 3", 1) is None


QUOTED = [
    "1 2 3",
    "\n1 2 3\n",
    'x"\n1 2 3',
    "\u20281 2 3\u2029",
    "\x851 2 3",
    "\\n1 2 3",
    "Final answer:\n1 2 3",
]


@pytest.mark.parametrize("prompt", QUOTED)
def test_a_quoted_prompt_is_never_taken_for_the_answer(prompt):
    literal = as_data(prompt)
    assert json.loads(literal) == prompt
    assert len(literal.splitlines()) == 1
    assert parse_answer(f"The text was {literal}\n3 2 1", 3) == (D, R, L)
    assert parse_answer(f"Analysis of {literal}", 3) is None
    assert parse_answer(f"The text was\n{literal}", 3) is None


@pytest.mark.parametrize(
    ("choice", "status"),
    [
        ({"text": "1 2 3", "finish_reason": "stop"}, "valid"),
        ({"text": "1 2 3", "finish_reason": None}, "valid"),
        ({"text": "1 2 3", "finish_reason": "length"}, "truncated"),
        ({"text": "1 2 3", "finish_reason": "content_filter"}, "refused"),
        ({"text": None, "refusal": "no", "finish_reason": "stop"}, "refused"),
        ({"text": None, "finish_reason": "stop"}, "unparsable"),
        ({"text": "hm", "finish_reason": "stop"}, "unparsable"),
    ],
)
def test_the_status_of_a_choice(choice, status):
    assert read_choice(choice, 3)[0] == status
    assert (read_choice(choice, 3)[1] is None) == (status != "valid")


def answers(*texts: str) -> list[dict]:
    return [{"choices": [{"text": t, "finish_reason": "stop"} for t in group.split("|")]} for group in texts]


@pytest.mark.parametrize(
    ("stored", "valid", "missing"),
    [
        ([], 0, 3),
        (["1|2|3"], 3, 0),
        (["1"], 1, 2),  # the server ignores n
        (["1|?|?"], 1, 2),
        (["1|?|?", "2|?"], 2, 0),  # one retry; its result is final
        (["?|?|?", "?|?|?", "1|1|1"], 0, 0),  # later answers do not count
        (["1|?", "2"], 2, 1),
        (["1|?", "2", "3"], 3, 0),
    ],
)
def test_each_choice_is_asked_for_again_once(stored, valid, missing):
    found, left = readings(answers(*stored), 3, 1)
    assert sum(status == "valid" for status, _ in found) == valid
    assert left == missing
