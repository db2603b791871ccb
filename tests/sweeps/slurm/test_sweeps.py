"""Sweeps on a real Slurm: killed, preempted and timed-out runs are finished, bad ones are named."""

from __future__ import annotations

import json
import math
import os
import re
import signal
from pathlib import Path

import pytest
import yaml
from dev_cluster import MAX_ARRAY_SIZE, ROOT, wait_until
from safetensors.torch import load_file

from trace_bench.run_folder.index import read_index
from trace_bench.run_folder.manifest import Manifest, is_done, write_manifest
from trace_bench.sweeps.planning import make_plan
from trace_bench.toyworld import training_prompts

pytestmark = pytest.mark.slow

CAPTIONS = yaml.safe_load((ROOT / "conf" / "metric" / "clip_score.yaml").read_text())["models"]["tiny"][
    "captions"
]
STEPS = 30
SLOW_S = 4.0
KILLED, REQUEUED, TIMED_OUT, RAISES, NON_FINITE = CAPTIONS[:5]


@pytest.fixture
def sweep(tmp_path):
    """The arguments of a sweep over the given prompts, up to the launcher and the output root."""

    def arguments(prompts):
        texts = tmp_path / "prompts.txt"
        texts.write_text("\n".join(prompts) + "\n")
        return [
            "-m", "method=sds", "representation=image", "prompt_set=file", f"prompt_set.file={texts}",
            "prior._target_=faulty_prior.FaultyPrior", f"steps={STEPS}", "log_every=1",
            "checkpoint.every_steps=3", "rig.n_views=4", "rig.resolution=32",
        ]  # fmt: skip

    return arguments


def slurm(out, *more):
    return [
        f"output_root={out}", "hydra/launcher=slurm_dev", "prompts_per_job=1",
        "hydra.launcher.array_parallelism=4", "hydra.launcher.signal_delay_s=90", *more,
    ]  # fmt: skip


def by_prompt(out):
    """Folder and manifest of every run that has one, by its prompt."""
    runs = read_index(Path(out)).runs.values()
    return {run.prompt: (run.folder, run.manifest) for run in runs}


def is_past(out, prompt, step):
    """Whether the run of a prompt has passed a step."""
    folder, _ = by_prompt(out).get(prompt, (None, None))
    path = folder / "metrics.jsonl" if folder else None
    return bool(path and path.exists() and path.read_bytes().count(b"\n") > step)


def job_of(out, prompt):
    """Slurm's id of the job that executes a prompt's run."""
    return by_prompt(out)[prompt][1].environment["slurm"]["job_id"]


def asset(folder):
    return {
        name: tensor.numpy().tobytes() for name, tensor in load_file(folder / "asset.safetensors").items()
    }


def minutes_so_far(cluster, job_id):
    """Whole minutes that a job has run, rounded up."""
    parts = [
        int(part) for part in re.split("[-:]", cluster.ask("squeue", "-h", "-j", job_id, "-o", "%M").strip())
    ]
    return parts[-2] + 1 if len(parts) == 2 else parts[-3] * 60 + parts[-2] + 1


def disturb(cluster, out):
    """Kill one run's process, requeue another's job, and let a third run out of time."""
    wait_until("the run to kill", lambda: is_past(out, KILLED, 5))
    os.kill(json.loads((by_prompt(out)[KILLED][0] / ".claim").read_text())["pid"], signal.SIGKILL)
    wait_until("the run to requeue", lambda: is_past(out, REQUEUED, 5))
    cluster.ask("scontrol", "requeue", job_of(out, REQUEUED))
    wait_until("the run that runs out of time", lambda: is_past(out, TIMED_OUT, 5))
    job_id = job_of(out, TIMED_OUT)
    cluster.ask("scontrol", "update", f"JobId={job_id}", f"TimeLimit={minutes_so_far(cluster, job_id) + 1}")
    wait_until("the time limit", lambda: by_prompt(out)[TIMED_OUT][1].status == "preempted", 240)
    # Its next attempt gets the usual time: on a busy machine, loading alone may exceed the short limit.
    cluster.ask("scontrol", "update", f"JobId={job_id}", "TimeLimit=30")
    wait_until("the requeue", lambda: by_prompt(out)[REQUEUED][1].status in ("preempted", "done"), 240)


