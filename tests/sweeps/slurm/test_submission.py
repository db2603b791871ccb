"""Submitted jobs and arrays, and the requeueing of jobs; no Slurm needed."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import pickle
import signal
from pathlib import Path

import pytest

from trace_bench.run_folder.manifest import Manifest, write_manifest
from trace_bench.runs.identity import RunSpec
from trace_bench.runs.run import Outcome
from trace_bench.sweeps import sweep, sweep_plan
from trace_bench.sweeps.interrupt import StopRequest
from trace_bench.sweeps.planning import Fixed, launcher_of, make_plan
from trace_bench.sweeps.slurm import commands as slurm
from trace_bench.sweeps.slurm import submission, worker
from trace_bench.sweeps.slurm.submission import Submission, lanes, pack, status_of
from trace_bench.sweeps.slurm.worker import SlurmJob
from trace_bench.sweeps.sweep import EXIT_MISTAKE, main
from trace_bench.system.errors import TraceBenchError

CONF = str(Path(__file__).parents[2] / "conf")
QUICK = ["prior=analytic", "representation=image", "method=sds,trace", "prompt=0-4", "seed=0,1"]


@functools.cache
def plan(*more):
    return make_plan([*QUICK, *more], multirun=True, config_dir=CONF)


def moved(runs, root):
    """The runs with another output root."""
    jobs = {id(run.job): dataclasses.replace(run.job, output_root=str(root)) for run in runs}
    return [RunSpec(jobs[id(run.job)], run.prompt, run.prompt_set) for run in runs]


# --- jobs and arrays -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2, 3, 10])
def test_every_run_is_in_one_job_and_jobs_differ_in_prompts_alone(size):
    packs = pack(plan(f"prompts_per_job={size}"))
    assert sorted(run.folder for runs in packs for run in runs) == sorted(run.folder for run in plan())
    assert all(len(runs) <= size for runs in packs)
    assert all(len({(run.identity.method, run.identity.seed) for run in runs}) == 1 for runs in packs)
    assert len(packs) == 4 * -(-5 // size)


def test_what_is_left_of_several_jobs_fills_one():
    left = [run for run in plan("prompts_per_job=4") if run.prompt.prompt_id in ("1", "4")]
    assert [len(runs) for runs in pack(left)] == [2] * 4


@pytest.mark.parametrize("count", [1, 7, 1001, 2500])
@pytest.mark.parametrize("size", [1, 6, 1001])
@pytest.mark.parametrize("parallelism", [1, 4, 256])
def test_arrays_fit_hold_all_jobs_and_never_run_more_than_asked_for(count, size, parallelism):
    arrays = lanes(count, size, parallelism)
    assert sum(jobs for jobs, _, _ in arrays) == count
    assert all(1 <= jobs <= size and at_a_time >= 1 for jobs, at_a_time, _ in arrays)
    open_at_once = {index for index, (_, _, after) in enumerate(arrays) if after is None}
    assert sum(arrays[index][1] for index in open_at_once) <= parallelism
    for index, (_, at_a_time, after) in enumerate(arrays):
        if after is not None:  # it replaces another of the same width
            assert after < index
            assert arrays[after][1] == at_a_time
    followed = [after for _, _, after in arrays if after is not None]
    assert len(followed) == len(set(followed))


def test_runs_of_earlier_jobs_that_wait_or_run_are_not_submitted_again(tmp_path, monkeypatch, capsys):
    runs = moved(plan("prompts_per_job=5"), tmp_path)
    sent = []

    def send(works, settings):
        sent.append(works)
        return [f"{6 + len(sent)}_{i}" for i in range(len(works))]

    monkeypatch.setattr(slurm, "is_here", lambda: True)
    monkeypatch.setattr(slurm, "max_array_size", lambda: 1001)
    monkeypatch.setattr(slurm, "queued", lambda ids: dict.fromkeys(ids, "PENDING"))
    monkeypatch.setattr(submission, "_submit_array", send)
    launcher = {"array_parallelism": 4, "submitit_folder": "slurm/%j"}
    first = submission.submit(runs, runs, launcher, ["a", "command"])
    assert sorted(first.jobs) == ["7_0", "7_1", "7_2", "7_3"]
    (sweep,) = sweep_plan.read_sweeps(tmp_path)
    assert sweep.command == "a command"
    assert sorted(name for names in sweep.jobs.values() for name in names) == sorted(sweep.runs)

    again = submission.submit(runs, runs, launcher, ["a", "command"])
    assert len(sent) == 1
    assert again.jobs.keys() == first.jobs.keys()
    assert "20 runs are in 4 jobs that were submitted earlier" in capsys.readouterr().out

    monkeypatch.setattr(slurm, "queued", lambda ids: {i: "RUNNING" for i in ids if i != "7_2"})
    later = submission.submit(runs, runs, launcher, ["a", "command"])
    assert [work.runs[0].identity.method for work in sent[1]] == [first.jobs["7_2"][0].identity.method]
    assert sorted(later.jobs) == ["7_0", "7_1", "7_3", "8_0"]


def test_many_jobs_go_into_arrays_that_wait_for_each_other(tmp_path, monkeypatch):
    runs = moved(plan(), tmp_path)
    settings = []

    def send(works, launcher):
        settings.append(launcher)
        return [f"{len(settings)}_{i}" for i in range(len(works))]

    monkeypatch.setattr(slurm, "is_here", lambda: True)
    monkeypatch.setattr(slurm, "max_array_size", lambda: 8)
    monkeypatch.setattr(submission, "_submit_array", send)
    launcher = {"array_parallelism": 2, "additional_parameters": {"requeue": True}, "submitit_folder": ""}
    made = submission.submit(runs, runs, launcher, [])
    assert sorted(run.folder for runs in made.jobs.values() for run in runs) == sorted(r.folder for r in runs)
    assert [s["array_parallelism"] for s in settings] == [1, 1, 1]
    assert [s["additional_parameters"] for s in settings] == [
        {"requeue": True},
        {"requeue": True},
        {"requeue": True, "dependency": "afterany:1"},
    ]


# --- what a job carries ----------------------------------------------------------------------------------


def test_a_job_carries_its_settings_and_only_its_own_prompts(tmp_path):
    runs = moved(plan("steps=7"), tmp_path)[:2]
    sent = pickle.loads(pickle.dumps(SlurmJob.of(runs, "2026-01-01T00:00:00+00:00")))
    assert [run.job.steps for run in sent.runs] == [7, 7]
    assert [run.folder for run in sent.runs] == [run.folder for run in runs]
    assert [len(run.prompt_set.prompts) for run in sent.runs] == [1, 1]
    assert [run.prompt_set.count for run in sent.runs] == [8, 8]
    sent.check()


def test_a_job_refuses_what_is_not_what_was_submitted(tmp_path):
    sent = dataclasses.replace(SlurmJob.of(plan()[:1], ""), fingerprints=("0" * 64,))
    with pytest.raises(TraceBenchError, match="have changed since submission"):
        sent()


def test_a_requeued_job_does_not_force_what_it_has_made(tmp_path):
    (run,) = moved(plan("force=true")[:1], tmp_path)
    run.folder.mkdir(parents=True)
    work = SlurmJob.of([run], "2026-01-01T12:00:00+00:00")
    for started, status, is_forced in (
        ("2026-01-01T11:59:59+00:00", "done", True),  # by an earlier command
        ("2026-01-01T12:00:01+00:00", "done", False),
        ("2026-01-01T12:00:01+00:00", "preempted", True),  # resumes anyway
    ):
        manifest = Manifest(status, run.fingerprint, run.identity, started=started, files=["config.yaml"])
        write_manifest(run.folder, manifest)
        assert work.as_left(run).job.force is is_forced


# --- requeueing ------------------------------------------------------------------------------------------


@pytest.fixture
def requeues():
    """Signals that reach submitit's place."""
    seen = []
    before = signal.signal(worker.REQUEUE, lambda signum, frame: seen.append(signum))
    yield seen
    signal.signal(worker.REQUEUE, before)


