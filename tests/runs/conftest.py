"""Commands in this process."""

from __future__ import annotations

import sys

import pytest
from quick_runs import CONF, QUICK

from trace_bench.sweeps.sweep import main


@pytest.fixture(autouse=True)
def _leave_the_process_alone(monkeypatch):
    """Hydra takes over the command line."""
    monkeypatch.setattr(sys, "argv", ["trace_bench"])


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def command(out):
    """Run the command in this process: command("-m", "method=sds,vsd") -> exit code."""

    def run_it(*argv):
        return main(["--config-dir", CONF, *QUICK, f"output_root={out}", *argv])

    return run_it
