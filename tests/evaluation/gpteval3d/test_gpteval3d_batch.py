"""The batch interface behind a real HTTP server: kills, expiry, faults. Nothing is asked or paid twice."""

from __future__ import annotations

import copy
import json
import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest
from batch_server import BatchServer
from gpteval3d_runs import KEY, arguments, events, make_runs, only, result
from judge_server import JudgeServer, error_body
from omegaconf import OmegaConf

from evaluation.command import exit_code
from evaluation.gpteval3d.__main__ import play
from evaluation.gpteval3d.server import batch_shards
from evaluation.gpteval3d.server.batches import Ledger
from trace_bench.settings.composing import compose_config, parse_overrides

# one kind of question: 3 pairs on one prompt, in both orders
ONE_KIND = "ensembles=[{instruction:null,views:1,rgb:true,normal:false,criteria:[0],comparisons:3}]"
QUESTIONS = 6


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    monkeypatch.setenv("TEST_JUDGE_KEY", KEY)
    return make_runs(tmp_path / "outputs", prompts=["a red cube"])


@pytest.fixture
def server():
    with BatchServer() as running:
        yield running


@pytest.fixture(scope="module")
def composed():
    """The command's config, composed once: that takes longer than all the rest."""
    config = compose_config(["judge=openai"], root="gpteval3d")
    OmegaConf.set_struct(config, False)
    del config["hydra"]
    return config


@pytest.fixture
def ask(composed, outputs, server, capsys):
    """`ask("judge.batch=false")` -> (exit code, stdout, stderr)"""

    def call(*overrides: str, url: str = server.url, root: Path = outputs) -> tuple[int, str, str]:
        more = ["judge.batch=true", "judge.batch_wait_s=0", ONE_KIND, f"output_root={root}", *overrides]
        config = copy.deepcopy(composed)
        for override in parse_overrides(arguments(url, *more)):
            if override.key_or_group == "judge":
                continue  # composed
            OmegaConf.update(config, override.key_or_group, override.value(), merge=False)
        code = exit_code(lambda it: play(it, OmegaConf.to_container(it, resolve=True)), config)
        return code, *capsys.readouterr()

    return call


def batch_events(outputs, kind: str | None = None) -> list[dict]:
    lines = only(outputs, "gpteval3d/*/batches.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if kind in (None, event["event"])]


def in_order(bodies: list[dict]) -> list[str]:
    return sorted(json.dumps(body, sort_keys=True) for body in bodies)


def is_paid_once(server) -> bool:
    return len(server.paid) == QUESTIONS and set(server.paid.values()) == {1}


def test_send_end_collect(ask, outputs, server):
    server.at_once = None
    code, out, _ = ask()
    assert code == 1
    assert f"{QUESTIONS} questions are in 1 open batch at the server" in out
    assert "The same command with judge.batch=true collects the answers" in out
    assert ask()[0] == 1  # still open: nothing is sent again
    assert len(server.batches) == 1
    server.finish_all()
    code, out, _ = ask()
    assert code == 0, out
    assert "Open:" not in out
    assert is_paid_once(server)
    answers = events(outputs, "answer")
    assert {answer["via"] for answer in answers} == {"batch"}
    assert {sent["batch"] for sent in events(outputs, "sent")} == {"batch-0"}
    # half the price of 1,000 and 100 tokens at 2.50 and 10.00 USD per million
    assert result(outputs)["judge"]["spent"]["usd"] == pytest.approx(QUESTIONS * 0.00175)
    assert [event["event"] for event in batch_events(outputs)] == [
        "planned", "uploaded", "created", "collected",
    ]  # fmt: skip
    assert not server.files.keys() & {"file-0"}  # the input is deleted
    assert not list(outputs.glob("gpteval3d/*/*.upload"))


def test_one_command_waits_and_collects(ask, server):
    assert ask("judge.batch_wait_s=60")[0] == 0
    assert is_paid_once(server)
    assert not server.chats


def test_batch_and_synchronous_answers_are_of_one_judge(ask, outputs, server):
    assert ask("judge.batch_wait_s=60")[0] == 0
    by_batch, asked = result(outputs), dict(server.calls)
    assert ask("judge.batch=false")[0] == 0
    assert result(outputs) == by_batch
    assert server.calls == asked  # everything is on disk: nobody is asked
    assert ask()[0] == 0
    assert server.calls == asked


def test_the_same_request_as_without_batches(ask, server, tmp_path):
    more = ["judge.seed=5", "judge.extra_body={top_k:1}"]
    ask(*more)
    other = make_runs(tmp_path / "other", prompts=["a red cube"])
    with JudgeServer() as direct:
        ask(*more, "judge.batch=false", url=direct.url, root=other)
        assert in_order([line["body"] for line in server.all_lines]) == in_order(direct.requests)


STEPS = ("planned", "uploaded", "created", "sent", "answer", "collected")


@pytest.mark.parametrize(
    ("step", "before"),
    [("uploaded", True), ("created", True), ("collected", True), *((step, False) for step in STEPS)],
)
def test_a_kill_at_any_step_loses_and_repeats_nothing(ask, server, monkeypatch, outputs, step, before):
    """`before`: what the event tells has happened at the server, but the event is not written."""
    from evaluation.gpteval3d.server.store import AnswerStore

    with monkeypatch.context() as patch:
        for kind in (Ledger, AnswerStore):
            real = kind.write

            def write(self, event, real=real):
                if event["event"] == step and before:
                    raise Killed
                real(self, event)
                if event["event"] == step:
                    raise Killed

            patch.setattr(kind, "write", write)
        with pytest.raises(Killed):
            ask("judge.batch_wait_s=60")
    assert ask("judge.batch_wait_s=60")[0] == 0
    assert is_paid_once(server)
    assert len(server.batches) == 1
    assert len(events(outputs, "answer")) == QUESTIONS
    assert result(outputs)["judge"]["spent"]["usd"] == pytest.approx(QUESTIONS * 0.00175)
    assert [sent["batch"] for sent in events(outputs, "sent")] == ["batch-0"] * QUESTIONS
    assert len(batch_events(outputs, "collected")) == 1
    assert set(server.files) == {"file-output_file_id-batch-0"}  # no input file is left


def test_created_but_never_heard_of(ask, server):
    """The answer to create is lost: the batch is adopted by its metadata."""
    server.slow_creates = 1
    assert ask("judge.batch_wait_s=60", "judge.timeout_s=0.7")[0] == 0
    assert len(server.batches) == 1
    assert is_paid_once(server)


def test_not_created_after_all(ask, server):
    """An error that may hide a batch: it is looked for, not found, and created."""
    server.failed_creates = 1
    assert ask("judge.batch_wait_s=60")[0] == 0
    assert server.calls["GET /batches"] > 1
    assert len(server.batches) == 1


def test_ctrl_c_ends_the_waiting_and_the_batch_stays_open(ask, server):
    server.at_once = None
    timer = threading.Timer(0.1, lambda: None)

    def interrupt():
        end = time.monotonic() + 30.0
        while not server.batches and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGINT)

    timer.function = interrupt
    timer.start()
    code, out, _ = ask("judge.batch_wait_s=300")
    timer.join()
    assert code == 128 + signal.SIGINT
    assert "questions are in 1 open batch" in out
    server.finish_all()
    assert ask()[0] == 0
    assert is_paid_once(server)


