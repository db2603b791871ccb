"""The command plans without torch; what needs it happens in processes from the fork server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from trace_bench.runs import threads
from trace_bench.sweeps import planning, warm
from trace_bench.sweeps.planning import make_plan
from trace_bench.sweeps.sweep import main
from trace_bench.system.errors import TraceBenchError

ROOT = Path(__file__).resolve().parents[2]
SWEEP = ["-m", "method=sds,vsd,trace", "representation=gaussians,image", "prompt=0,1"]
#: VmHWM, since the maximum of getrusage holds the memory of the process that forked.
_MEMORY = r"re.search(r'VmHWM:\s+(\d+)', open('/proc/self/status').read())[1]"
_PRINT = f"print(json.dumps([sorted(sys.modules), int({_MEMORY})]))"


def modules_after(code: str) -> tuple[set[str], float]:
    """What code imports in a process of its own, and its peak memory in MB."""
    done = subprocess.run(
        [sys.executable, "-c", f"import atexit, json, re, sys\natexit.register(lambda: {_PRINT})\n{code}"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    names, memory = json.loads(done.stdout.splitlines()[-1])
    return set(names), memory / 1024


def test_planning_and_its_checks_import_no_torch():
    names, memory = modules_after(
        "from trace_bench.sweeps.sweep import *\n"
        f"plan = make_plan({SWEEP[1:]!r}, True)\n"
        "check_jobs(run.job for run in plan)\n"
        "assert len(plan) == 12"
    )
    assert not names & {"torch", "numpy", "diffusers", "numba"}
    assert memory < 200


def test_help_imports_no_torch():
    names, _ = modules_after("from trace_bench.sweeps.sweep import main\nmain(['--help'])")
    assert not names & {"torch", "numpy"}


@pytest.mark.slow
def test_the_command_of_a_sweep_stays_light_until_its_workers_start(tmp_path):
    launcher = ["hydra/launcher=local", "hydra.launcher.n_jobs=2", f"output_root={tmp_path}"]
    names, memory = modules_after(
        "from trace_bench.sweeps import sweep\n"
        "started = []\n"
        "sweep._make = lambda *given: started.append(len(given[1])) or 0\n"
        f"sweep.main({[*SWEEP, *launcher]!r})\n"
        "assert started == [12]"
    )
    assert "torch" not in names
    assert memory < 200


def refuse(text):
    raise TraceBenchError(f"{text} is refused.")


def die():
    os._exit(3)


def accept():
    assert os.getpid() != int(os.environ["TRACE_BENCH_TEST_PARENT"])


@pytest.mark.slow
def test_a_check_in_a_process_from_the_fork_server(monkeypatch):
    monkeypatch.setenv("TRACE_BENCH_TEST_PARENT", str(os.getpid()))
    monkeypatch.setattr(warm, "sys", SimpleNamespace(modules={}))
    with warm.fork_server([], 1):
        warm.apart(accept)
        with pytest.raises(TraceBenchError, match=r"^This is refused\.$"):
            warm.apart(refuse, "This")
        with pytest.raises(TraceBenchError, match="ended with exit code 3"):
            warm.apart(die)
    with pytest.raises(TraceBenchError, match="Here is refused"):  # no server: in this process
        warm.apart(refuse, "Here")


@pytest.fixture
def composed(monkeypatch):
    """Counts the compositions of a plan."""
    made = []

    def compose(overrides, config_dir=None):
        made.append(tuple(overrides))
        return original(overrides, config_dir)

    original = planning.compose_run
    monkeypatch.setattr(planning, "compose_run", compose)
    return made


def test_seeds_and_prompts_share_a_composition(composed):
    plan = make_plan(["method=sds,vsd", "prompt=0-2", "seed=0,1,7"], multirun=True)
    assert len(composed) == 1 + 2  # the sweep's own, and one for each method
    for run in plan[::5]:
        chosen = [f"method={run.identity.method}", f"prompt={run.prompt.prompt_id}", f"seed={run.job.seed}"]
        assert make_plan(chosen, False)[0].folder == run.folder
    assert len(plan) == 18


def test_a_setting_that_depends_on_the_seed_is_composed_for_each(composed):
    plan = make_plan(["method=sds", "prompt=0", "steps=${seed}", "seed=3,4"], multirun=True)
    assert [run.job.steps for run in plan] == [3, 4]
    assert len(composed) == 1 + 2


def test_a_seed_that_is_none_is_refused_wherever_it_stands(capsys):
    for seeds in ("0,x", "x,0"):
        assert main(["-m", "method=sds", "prompt=0", f"seed={seeds}"]) == 2
        assert "seed must be an integer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("side", "device", "share", "environment", "expected"),
    [
        (16, "cpu", 8, None, 1),
        (64, "cpu", 8, None, 8),
        (64, "cpu", 2, None, 2),
        (64, "cpu", 8, "3", 3),
        (64, "cpu", 8, "many", 8),
        (16, "cuda", 8, None, 4),
        (64, "cuda", 2, None, 2),
    ],
)
def test_threads_by_prior_and_device(monkeypatch, side, device, share, environment, expected):
    monkeypatch.setattr(threads, "_share", [share])
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda _: set(range(16)))
    if environment is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", environment)
    prior = SimpleNamespace(device=SimpleNamespace(type=device), latent_shape=(4, side, side))
    before = threads.torch.get_num_threads()
    with threads.own_threads():
        assert threads.use_threads(prior) == expected == threads.torch.get_num_threads()
    assert threads.torch.get_num_threads() == before
