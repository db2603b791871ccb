"""Servers that are odd, wrong or of another kind: no answer is lost, and the user learns what to change."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from gpteval3d_runs import KEY, arguments, events, make_runs, only, result
from judge_server import JudgeServer

from evaluation.gpteval3d.server.completion import read_completion
from evaluation.gpteval3d.server.keys import api_key, redactor
from evaluation.gpteval3d.server.store import AnswerStore, readings
from trace_bench.system.errors import TraceBenchError

pytestmark = pytest.mark.slow

COMMAND = "gpteval3d.__main__"
TWO = ["runs.method=[sds,vsd]"]  # few questions


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    monkeypatch.setenv("TEST_JUDGE_KEY", KEY)
    return make_runs(tmp_path / "outputs")


class OddServer(JudgeServer):
    """Sends a status and a body instead of an answer, or changes its answers."""

    def __init__(self, status=200, body=None, change=lambda completion: None) -> None:
        super().__init__()
        self.status, self.body, self.change = status, body, change

    def _reply(self, handler, body, fault):
        completion = self._completion(body, None)
        self.change(completion)
        reply = json.dumps(completion).encode() if self.body is None else self.body
        handler.send_response(self.status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(reply)))
        handler.end_headers()
        handler.wfile.write(reply)


def set_usage(usage):
    return lambda completion: completion.update(usage=usage)


def set_text(text, finish_reason="stop", **more):
    def change(completion):
        for choice in completion["choices"]:
            choice.update(message={"content": text} | more, finish_reason=finish_reason)

    return change


@pytest.mark.parametrize(
    "usage",
    [{"prompt_tokens": None}, {"prompt_tokens": None, "completion_tokens": None}, None, [], "?",
     {"prompt_tokens": 5},
     {"prompt_tokens": -1, "completion_tokens": 2}, {"prompt_tokens": "5", "completion_tokens": 2}],
)  # fmt: skip
def test_an_odd_usage_is_unknown_and_costs_no_answer(usage):
    body = json.dumps({"choices": [{"message": {"content": "1"}}], "usage": usage}).encode()
    found = read_completion(body, 1, "m")
    assert found["usage"] == {}
    assert found["choices"][0]["text"] == "1"


def test_an_answer_without_a_usage_is_stored_once_at_its_highest_price(outputs, command):
    with OddServer(change=set_usage({"prompt_tokens": None})) as server:
        code, out, err = command(COMMAND, *arguments(server.url, *TWO))
        assert code == 0, out + err
        assert set(server.came.values()) == {1}
    sent = {(e["key"], e["attempt"]): e["usd"] for e in events(outputs, "sent")}
    assert all(e["usd"] == sent[e["key"], e["attempt"]] for e in events(outputs, "answer"))


def test_a_lone_surrogate_is_stored_and_ends_nothing(outputs, command):
    def change(completion):
        completion["model"] = "model\ud800"
        for choice in completion["choices"]:
            choice["message"]["content"] = "odd \udfff\n" + choice["message"]["content"]

    with OddServer(change=change) as server:
        for _ in range(2):
            code, out, err = command(COMMAND, *arguments(server.url, *TWO))
            assert code == 0, out + err
        assert set(server.came.values()) == {1}
    assert "odd \ufffd" in events(outputs, "answer")[0]["choices"][0]["text"]
    assert result(outputs)["judge"]["name"] == "model\ufffd"


@pytest.mark.parametrize("key", ["1", "null", "e", "EMPTY", '"', "answer", "\\"])
def test_a_short_key_is_no_secret_and_loses_no_answer(outputs, command, monkeypatch, key):
    monkeypatch.setenv("TEST_JUDGE_KEY", key)
    with JudgeServer() as server:
        code, out, err = command(COMMAND, *arguments(server.url, *TWO))
        assert code == 0, out + err
        assert set(server.came.values()) == {1}
        assert server.headers[0]["authorization"] == f"Bearer {key}"
    assert len(events(outputs, "answer")) == len(server.paid)


@pytest.mark.parametrize("key", ["schlüssel-0123456789", "sk-0123 456789", "sk-0123\n456789"])
def test_what_cannot_be_a_key_is_refused_before_anything_is_sent(outputs, command, monkeypatch, key):
    monkeypatch.setenv("TEST_JUDGE_KEY", key)
    with JudgeServer() as server:
        code, _, err = command(COMMAND, *arguments(server.url, *TWO))
        assert code == 2
        assert server.requests == []
    assert "TEST_JUDGE_KEY does not hold a key" in err
    assert key not in err
    with pytest.raises(TraceBenchError):
        api_key("TEST_JUDGE_KEY", None)


def test_a_long_key_of_any_signs_is_redacted_in_values_only(tmp_path):
    key = 'x"answer"\\1'
    store = AnswerStore(tmp_path / "answers.jsonl", redactor(key))
    texts = [f"<{key}>", json.dumps({"key": key}), f"{key}{key}"]
    choices = [{"text": text, "finish_reason": "stop", "refusal": None} for text in texts]
    store.write(
        {
            "event": "answer",
            "key": "q",
            "attempt": 0,
            "usd": 0.0,
            "model": key,
            "usage": {},
            "choices": choices,
        }
    )
    (found,) = AnswerStore(tmp_path / "answers.jsonl").answers["q"]
    assert found["model"] == "[key]"
    assert [c["text"] for c in found["choices"]] == ["<[key]>", '{"key": "[key]"}', "[key][key]"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (set_text("cut of\x1b[31m", "length"), "raise judge.max_output_tokens, now 2048"),
        (set_text("", reasoning_content="I think that"), "reasoning_content"),
        (set_text(None, "length", reasoning="hm"), "it was still in reasoning_content"),
        (set_text("Both are nice, 5/5."), "An answer must end with"),
        (set_text(None, refusal="I can't."), "use another judge.model"),
    ],
)
def test_no_readable_answer_is_no_success(outputs, command, change, says):
    with OddServer(change=change) as server:
        code, out, _ = command(COMMAND, *arguments(server.url, *TWO))
    assert code == 1
    assert "No answer could be read. One of them, which ended with finish_reason" in out
    assert says in out
    assert "\x1b" not in out
    assert KEY not in out


def test_raising_the_limit_asks_again_what_was_cut_off_and_nothing_else(outputs, command):
    cut = set_text("so far", "length")
    with OddServer(change=cut) as server:
        assert command(COMMAND, *arguments(server.url, *TWO))[0] == 1
        asked = len(server.requests)
        assert command(COMMAND, *arguments(server.url, *TWO))[0] == 1
        assert len(server.requests) == asked
        server.change = lambda completion: None
        assert command(COMMAND, *arguments(server.url, *TWO, "judge.max_output_tokens=4096"))[0] == 0
        assert len(server.requests) == asked + len(server.came)
    assert result(outputs)["statistics"]["valid"] == result(outputs)["statistics"]["choices"]


def test_a_choice_cut_off_at_a_higher_limit_is_final():
    cut = {"choices": [{"text": "x", "finish_reason": "length"}], "max_output_tokens": 100}
    assert readings([cut, cut], 1, 1, 100) == ([("truncated", None)], 0)
    assert readings([cut, cut], 1, 1, 50)[1] == 0
    assert readings([cut, cut], 1, 1, 200) == ([], 1)


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (
            200,
            b'{"error": {"message": "model not loaded", "code": 400}}',
            "model not loaded; judge.base_url usually",
        ),
        (
            200,
            b'{"object": "error", "message": "no such route"}',
            "no such route; judge.base_url usually ends in /v1",
        ),
        (200, b"<html>\x1b[2JOpen WebUI</html>", "Open WebUI</html>; judge.base_url usually ends in /v1"),
        (200, b'{"detail": "Not Found"}', "but: Not Found; judge.base_url usually ends in /v1"),
        (
            404,
            b'{"detail": "Not Found"}',
            "(HTTP 404): Not Found; judge.base_url usually ends in /v1, as in http://",
        ),
        (404, b"404 page not found", "404 page not found; judge.base_url usually ends in /v1"),
    ],
)
def test_what_is_no_judge_is_told_at_once(outputs, command, status, body, says):
    with OddServer(status, body) as server:
        url = server.url.removesuffix("/v1")
        code, out, _ = command(COMMAND, *arguments(url, *TWO, "judge.concurrency=1"))
        assert code == 1
        assert len(server.requests) == 1
    assert says in out
    assert "\x1b" not in out


def test_a_missing_model_is_told_without_the_hint_at_v1(outputs, command):
    body = json.dumps({"error": {"message": f"The model gpt-9 does not exist ({KEY})."}}).encode()
    with OddServer(404, body) as server:
        _, out, _ = command(COMMAND, *arguments(server.url, *TWO))
    assert "The model gpt-9 does not exist ([key]).; check judge.base_url and judge.model" in out
    assert "usually ends" not in out


@pytest.mark.parametrize(
    "message", ["n must be 1", "Only n = 1 is supported.", "Unknown parameter: 'n'", "best_of > 1"]
)
def test_a_server_of_one_choice_names_the_setting(outputs, command, message):
    with OddServer(400, json.dumps({"error": {"message": message}}).encode()) as server:
        _, out, _ = command(COMMAND, *arguments(server.url, *TWO, "judge.choices=3"))
    assert f"{message.rstrip('.')}" in out
    assert "set judge.choices=1" in out


def test_an_old_server_names_the_setting_of_the_limit(outputs, command):
    with OddServer(400, b'{"error": {"message": "Unrecognized key max_completion_tokens"}}') as server:
        _, out, _ = command(COMMAND, *arguments(server.url, *TWO))
    assert "judge.max_output_tokens_field=max_tokens" in out


@pytest.mark.parametrize("code", ["502", '"429"'])
def test_an_error_that_passes_is_tried_again(outputs, command, code):
    body = b'{"error": {"message": "upstream is busy", "code": %s}}' % code.encode()
    with OddServer(200, body) as server:
        _, out, _ = command(COMMAND, *arguments(server.url, *TWO, "judge.retries=1", "judge.concurrency=1"))
        assert len(server.requests) > 1
    assert "HTTP 200 with an error: upstream is busy" in out


def test_a_full_disk_ends_the_session_and_leaves_no_half_line(outputs, command, monkeypatch):
    real = os.fsync
    answers = []

    def full(descriptor):
        name = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        if name.endswith("answers.jsonl"):
            answers.append(name)
            if len(answers) > 3:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    with JudgeServer() as server:
        overrides = arguments(server.url, *TWO, "judge.concurrency=1")
        with monkeypatch.context() as patch:
            patch.setattr("evaluation.gpteval3d.server.journal.os.fsync", full)
            code, out, err = command(COMMAND, *overrides)
        assert code == 1
        assert "answers.jsonl cannot be written (No space left on device)" in out + err
        assert len(events(outputs, "answer")) == 3
        assert command(COMMAND, *overrides)[0] == 0
        assert sorted(server.came.values())[-2:] == [
            1,
            2,
        ]  # only the answer that found no room is asked for again


@pytest.mark.parametrize("name", ["elo.json", "toy-tiny/plan.json"])
def test_damaged_files_of_a_judge_are_told_with_what_helps(outputs, command, name):
    with JudgeServer() as server:
        assert command(COMMAND, *arguments(server.url, *TWO))[0] == 0
        asked = len(server.requests)
        path = only(outputs, f"gpteval3d/*/{name}")
        whole = path.read_text()
        odd = '{"schema_version": 1, "judge": 5, "comparisons": [{"a": 1}]}'
        for text in ("[1]", odd, "[" * 9999):
            path.write_text(text)
            code, _, err = command(COMMAND, *arguments(server.url, *TWO))
            assert code == 2
            assert str(path) in err
            assert "remove it" in err
            assert "force=true" not in err
        path.unlink()
        assert command(COMMAND, *arguments(server.url, *TWO))[0] == 0  # it helps, and nothing is paid again
        assert path.read_text() == whole
        assert len(server.requests) == asked


@pytest.mark.parametrize(
    "line",
    [
        b'{"event": "answer", "key": "k", "attempt": 0}',
        b'{"event": "answer", "key": "k", "attempt": 0, "usd": null, "model": null, "choices": []}',
        b'{"event": "answer", "key": "k", "attempt": 0, "usd": 1, "model": [], "choices": [7]}',
        b'{"event": "sent", "key": "k", "attempt": "0", "usd": 1}',
        b'{"event": "sent", "key": "k", "attempt": 0, "usd": NaN}',
        b'{"event": "paid", "key": "k", "attempt": 0}',
        b"[" * 20000,
        b"null",
        b"\xff\xfe",
    ],
)
def test_a_damaged_line_is_skipped_and_told(tmp_path, caplog, line):
    path = tmp_path / "answers.jsonl"
    good = AnswerStore(path)
    good.write(
        {"event": "answer", "key": "q", "attempt": 0, "usd": 0.5, "model": "m", "usage": {}, "choices": []}
    )
    path.write_bytes(line + b"\n" + path.read_bytes() + line)
    store = AnswerStore(path)
    assert list(store.answers) == ["q"]
    assert store.spent == 0.5
    assert "line 1 and 1 more are unfinished or damaged" in caplog.text


def test_an_answer_counts_once_however_often_its_line_is_there(tmp_path):
    path = tmp_path / "answers.jsonl"
    AnswerStore(path).write(
        {
            "event": "answer",
            "key": "q",
            "attempt": 0,
            "usd": 0.5,
            "model": "m",
            "usage": {},
            "choices": [{"text": "1"}],
        }
    )
    path.write_bytes(2 * path.read_bytes())
    store = AnswerStore(path)
    assert len(store.answers["q"]) == 1
    assert store.spent == 0.5
    assert store.attempts["q"] == 1
