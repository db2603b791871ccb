"""A run's output: rows for programs always, the display's line, and occasional lines of the log."""

from __future__ import annotations

import json
import logging

import pytest

from trace_bench.run_folder import live
from trace_bench.run_folder.live import read_live
from trace_bench.runs import reporter
from trace_bench.runs.reporter import METRICS, Reporter, keep_rows


def tell(folder, steps=10, start=0, seconds=0.0, every=2):
    with Reporter(folder, "sds: a duck", steps, start, seconds) as reporter:
        for k in range(start, steps):
            reporter.step(k, {"grad_rms": 1.0 / (k + 1)} if (k + 1) % every == 0 else {})


def rows(folder):
    return [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]


def test_rows_at_logging_intervals(tmp_path):
    tell(tmp_path)
    assert [row["step"] for row in rows(tmp_path)] == [1, 3, 5, 7, 9]
    assert rows(tmp_path)[0]["grad_rms"] == 0.5
    assert rows(tmp_path)[-1]["seconds"] >= rows(tmp_path)[0]["seconds"] >= 0


def test_every_step_is_shown_to_who_watches(tmp_path, monkeypatch):
    monkeypatch.setattr(live, "_EVERY_S", -1.0)
    with Reporter(tmp_path, "sds: a duck", 10) as reporter:
        for k in range(6):
            reporter.step(k, {"grad_rms": 0.25} if k == 2 else {})
    seen = read_live(tmp_path)
    assert (seen.phase, seen.done, seen.total, seen.value_name, seen.value) == (
        "distill", 6, 10, "grad_rms", 0.25
    )  # fmt: skip
    assert seen.rate > 0


def test_there_are_a_few_lines(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(reporter, "SECONDS_PER_LINE", (-1.0, 30.0))
    tell(tmp_path, steps=100, every=1)
    assert [r.getMessage().split(",")[0] for r in caplog.records] == [
        f"sds: a duck: step {k}/100" for k in (20, 40, 60, 80, 100)
    ]
    assert "steps/s" in caplog.text
    assert "s left" in caplog.text


def test_a_quick_run_says_only_that_it_is_through(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    tell(tmp_path, steps=100, every=1)
    assert len(caplog.records) == 1


def test_a_slow_run_is_never_silent_for_long(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(reporter, "SECONDS_PER_LINE", (0.0, -1.0))
    tell(tmp_path, steps=100, every=10)
    assert len(caplog.records) == 10


@pytest.mark.parametrize("torn", ["", '{"step": 9, "gr', "null\n", '{"step": "x"}\n'])
def test_rows_of_steps_that_are_done_again_go(tmp_path, torn):
    tell(tmp_path)
    with (tmp_path / METRICS).open("a") as file:
        file.write(torn)
    tell(tmp_path, start=4, seconds=100.0)
    assert [row["step"] for row in rows(tmp_path)] == [1, 3, 5, 7, 9]
    assert rows(tmp_path)[1]["seconds"] < 50 < rows(tmp_path)[2]["seconds"]


def test_no_rows_to_drop(tmp_path):
    keep_rows(tmp_path / METRICS, 5)
    assert not (tmp_path / METRICS).exists()


def test_a_value_that_json_has_no_word_for(tmp_path):
    with Reporter(tmp_path, "x", 1) as reporter:
        reporter.step(0, {"lora_loss": float("nan"), "grad_rms": 1.0})
    assert rows(tmp_path)[0]["lora_loss"] is None