def test_answers_that_the_server_has_deleted(ask, outputs, server):
    """They were paid, so their highest price counts, and they are asked again."""
    server.at_once = None
    ask("judge.max_output_tokens=100")
    server.finish_all()
    server.files.clear()
    server.at_once = "completed"
    assert ask("judge.max_output_tokens=100", "judge.batch_wait_s=60")[0] == 0
    lost = events(outputs, "failed")
    assert {(e["reason"], e["perhaps_paid"]) for e in lost} == {("the file of answers is gone", True)}
    assert result(outputs)["judge"]["spent"]["usd"] > 1.5 * QUESTIONS * 0.00175


def test_an_answer_has_the_limit_of_the_command_that_asked(ask, outputs, server):
    """Another command may collect it: whether it was cut off by too low a limit depends on the first."""
    server.at_once = None
    ask("judge.max_output_tokens=100")
    server.finish_all()
    assert ask("judge.max_output_tokens=200")[0] == 0
    assert {event["max_output_tokens"] for event in events(outputs, "answer")} == {100}


def test_a_file_unknown_for_a_moment(ask, server):
    server.unknown_files = 1
    assert ask("judge.batch_wait_s=60")[0] == 0
    assert len(server.batches) == 1


def test_an_expired_batch_keeps_what_is_answered(ask, outputs, server):
    server.at_once, server.keep = None, 0.5
    ask()
    server.finish_all("expired")
    server.at_once = "completed"
    code, out, _ = ask("judge.batch_wait_s=60")
    assert code == 0, out
    assert is_paid_once(server)
    assert [len(server.lines(batch)) for batch in server.batches] == [6, 3]
    assert {event["reason"] for event in events(outputs, "failed")} == {"batch_expired"}
    assert not any(event["perhaps_paid"] for event in events(outputs, "failed"))
    assert result(outputs)["judge"]["spent"]["usd"] == pytest.approx(QUESTIONS * 0.00175)


def test_completed_without_an_output_file(ask, outputs, server):
    server.at_once = "failing"
    assert ask("judge.batch_wait_s=60")[0] == 1
    assert len(server.batches) == 3  # not for ever
    assert {event["perhaps_paid"] for event in events(outputs, "failed")} == {True}
    assert result(outputs)["judge"]["spent"]["usd"] > 0  # reserved, in case it was billed
    server.at_once = "completed"
    assert ask("judge.batch_wait_s=60")[0] == 0


