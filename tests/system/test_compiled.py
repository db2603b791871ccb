"""Compiled code in the cache: jobs that start together compile once."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from trace_bench.system import compiled

CPU = torch.device("cpu")


@pytest.fixture
def torch_cache(tmp_path, monkeypatch):
    """Stands for torch's own caches; `made` is what the process compiled."""
    monkeypatch.setenv("TRACE_BENCH_CACHE", str(tmp_path))
    state = {"made": b"graphs", "loaded": []}
    monkeypatch.setattr(torch.compiler, "save_cache_artifacts", lambda: (state["made"], None))
    monkeypatch.setattr(torch.compiler, "load_cache_artifacts", state["loaded"].append)
    return state


def test_jobs_that_start_together_compile_once(torch_cache):
    compilations = []

    def job():
        loaded = len(torch_cache["loaded"])
        with compiled.shared(["sd21", "sds"], CPU):
            if len(torch_cache["loaded"]) == loaded:
                compilations.append(1)
                time.sleep(0.05)

    threads = [threading.Thread(target=job) for _ in range(4)]
    for thread in threads:
        thread.start()
        time.sleep(0.01)
    for thread in threads:
        thread.join()
    assert len(compilations) == 1
    assert torch_cache["loaded"] == [b"graphs"] * 3


def test_other_parts_are_other_entries(torch_cache):
    for parts in (["sd21", "sds"], ["sd21", "vsd"], ["sd21", "sds"]):
        with compiled.shared(parts, CPU):
            pass
    assert torch_cache["loaded"] == [b"graphs"]


def test_what_fails_costs_time_alone(torch_cache, monkeypatch, tmp_path):
    def fail(*args):
        raise RuntimeError("of another version")

    monkeypatch.setattr(torch.compiler, "save_cache_artifacts", fail)
    with compiled.shared(["x"], CPU):
        pass
    monkeypatch.setattr(torch.compiler, "save_cache_artifacts", lambda: (b"graphs", None))
    with compiled.shared(["x"], CPU):
        pass
    monkeypatch.setattr(torch.compiler, "load_cache_artifacts", fail)
    with compiled.shared(["x"], CPU):
        pass
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setenv("TRACE_BENCH_CACHE", str(file))
    with compiled.shared(["x"], CPU):
        pass


def test_an_entry_that_torch_cannot_use_is_made_again(torch_cache, monkeypatch, tmp_path):
    with compiled.shared(["x"], CPU):
        pass

    def fail(data):
        raise RuntimeError("damaged")

    with monkeypatch.context() as broken:
        broken.setattr(torch.compiler, "load_cache_artifacts", fail)
        torch_cache["made"] = b"graphs, made again"
        with compiled.shared(["x"], CPU):
            pass
    with compiled.shared(["x"], CPU):
        pass
    assert torch_cache["loaded"] == [b"graphs, made again"]


def test_an_error_inside_keeps_nothing(torch_cache):
    with pytest.raises(ValueError, match="inside"), compiled.shared(["x"], CPU):
        raise ValueError("inside")
    with compiled.shared(["x"], CPU):
        pass
    assert torch_cache["loaded"] == []


def test_a_job_does_not_wait_for_ever(torch_cache):
    began = threading.Event()
    done = threading.Event()

    def holder():
        with compiled.shared(["x"], CPU):
            began.set()
            done.wait(5)

    thread = threading.Thread(target=holder)
    thread.start()
    began.wait(5)
    with compiled.shared(["x"], CPU, wait_s=0.05):
        pass
    done.set()
    thread.join()


def test_a_lane_does_not_wait_for_another_of_its_thread(torch_cache, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("waits for itself"))
    with compiled.shared(["x"], CPU), compiled.shared(["x"], CPU):
        pass
    with compiled.shared(["x"], CPU):
        pass
    assert torch_cache["loaded"] == [b"graphs"]
