"""benchmarks.gpu to its end on the CPU, and the page made from its JSON."""

from __future__ import annotations

import importlib.util
import json
import threading
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, gpu_checks
from trace_bench.system.peak import mfu, peak_tflop_per_s

ROOT = Path(__file__).parents[2]


@pytest.fixture
def gpu_page():
    spec = importlib.util.spec_from_file_location("gpu_page", ROOT / "scripts" / "gpu_page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_a_dry_run_reaches_its_end(tmp_path, gpu_page):
    path = tmp_path / "gpu.json"
    assert gpu.main(["--dry", "--out", str(path)]) == 0
    report = json.loads(path.read_text())
    assert all(check["ok"] for check in report["checks"]), report["checks"]
    assert {check["name"] for check in report["checks"]} >= {"NeRF", "resuming", "step of trace"}
    timings = {(t["method"], t["mode"], t["lanes"]): t for t in report["timings"]}
    assert set(timings) == {
        (name, mode, lanes)
        for name in gpu.TIMED
        for mode in ("eager", "compiled")
        for lanes in (gpu.LANES[:2] if mode == "compiled" else (1,))
    }
    for (name, _, lanes), timing in timings.items():
        assert timing["skipped"] == ""
        assert timing["ms_per_step"] > 0
        assert (timing["kernels"] is None) == (lanes > 1)
        assert timing["tflop_per_step"] == timings[name, "eager", 1]["tflop_per_step"]
    assert gpu_page.main([str(path)]) == 2  # a dry run makes no page


def test_only_a_block_that_takes_too_long_ends_the_process(tmp_path, monkeypatch):
    ended = threading.Event()
    monkeypatch.setattr(gpu.os, "_exit", lambda code: ended.set())
    with gpu.at_most(0.2, tmp_path):
        pass
    assert not ended.wait(0.5)
    with gpu.at_most(0.01, tmp_path):
        assert ended.wait(10.0)


def test_the_page_is_made_from_the_json(tmp_path, gpu_page):
    page, path = tmp_path / "performance.md", tmp_path / "gpu.json"
    page.write_text(f"before\n{gpu_page.BEGIN}\nold\n{gpu_page.END}\nafter\n")
    timing = gpu.Timing("sds", "compiled", 1, 61.2, 31.5, 700, 3.9, 123.0, 0.394, 7.1)
    skipped = gpu.Timing("sds", "compiled", 8, skipped="not reached in time")
    report = {
        "dry": False,
        "environment": {"gpu": "NVIDIA X", "cpu": "", "commit": "abc", "packages": {"torch": "2.9"}},
        "checks": [vars(gpu_checks.Check("NeRF", True, 1.5e-4, "said"))],
        "timings": [vars(timing), vars(skipped)],
    }
    path.write_text(json.dumps(report))
    assert gpu_page.main([str(path), "--page", str(page)]) == 0
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| sds | compiled | 1 | 31.5 | 61.2 | 700 | 123.0 | 39 % | 7.1 |" in text
    assert "| NeRF | passed | 1.5e-04 | said |" in text
    assert "- sds, compiled, 8 lanes: not reached in time" in text


def test_a_machine_without_a_gpu_is_told_so(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 2
    assert "no GPU here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA H100 80GB HBM3", 989.0),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA L4", 121.0),
        ("NVIDIA L40S", 362.0),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("Something else", None),
    ],
)
def test_peaks_of_gpus(name, peak):
    assert peak_tflop_per_s(name) == peak


def test_mfu_is_a_share_of_the_peak_where_it_is_known():
    assert mfu(156.0, "NVIDIA A100-SXM4-40GB", "bfloat16") == pytest.approx(0.5)
    assert mfu(156.0, "NVIDIA A100-SXM4-40GB", "float32") is None
    assert mfu(156.0, None, "bfloat16") is None
