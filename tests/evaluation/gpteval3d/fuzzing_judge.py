"""A judge that answers in any form, breaks in any way, and knows what it was paid for."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any

from answer_forms import clear, unclear
from judge_server import MODEL, JudgeServer

from evaluation.gpteval3d.plan import Ensemble
from evaluation.gpteval3d.server.store import AnswerStore, readings

USAGES: list[Any] = [
    {"prompt_tokens": 1000, "completion_tokens": 100}, {"prompt_tokens": None, "completion_tokens": 7},
    None, [], "n/a",
    {"prompt_tokens": -5, "completion_tokens": 1}, {"prompt_tokens": 1e30, "completion_tokens": 1}, {}, 7,
    {"prompt_tokens": "1000", "completion_tokens": 1},
    {"prompt_tokens": True, "completion_tokens": float("nan")},
]  # fmt: skip
SPICE = ["", "\ud800", "\x00", "\x1b[31m", "😀", "\udfff ", "\u2028", "\\ud800", '"', "</s>"]
BROKEN = ["429", "500", "503", "reset", "short", "cut", "gateway", "empty"]


@dataclass(frozen=True)
class FakeQuestion:
    """A question without pictures; the judge sees its key."""

    key: str
    ensemble: Ensemble
    instruction: str = "Compare."
    prompt: str = "a red cube"

    def messages(self, tile_px: int, detail: str) -> list[dict[str, Any]]:
        return [{"role": "user", "content": self.key}]


def make_questions(count: int) -> list[Any]:
    kinds = [Ensemble(None, 1, True, False, ("overall",) * n, None) for n in (1, 3, 4, 6)]
    return [FakeQuestion(f"{i:064x}", kinds[i % 4]) for i in range(count)]


class FuzzingJudge(JudgeServer):
    """Counts what it delivered: `given[key]` are the meanings of the choices, None for an unusable one."""

    def __init__(self, questions: list[Any], secret: str, seed: int = 0) -> None:
        super().__init__()
        self.criteria = {question.key: len(question.ensemble.criteria) for question in questions}
        self.secret, self.seed = secret, seed
        self.given: dict[str, list[tuple[int, ...] | None]] = defaultdict(list)
        self.calm = False

    def _serve(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        key = body["messages"][0]["content"]
        with self._lock:
            rng = random.Random(f"{self.seed} {key} {self.came[key]}")
            self.came[key] += 1
        if not self.calm and rng.random() < 0.2:
            self._break(handler, rng.choice(BROKEN))
            return
        many = rng.choice([1, body["n"], body["n"], body["n"] + 1])
        choices = [self._choice(rng, self.criteria[key]) for _ in range(many)]
        with self._lock:
            self.given[key] += [meant for _, meant in choices[: body["n"]]]
        completion: dict[str, Any] = {"model": MODEL, "choices": [choice for choice, _ in choices]}
        completion |= rng.choice(
            [{}, {"system_fingerprint": rng.choice([None, 7, "fp\ud800"])}, {"error": None}]
        )
        if rng.random() < 0.9:
            completion["usage"] = rng.choice(USAGES)
        reply = json.dumps(completion).encode()
        self._send(handler, 200, rng.choice([b"", b"", b"\xef\xbb\xbf"]) + reply)

    def _choice(self, rng: random.Random, criteria: int) -> tuple[Any, tuple[int, ...] | None]:
        decisions = [rng.randint(1, 3) for _ in range(criteria)]
        usable = rng.random() < 0.8
        text = (clear if usable else unclear)(rng, decisions)
        spice = rng.choice(SPICE)
        text = f"{spice}I think: {spice}{rng.choice(['', self.secret])}\n\n{text}"
        meant = tuple({1: -1, 2: 1, 3: 0}[d] for d in decisions) if usable else None
        kind = rng.random()
        if kind < 0.02:
            return rng.choice([None, {}, {"message": None}, {"message": {"content": None}}, 5]), None
        if kind < 0.04:
            return {
                "message": {"content": text},
                "finish_reason": rng.choice(["length", "content_filter"]),
            }, None
        if kind < 0.06:
            return {
                "message": {"content": None, "refusal": rng.choice(["no", ["no"], {"why": "\ud800"}])}
            }, None
        if kind < 0.08:
            return {"message": {"content": "", "reasoning_content": text}, "finish_reason": "stop"}, None
        content = rng.choice(
            [text, [{"type": "text", "text": text}, {"type": "image"}, None, {"type": "text", "text": None}]]
        )
        return {"message": {"content": content}, "finish_reason": rng.choice(["stop", None, "eos", 3])}, meant

    def _break(self, handler: BaseHTTPRequestHandler, fault: str) -> None:
        if fault == "reset":
            handler.close_connection = True
        elif fault == "short":  # fewer bytes than declared
            self._send(handler, 200, b'{"choices": [{"message"', length=1000)
            handler.close_connection = True
        elif fault == "cut":
            self._send(handler, 200, b'{"choices": [{"mess')
        elif fault == "empty":
            self._send(handler, 200, b"")
        elif fault == "gateway":
            self._send(handler, 200, b'{"error": {"code": 502, "message": "upstream"}}')
        else:
            self._send(handler, int(fault), b'{"error": {"message": "later"}}')

    def _send(
        self, handler: BaseHTTPRequestHandler, status: int, reply: bytes, length: int | None = None
    ) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(length or len(reply)))
        handler.end_headers()
        handler.wfile.write(reply)


def check(judge: FuzzingJudge, questions: list[Any], store: AnswerStore, choices: int) -> None:
    """Every question was asked until it was answered and not once more, and was read as it was meant."""
    for question in questions:
        given, criteria = judge.given[question.key], len(question.ensemble.criteria)
        read, missing = readings(store.answers[question.key], choices, criteria)
        assert missing == 0, question.key
        first, again = given[:choices], given[choices:]
        bad = [i for i, meant in enumerate(first) if meant is None]
        assert len(again) <= len(bad), f"{question.key} was paid for again"
        for i, meant in zip(bad, again, strict=False):
            first[i] = meant
        assert [results for _, results in read] == first, question.key