def test_a_sweep_survives_all_that_happens_to_jobs(cluster, sweep, tmp_path):
    """24 runs, 4 at a time: one raises, one is non-finite, one is killed, one requeued, one timed out."""
    prompts, out, faults = CAPTIONS[:24], tmp_path / "out", tmp_path / "faults.json"
    broken = {RAISES: "raise", NON_FINITE: "nan"}
    slow = dict.fromkeys((KILLED, REQUEUED, TIMED_OUT), SLOW_S)
    faults.write_text(json.dumps(broken | slow))
    cluster.environment["FAULTS"] = str(faults)
    process = cluster.start("trace_bench", *sweep(prompts), *slurm(out), cwd=tmp_path)
    try:
        disturb(cluster, out)
        faults.write_text(json.dumps(broken))
        said, _ = process.communicate(timeout=1200)
    finally:
        process.kill()
    assert process.returncode == 1, said
    assert "Submitted 24 runs in 24 jobs" in said
    done = check_first(cluster, out, said, broken)
    check_again(cluster, out, [*sweep(prompts), *slurm(out)], broken, done)
    del cluster.environment["FAULTS"]
    good = [prompt for prompt in prompts if prompt not in broken]
    code, said = cluster.run("trace_bench", *sweep(good), f"output_root={tmp_path / 'whole'}", cwd=tmp_path)
    assert code == 0, said
    found, whole = by_prompt(out), by_prompt(tmp_path / "whole")
    for prompt in good:
        assert asset(found[prompt][0]) == asset(whole[prompt][0]), prompt


def check_first(cluster, out, said, broken):
    """After the first command: all but the killed and the broken runs are done; returns their prompts."""
    found = by_prompt(out)
    assert {prompt for prompt in found if found[prompt][1].status == "failed"} == set(broken)
    assert found[KILLED][1].status == "running"
    done = [prompt for prompt in found if found[prompt][1].status == "done"]
    assert len(done) == 21
    assert all(is_done(*found[prompt]) for prompt in done)
    for prompt in (REQUEUED, TIMED_OUT):  # requeued and resumed in the same sweep
        assert found[prompt][1].attempts >= 2
        assert re.search(r"Resuming at step [1-9]", (found[prompt][0] / "log.txt").read_text())
    for prompt in broken:
        assert cluster.state(job_of(out, prompt)) == "FAILED"
        assert f"Failed: {found[prompt][0]}" in said
    assert re.search(r"Not finished: .*\n  Slurm job \d+_0: [A-Z]+", said)
    return done


def check_again(cluster, out, command, broken, done):
    """After the second command: only the broken runs are not done, and finished runs are unchanged."""
    before = by_prompt(out)
    stamps = {prompt: (before[prompt][0] / "manifest.json").stat().st_mtime_ns for prompt in done}
    code, said = cluster.run("trace_bench", *command, cwd=out.parent)
    assert code == 1, said
    assert "Submitted 3 runs in 3 jobs; 21 of 24 runs are done." in said
    found = by_prompt(out)
    assert all((found[p][0] / "manifest.json").stat().st_mtime_ns == stamp for p, stamp in stamps.items())
    assert {prompt for prompt in found if not is_done(*found[prompt])} == set(broken)
    assert re.search(r"Resuming at step [1-9]", (found[KILLED][0] / "log.txt").read_text())
    assert said.count("Failed: ") == 2
    assert "RuntimeError: the GPU has fallen off the bus" in said
    assert "NonFiniteError" in said