@pytest.mark.parametrize(
    ("signum", "grace", "is_requeued"),
    [
        (signal.SIGUSR2, False, True),  # the warning before the time limit
        (signal.SIGTERM, False, False),  # cancelled, or Slurm has requeued it already
        (signal.SIGTERM, True, True),  # preempted with a grace time
        (signal.SIGINT, True, False),
    ],
)
def test_who_requeues(monkeypatch, requeues, signum, grace, is_requeued):
    monkeypatch.setattr(slurm, "is_preempted_with_grace", lambda job_id: grace)
    stop = StopRequest()
    stop.signum = signum
    with pytest.raises(SystemExit) as left:
        worker.give_way(stop)
    assert bool(requeues) is is_requeued
    assert left.value.code == 128 + signum


def outcomes_of(monkeypatch, statuses, signal_at=None):
    """Replace make_asset by a fake with the given outcomes, which sends SIGUSR2 in the given run."""
    ends = iter(enumerate(statuses))

    def make(run, stop, lane):
        index, status = next(ends)
        if index == signal_at:
            os.kill(os.getpid(), signal.SIGUSR2)
        return Outcome(status, run.folder, "it broke")

    monkeypatch.setattr("trace_bench.runs.lanes.make_asset", make)


def test_a_job_with_failed_runs_goes_through_all_and_fails_at_its_end(monkeypatch, tmp_path):
    outcomes_of(monkeypatch, ["done", "failed", "skipped", "busy"])
    with pytest.raises(worker.RunsFailedError, match=r"1 of 4 runs failed\.\n.*it broke") as error:
        SlurmJob.of(plan()[:4], "")()
    assert str(plan()[1].folder) in str(error.value)
    outcomes_of(monkeypatch, ["done", "skipped", "busy"])
    assert SlurmJob.of(plan()[:3], "")() == {"busy": 1, "done": 1, "skipped": 1}


