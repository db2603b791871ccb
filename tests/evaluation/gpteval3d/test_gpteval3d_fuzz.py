"""Generated answers and faults: nothing is misread, nothing is paid twice."""

from __future__ import annotations

import random

import pytest
from answer_forms import clear, unclear

from evaluation.gpteval3d.parsing import RESULTS, parse_answer


def decisions_of(rng: random.Random) -> list[int]:
    return [rng.randint(1, 3) for _ in range(rng.choice([1, 3, 4, 6]))]


def test_twenty_thousand_answers_are_read_as_they_are_meant_or_not_at_all():
    rng = random.Random(0)
    for _ in range(10_000):
        decisions = decisions_of(rng)
        text = clear(rng, decisions)
        assert parse_answer(text, len(decisions)) == tuple(RESULTS[str(d)] for d in decisions), text
        text = unclear(rng, decisions)
        assert parse_answer(text, len(decisions)) is None, text


def test_a_clear_answer_is_not_read_for_another_number_of_criteria():
    rng = random.Random(1)
    for _ in range(2000):
        decisions = decisions_of(rng)
        for count in {1, 3, 4, 6} - {len(decisions)}:
            text = clear(rng, decisions)
            assert parse_answer(text, count) is None, text


SECRET = "sk-fuzz-0123456789"


def _judge(tmp_path, monkeypatch, answers: int, choices: int, seed: int = 0) -> None:
    """Ask a fuzzing judge in sessions that are interrupted, with torn lines between them."""
    from fuzzing_judge import FuzzingJudge, check, make_questions

    from evaluation.gpteval3d.server.client import Asker
    from evaluation.gpteval3d.server.cost import Budget, Price
    from evaluation.gpteval3d.server.keys import redactor
    from evaluation.gpteval3d.server.store import AnswerStore, claimed
    from evaluation.gpteval3d.settings import JudgeSettings

    monkeypatch.setattr("evaluation.gpteval3d.server.client.input_tokens", lambda *_: 100)
    questions, rng, path = make_questions(answers // choices), random.Random(seed), tmp_path / "answers.jsonl"
    price = Price(1.0, 1.0)
    with FuzzingJudge(questions, SECRET, seed) as judge:
        settings = JudgeSettings(
            "judge", judge.url, choices=choices, backoff_s=0.001, backoff_max_s=0.002, retries=20
        )
        for session in range(100):
            stop = rng.randint(5, 30) * answers // choices // 100 + 1 if session < 6 else None
            with claimed(path):
                store = AnswerStore(path, redactor(SECRET))
                asker = Asker(settings, SECRET, store, Budget(None, price, store.spent, "judge"), price)
                taken = _count(monkeypatch, asker, stop)
                why = asker.run(questions).why_stopped
            assert why is None or "SIGTERM" in why, why
            assert taken[0] > 0
            if why is None:
                break
            with path.open("ab") as file:  # as if killed while it wrote
                file.write(
                    rng.choice([b'{"event": "answer", "key": "', b"\xff\xfe\x00", b'{"event": "sent"}', b"{"])
                )
        judge.calm, before = True, judge.came.total()
        store = AnswerStore(path, redactor(SECRET))
        check(judge, questions, store, choices)
        with claimed(path):
            Asker(settings, SECRET, store, Budget(None, price, 0.0, "judge"), price).run(questions)
        assert judge.came.total() == before, "an answered question was asked again"
    assert SECRET.encode() not in path.read_bytes()


def _count(monkeypatch, asker, stop):
    """Count the requests of an Asker, and interrupt it after `stop`."""
    import signal

    taken, send = [0], asker._send

    async def counted(*arguments):
        taken[0] += 1
        if taken[0] == stop:
            asker.interrupt(signal.SIGTERM)
        return await send(*arguments)

    monkeypatch.setattr(asker, "_send", counted)
    return taken


@pytest.mark.parametrize("choices", [1, 3])
def test_a_fuzzing_judge_is_paid_once_and_read_right(tmp_path, monkeypatch, choices):
    _judge(tmp_path, monkeypatch, 100, choices)


@pytest.mark.long
@pytest.mark.parametrize("choices", [1, 3])
def test_a_fuzzing_judge_is_paid_once_and_read_right_over_20_000_answers(tmp_path, monkeypatch, choices):
    _judge(tmp_path, monkeypatch, 10_000, choices, seed=1)  # and 10,000 with the other number of choices