def test_shuffled_repeated_and_strange_lines(ask, outputs, server):
    def change(lines):
        stranger = lines[0] | {"custom_id": "0" * 40 + "-0"}
        changed = [*lines, *lines, stranger]
        random.Random(1).shuffle(changed)
        return changed

    server.change = change
    code, _, err = ask("judge.batch_wait_s=60")
    assert code == 0
    assert "lines of no question of ours: 1" in err
    answers = events(outputs, "answer")
    assert len(answers) == QUESTIONS
    bodies = {line["custom_id"]: line["body"] for line in server.all_lines}
    for answer in answers:  # matched by id, not by order
        assert answer["choices"][0]["text"] == server.answer(bodies[f"{answer['key'][:40]}-0"])
    assert result(outputs)["judge"]["spent"]["usd"] == pytest.approx(QUESTIONS * 0.00175)


def test_a_batch_too_large_for_the_queue_is_halved(ask, outputs, server):
    server.queue = 2
    code, _, err = ask("judge.batch_wait_s=60")
    assert code == 0
    assert "too large for the server's queue" in err
    assert [len(server.lines(batch)) for batch in server.batches] == [6, 3, 1, 1, 1, 1, 1, 1]
    assert is_paid_once(server)
    assert result(outputs)["judge"]["spent"]["usd"] == pytest.approx(QUESTIONS * 0.00175)


def test_shards_by_bytes_and_by_tokens(ask, server, monkeypatch):
    monkeypatch.setattr(batch_shards, "SHARD_BYTES", 6000)
    assert ask("judge.batch_wait_s=60")[0] == 0
    assert len(server.batches) > 1
    assert is_paid_once(server)


def test_no_more_tokens_wait_than_the_account_allows(ask, server):
    server.at_once = None
    ask("judge.batch_tokens=1500")
    (first,) = server.batches
    assert 1 <= len(server.lines(first)) < QUESTIONS
    server.at_once = "completed"
    server.finish_all()
    assert ask("judge.batch_wait_s=60", "judge.batch_tokens=1500")[0] == 0
    assert is_paid_once(server)


def test_the_budget_is_reserved_at_the_batch_price(ask, outputs, server):
    server.at_once = None
    ask("judge.max_output_tokens=100", "budget_usd=0.006")  # at most 0.0012 or so each
    asked = sum(len(server.lines(batch)) for batch in server.batches)
    reserved = sum(event["usd"] for event in events(outputs, "sent"))
    assert 0 < asked < QUESTIONS
    assert reserved <= 0.006
    code, out, _ = ask("judge.max_output_tokens=100", f"budget_usd={reserved}")
    assert code == 1
    assert "does not cover the next request" in out
    assert sum(len(server.lines(batch)) for batch in server.batches) == asked


def test_a_synchronous_run_leaves_an_open_batch_alone(ask, server):
    server.at_once = None
    ask()
    code, out, _ = ask("judge.batch=false")
    assert code == 1
    assert not server.chats
    assert "questions are in 1 open batch" in out
    code, out, _ = ask("dry_run=true")
    assert f"{QUESTIONS} in open batches" in out
    server.finish_all()
    assert ask()[0] == 0
    assert is_paid_once(server)


def test_a_synchronous_run_leaves_a_batch_alone_that_was_perhaps_created(ask, server, monkeypatch):
    with monkeypatch.context() as patch:
        real = Ledger.write

        def write(self, event):
            if event["event"] == "created":
                raise Killed
            real(self, event)

        patch.setattr(Ledger, "write", write)
        with pytest.raises(Killed):
            ask()
    assert ask("judge.batch=false")[0] == 1
    assert not server.chats


def test_an_answer_that_cannot_be_read_is_asked_once_more(ask, outputs, server):
    server.answer = lambda body: "I had rather not."
    assert ask("judge.batch_wait_s=60")[0] == 1
    assert set(server.paid.values()) == {2}
    assert {answer["attempt"] for answer in events(outputs, "answer")} == {0, 1}


def test_another_model_stops_the_run_and_its_answers_are_kept(ask, outputs, server):
    assert ask("judge.batch_wait_s=60", "ensembles.0.comparisons=1")[0] == 0
    server.model = "judge-2026-06-06"
    code, out, _ = ask("judge.batch_wait_s=60")
    assert code == 1
    assert "judges are never mixed" in out
    assert len(events(outputs, "answer")) == QUESTIONS
    assert len(batch_events(outputs, "collected")) == 2


def test_a_server_without_batches(ask, server):
    server._serve = lambda *_: (404, error_body("Not Found", "not_found"), False)
    code, out, _ = ask("judge.batch_wait_s=60")
    assert code == 1
    assert "a server without a batch interface needs judge.batch=false" in out
    assert "Open:" not in out  # nothing was uploaded


def test_a_server_that_sends_web_pages(ask, server):
    server._serve = lambda *_: (200, b"<html>hello</html>", False)
    code, out, err = ask("judge.batch_wait_s=60")
    assert code == 1
    assert "the server does not speak the batch interface" in out
    assert "Traceback" not in err


def test_the_key_is_in_no_file(ask, server, tmp_path):
    server.answer = lambda body: f"Your key is {KEY}.\n2"
    ask("judge.batch_wait_s=60")
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path