def test_an_interrupted_job_is_handed_to_submitit_at_once(monkeypatch, requeues):
    outcomes_of(monkeypatch, ["done", "preempted", "done"], signal_at=1)
    with pytest.raises(SystemExit):
        SlurmJob.of(plan()[:3], "")()
    assert requeues == [signal.SIGUSR2]


def test_a_signal_in_the_last_run_that_still_finishes_requeues_nothing(monkeypatch, requeues):
    outcomes_of(monkeypatch, ["done", "done"], signal_at=1)
    assert SlurmJob.of(plan()[:2], "")() == {"done": 2}
    assert requeues == []


# --- what is refused -------------------------------------------------------------------------------------


def refused(capsys, *argv):
    code = main(["--config-dir", CONF, *QUICK, *argv])
    said = capsys.readouterr().err
    assert code == EXIT_MISTAKE
    assert said.startswith("trace_bench: ")
    assert "Traceback" not in said
    return said


def test_a_launcher_or_detach_that_would_do_nothing_is_refused(capsys, tmp_path):
    out = f"output_root={tmp_path}"
    assert "add -m" in refused(capsys, out, "method=sds", "seed=0", "hydra/launcher=slurm_a100")
    assert "detach=true needs -m" in refused(capsys, out, "-m", "detach=true")
    both = ["detach=true", "on_error=stop", "hydra/launcher=slurm_a100"]
    assert "drop detach=true" in refused(capsys, out, "-m", *both)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_without_slurm_the_sentence_says_what_to_do(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    said = refused(capsys, f"output_root={tmp_path}", "-m", "hydra/launcher=slurm_a100")
    assert "needs Slurm" in said
    assert "hydra/launcher=local" in said


@pytest.mark.parametrize("name", ["slurm", "slurm_a100", "slurm_h100", "slurm_dev"])
def test_slurm_launchers_have_what_a_sweep_needs(name):
    settings = launcher_of(Fixed(["method=sds,vsd", f"hydra/launcher={name}", "output_root=there"]))
    assert submission.is_slurm(settings)
    assert settings["submitit_folder"] == "there/slurm/%j"
    assert settings["max_num_timeout"] >= 3
    assert settings["additional_parameters"]["requeue"] is True
    script = "\n".join(settings["setup"])
    assert "HF_HUB_OFFLINE=1" in script
    assert "TORCHINDUCTOR_CACHE_DIR" in script
    assert "\\" not in script


def test_prompts_per_job_is_ten_on_slurm_and_still_the_users():
    def size(*more):
        return make_plan(["method=sds", "prompt=0", *more], True)[0].job.prompts_per_job

    assert size() == 1
    assert size("hydra/launcher=slurm_a100") == 10
    assert size("hydra/launcher=slurm_a100", "prompts_per_job=3") == 3


def test_ctrl_c_while_waiting_says_what_is_done_and_how_to_go_on(tmp_path, monkeypatch, capsys):
    runs = moved(plan()[:4], tmp_path)
    for run, status in zip(runs, ("running", "failed"), strict=False):
        run.folder.mkdir(parents=True)
        write_manifest(run.folder, Manifest(status, run.fingerprint, run.identity))

    def ctrl_c(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep, "make_plan", lambda *arguments: runs)
    monkeypatch.setattr(sweep, "fork_server", lambda *arguments: contextlib.nullcontext())
    monkeypatch.setattr(sweep, "preflight", lambda *arguments: None)
    monkeypatch.setattr(sweep, "submit", lambda *arguments: Submission())
    monkeypatch.setattr(sweep, "wait", ctrl_c)
    command = ["-m", "method=sds,vsd", "hydra/launcher=slurm_a100"]
    assert main(command) == sweep.EXIT_INTERRUPTED
    said = [line for line in capsys.readouterr().err.splitlines() if line]
    assert said == [
        f"Stopped: 0 of 4 assets are done, 1 failed; see {tmp_path}/runs.",
        "1 begun, 2 not started. The jobs continue without this command; use scancel to end them.",
        f"The same command continues: python -m trace_bench {' '.join(command)}",
    ]


# --- Slurm's words ---------------------------------------------------------------------------------------


def test_variables_of_a_surrounding_job_are_hidden_and_come_back(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")
    monkeypatch.setenv("SBATCH_PARTITION", "debug")
    with slurm.outside_a_job():
        assert "SLURM_JOB_ID" not in os.environ
        assert "SBATCH_PARTITION" not in os.environ
        assert os.environ["SLURM_CONF"] == "/etc/slurm.conf"
    assert os.environ["SLURM_JOB_ID"] == "12"


def test_jobs_in_the_queue(monkeypatch):
    monkeypatch.setattr(slurm, "ask", lambda *command: "7_0 RUNNING\n7_1 PENDING\n9 COMPLETING\n")
    assert slurm.queued(["7_1", "9", "8"]) == {"7_1": "PENDING", "9": "COMPLETING"}
    assert slurm.queued([]) == {}

    def forgotten(*command):
        raise slurm.SlurmError("squeue failed: slurm_load_jobs error: Invalid job id specified.")

    monkeypatch.setattr(slurm, "ask", forgotten)
    assert slurm.queued(["7"]) == {}


def test_fields_of_a_job():
    line = "JobId=4 JobState=RUNNING Reason=None PreemptTime=None Command=(null) Comment=a=b"
    assert slurm.fields_of(line)["JobState"] == "RUNNING"
    assert slurm.fields_of(line)["Comment"] == "a=b"


def test_on_error_stop_cancels_the_rest(tmp_path, monkeypatch):
    runs = moved(plan("on_error=stop"), tmp_path)[:2]
    runs[0].folder.mkdir(parents=True)
    write_manifest(runs[0].folder, Manifest("failed", runs[0].fingerprint, runs[0].identity))
    open_jobs, cancelled = {"1_1": "PENDING"}, []

    def cancel(ids):
        cancelled.extend(ids)
        open_jobs.clear()

    monkeypatch.setattr(slurm, "queued", lambda ids: dict(open_jobs))
    monkeypatch.setattr(slurm, "cancel", cancel)
    monkeypatch.setattr(slurm, "how_it_ended", lambda job_id: "CANCELLED")
    under_way = Submission({"1_0": (runs[0],), "1_1": (runs[1],)}, logs="slurm/%j")
    submission.wait(under_way)
    assert cancelled == ["1_1"]
    reason = "Slurm job 1_1: CANCELLED; its log is slurm/1/1_1_0_log.err"
    assert under_way.reasons == {runs[1].folder: reason}
    assert [status_of(run) for run in runs] == ["failed", "missing"]
