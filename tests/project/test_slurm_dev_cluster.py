"""scripts/slurm_dev_cluster leaves no process behind; these tests need no Slurm."""

from __future__ import annotations

import os
import subprocess
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "slurm_dev_cluster"


@pytest.fixture(scope="module")
def script():
    loader = SourceFileLoader("slurm_dev_cluster", str(SCRIPT))
    module = module_from_spec(spec_from_loader("slurm_dev_cluster", loader))
    loader.exec_module(module)
    return module


def test_steps_and_jobs_of_this_cluster_end_and_no_others(script, tmp_path):
    def start(name, folder, **more):
        environment = {**os.environ, "SLURM_CONF": f"{folder}/slurm.conf", **more}
        return subprocess.Popen([name, "60"], executable="/bin/sleep", env=environment)

    step = start("slurmstepd: [1.batch]", tmp_path)
    job = start("python", tmp_path, SLURM_JOB_ID="1")
    shell = start("bash", tmp_path)  # a user's, who has eval'd the cluster's environment
    other = start("slurmstepd: [1.batch]", tmp_path / "other")
    try:
        assert sorted(script.left_over(tmp_path)) == sorted([step.pid, job.pid])
        for process in (step, job):
            script.end(process.pid, patience_s=0.0)
            assert process.wait(5) != 0
        assert shell.poll() is other.poll() is None
    finally:
        for process in (step, job, shell, other):
            process.kill()
            process.wait()