def test_330_jobs_are_submitted_as_few_arrays_and_a_finished_sweep_submits_none(cluster, sweep, tmp_path):
    prompts = training_prompts()[:110]
    out = tmp_path / "out"
    command = [*sweep(prompts), "method=sds,vsd,trace", *slurm(out, "detach=true")]
    held = "+hydra.launcher.additional_parameters.hold=true"  # they should wait, not run
    try:
        code, said = cluster.run("trace_bench", *command, held, cwd=tmp_path)
        assert code == 0, said
        assert "Submitted 330 runs in 330 jobs" in said
        queue = cluster.ask("squeue", "--noheader", "--array", "--format=%i").split()
        assert len(queue) == 330
        assert max(int(job.partition("_")[2]) for job in queue) == MAX_ARRAY_SIZE - 1
        assert len({job.partition("_")[0] for job in queue}) == math.ceil(330 / MAX_ARRAY_SIZE)

        code, said = cluster.run("trace_bench.status", f"output_root={out}", cwd=tmp_path)
        assert f"330 runs under {out}: 330 queued" in said
        code, said = cluster.run("trace_bench", *command, held, cwd=tmp_path)  # given twice
        assert "330 runs are in 330 jobs that were submitted earlier" in said
        assert "Submitted 0 runs in 0 jobs" in said
    finally:
        cluster.ask("scancel", f"--user={os.environ.get('USER', 'root')}", "--quiet")
    for run in make_plan([*command[1:], "prior._target_=faulty_prior.FaultyPrior"], multirun=True):
        run.folder.mkdir(parents=True)
        (run.folder / "config.yaml").write_text("a file of this run")
        write_manifest(run.folder, Manifest("done", run.fingerprint, run.identity, files=["config.yaml"]))
    code, said = cluster.run("trace_bench", *command, cwd=tmp_path)
    assert code == 0, said
    assert "Submitted" not in said


def test_a_detached_sweep_is_followed_by_status_and_keeps_its_settings(cluster, sweep, tmp_path):
    """Two runs in one job; edits in conf/ after the submission have no effect."""
    out, conf = tmp_path / "out", tmp_path / "conf" / "protocol"
    conf.mkdir(parents=True)
    protocol = (ROOT / "conf" / "protocol" / "toy.yaml").read_text()
    (conf / "mine.yaml").write_text(protocol)
    command = ["--config-dir", str(conf.parent), *sweep(CAPTIONS[:2]), "protocol=mine"]
    command += [*slurm(out), "prompts_per_job=10", "detach=true"]
    cluster.ask("scontrol", "update", "PartitionName=batch", "State=DOWN")
    try:
        code, said = cluster.run("trace_bench", *command, cwd=tmp_path)
        assert code == 0, said
        assert "Submitted 2 runs in 1 jobs" in said
        (conf / "mine.yaml").write_text("resolution: 8\nthis is: [not yaml")
    finally:
        cluster.ask("scontrol", "update", "PartitionName=batch", "State=UP")
    code, said = cluster.run("trace_bench.status", f"output_root={out}", "--watch", "2", cwd=tmp_path)
    assert code == 0
    assert f"2 runs under {out}: 2 done" in said
    assert [manifest.run.resolution for _, manifest in by_prompt(out).values()] == [64, 64]


def test_what_slurm_refuses_is_a_sentence(cluster, sweep, tmp_path):
    more = slurm(tmp_path / "out", "hydra.launcher.partition=none")
    code, said = cluster.run("trace_bench", *sweep(CAPTIONS[:1]), *more, cwd=tmp_path)
    assert code == 2
    assert "Slurm refused the jobs: " in said
    assert "invalid partition" in said.lower()
    assert "Traceback" not in said


def test_shards_of_the_evaluation_on_the_same_launcher(cluster, sweep, tmp_path):
    out = tmp_path / "out"
    runs = ["-m", "method=sds", "representation=image", "prompt=0,1", "steps=3", "rig.n_views=2"]
    code, said = cluster.run("trace_bench", *runs, f"output_root={out}", cwd=tmp_path)
    assert code == 0, said
    shards = ["-m", "shard=1/2,2/2", "metric=[clip_score]", "hydra/launcher=slurm_dev", f"output_root={out}"]
    code, said = cluster.run("evaluation.score", *shards, cwd=tmp_path)
    assert code == 0, said
    runs = read_index(out).runs.values()
    assert all((run.folder / "scores" / "clip_score.json").is_file() for run in runs)
