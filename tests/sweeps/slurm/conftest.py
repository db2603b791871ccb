"""A real Slurm on this machine; if it cannot start, the tests are skipped with the reason."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from dev_cluster import MAX_ARRAY_SIZE, ROOT, Cluster

SCRIPT = ROOT / "scripts" / "slurm_dev_cluster"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Four nodes with a fake GPU each, and arrays of at most 20 jobs."""
    search = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    missing = [name for name in PROGRAMS if shutil.which(name, path=search) is None]
    if missing:
        pytest.skip(
            f"needs Slurm, but {', '.join(missing)} is not installed (apt-get install slurm-wlm munge)"
        )
    with tempfile.TemporaryDirectory(
        prefix="tb-slurm-", dir="/tmp"
    ) as above:  # a short path, for its sockets
        folder = Path(above) / "c"
        command = [sys.executable, str(SCRIPT), "up", "--dir", str(folder), "--kill-wait", "15"]
        up = subprocess.run(
            [*command, "--max-array-size", str(MAX_ARRAY_SIZE)], capture_output=True, text=True, timeout=120
        )
        if up.returncode:
            pytest.skip(f"Slurm does not come up here: {up.stderr.strip()[-1000:]}")
        try:
            yield Cluster(folder)
        finally:
            subprocess.run([sys.executable, str(SCRIPT), "down", "--dir", str(folder)], timeout=120)
