"""A local judge: an OpenAI-compatible HTTP server with deterministic answers and faults.

An answer depends only on the question's content, so a tournament with faults must end like one without. A
`faults` function returns the fault of a request from (question, how often it came).
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Faults = Callable[[str, int], str | None]
MODEL = "judge-2026-01-01"
SLOW_S = 8  # longer than the client's timeout


def no_faults(question: str, times: int) -> str | None:
    return None


def a_fifth_fails(question: str, times: int) -> str | None:
    """20 % of the requests, a quarter each: 429, 500, a timeout, garbage; no fault is permanent."""
    digits = int(hashlib.sha256(f"{question}/{times}".encode()).hexdigest()[:8], 16)
    if times >= 3 or digits % 5:
        return None
    return ("429", "500", "slow", "garbage")[digits // 5 % 4] if times < 2 else "429"


class JudgeServer:
    """Records requests, paid answers and headers."""

    def __init__(self, faults: Faults = no_faults, answer: Callable[..., str] | None = None) -> None:
        self.faults, self.answer = faults, answer or answer_by_content
        self.model: str = MODEL
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.came: Counter[str] = Counter()  # requests by question
        self.paid: Counter[str] = Counter()  # usable answers sent, by question
        self.garbage: Counter[str] = Counter()
        self.seen_faults: Counter[str] = Counter()
        self.times: list[float] = []
        self.under_way = self.most_under_way = 0
        self.hold_after: int | None = None  # after this many answers, requests wait for `release`
        self.release = threading.Event()
        self.ignore_n = False
        self.usage: dict[str, int] | None = {"prompt_tokens": 1000, "completion_tokens": 100}
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def __enter__(self) -> JudgeServer:
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release.set()
        self._http.shutdown()
        self._http.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                with server._lock:
                    server.times.append(time.monotonic())
                    server.under_way += 1
                    server.most_under_way = max(server.most_under_way, server.under_way)
                try:
                    server._serve(self, json.loads(content))
                except (BrokenPipeError, ConnectionResetError):
                    pass
                finally:
                    with server._lock:
                        server.under_way -= 1

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def _serve(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        question = question_of(body)
        with self._lock:
            held = self.hold_after is not None and sum(self.paid.values()) >= self.hold_after
        if held:  # the client is about to be killed: no answer, no payment
            self.release.wait(120)
            handler.close_connection = True
            return
        with self._lock:
            times = self.came[question]
            self.came[question] += 1
            self.requests.append(body)
            self.headers.append({name.lower(): value for name, value in handler.headers.items()})
            fault = self.faults(question, times)
            if fault is None:
                self.paid[question] += 1
        if fault:
            with self._lock:
                self.seen_faults[fault] += 1
        if fault == "slow":
            time.sleep(SLOW_S)
            handler.close_connection = True
            return
        if fault == "garbage":
            with self._lock:
                self.garbage[question] += 1
        self._reply(handler, body, fault)

    def _reply(self, handler: BaseHTTPRequestHandler, body: dict[str, Any], fault: str | None) -> None:
        status, headers, reply = 200, {}, b""
        if fault == "cut":
            reply = b'{"choices": [{"mess'
        elif fault in (None, "garbage", "refusal", "length"):
            reply = json.dumps(self._completion(body, fault)).encode()
        elif fault == "declined":
            status, reply = 400, error_body("no", "content_policy_violation")
        elif fault == "quota":
            status, reply = 429, error_body("pay first", "insufficient_quota")
        elif fault == "echo":  # a server that sends the key back
            status, reply = 400, error_body(f"bad header {handler.headers['Authorization']}", "bad_request")
        else:
            status, reply = int(fault or 500), error_body("later", "later")
            headers = {"Retry-After": "0.05"} if fault == "429" else {}
        handler.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(reply)),
            **headers,
        }.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(reply)

    def _completion(self, body: dict[str, Any], fault: str | None) -> dict[str, Any]:
        text = "I had rather talk about something else." if fault == "garbage" else self.answer(body)
        message = {"role": "assistant", "content": text}
        if fault == "refusal":
            message = {"role": "assistant", "content": None, "refusal": "I can't."}
        choice = {"message": message, "finish_reason": "length" if fault == "length" else "stop"}
        many = 1 if self.ignore_n else body.get("n", 1)
        found = {"id": "x", "model": self.model, "choices": [choice | {"index": i} for i in range(many)]}
        return found | ({"usage": self.usage} if self.usage else {})


def error_body(message: str, code: str) -> bytes:
    return json.dumps({"error": {"message": message, "code": code}}).encode()


def question_of(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body["messages"]).encode()).hexdigest()[:16]


def criteria_of(body: dict[str, Any]) -> int:
    """The number of criteria in our own instruction."""
    match = re.search(r"nothing else: (\d+|one) number", body["messages"][0]["content"][0]["text"])
    assert match
    return 1 if match[1] == "one" else int(match[1])


def answer_by_content(body: dict[str, Any]) -> str:
    """An analysis and numbers determined by the question, with a slight bias to the left."""
    digest = hashlib.sha256(question_of(body).encode()).digest()
    numbers = ["11223"[byte % 5] for byte in digest[: criteria_of(body)]]
    return "Object 1 is red. Object 2 is round.\n\nFinal answer:\n" + " ".join(numbers)
