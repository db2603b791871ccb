"""The cluster of these tests, and helpers to wait for it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
MAX_ARRAY_SIZE = 20


@dataclass
class Cluster:
    """A running cluster, and commands that use it."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        path = os.pathsep.join([str(HERE), str(ROOT / "tests"), str(ROOT)])
        self.environment = os.environ | {
            "SLURM_CONF": str(self.folder / "slurm.conf"),
            "PYTHONPATH": path,
            "OMP_NUM_THREADS": "1",
        }

    def ask(self, *command: str) -> str:
        """The output of one of Slurm's commands."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=True, timeout=60
        )
        return done.stdout

    def start(self, module: str, *arguments: str, cwd: Path) -> subprocess.Popen[str]:
        """`python -m module arguments`, its output in a pipe."""
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=cwd, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def run(self, module: str, *arguments: str, cwd: Path, timeout: float = 900) -> tuple[int, str]:
        """Exit code and output of `python -m module arguments`."""
        process = self.start(module, *arguments, cwd=cwd)
        try:
            said, _ = process.communicate(timeout=timeout)
        finally:
            process.kill()
        return process.returncode, said

    def state(self, job_id: str) -> str:
        """Slurm's state of a job."""
        words = self.ask("scontrol", "show", "job", "--oneliner", job_id).split()
        return dict(word.partition("=")[::2] for word in words)["JobState"]


def wait_until(what, condition, seconds: float = 600.0) -> None:
    """Poll until the condition holds, or fail naming it."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.3)
