"""Runs from the command to the finished folder: skip, redo, fail."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from importlib.resources import files
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf
from quick_runs import SMALL_3D, STEPS, asset, folders, spec, stamp, statuses

from trace_bench.methods.sds import SDS
from trace_bench.representations.gaussians.gaussians import Gaussians
from trace_bench.run_folder.manifest import is_done, read_manifest
from trace_bench.runs import run, warm_up
from trace_bench.runs.checkpoint import CHECKPOINT
from trace_bench.runs.claim import claim
from trace_bench.runs.open_run import DIFF
from trace_bench.runs.run import make_asset
from trace_bench.sweeps import sweep
from trace_bench.sweeps.sweep import EXIT_FAILED, EXIT_MISTAKE, EXIT_UNFINISHED, main
from trace_bench.system.errors import TraceBenchError

RUN_LEVEL_KEYS = [
    "method", "representation", "prior", "init", "prompt_set", "prompt", "guidance_scale", "seed", "steps",
    "resolution", "views_per_step", "output_root", "force", "prompts_per_job", "on_error", "device",
]  # fmt: skip


def test_a_prompt_is_data_in_the_runs_config_too(command, out):
    """`${...}` is not interpolated, also when the file is read again."""
    odd = "price ${5, ${steps}"
    assert command(f"prompt={odd}") == EXIT_FAILED  # the analytic prior knows no such text
    (folder,) = folders(out)
    assert yaml.safe_load((folder / "config.yaml").read_text())["prompt"] == odd
    assert read_manifest(folder).run.prompt == odd


# --- one run ---------------------------------------------------------------------------------------------


def test_one_asset(command, out, capsys):
    assert command() == 0
    (folder,) = folders(out)
    assert folder.parts[-5:-1] == ("sds", "image", "toy", "0-a-red-cube")
    manifest = read_manifest(folder)
    assert is_done(folder, manifest)
    assert manifest.run.prompt == "a red cube"
    assert manifest.cost["unet_fwd"] == 2 * STEPS
    assert manifest.attempts == 1
    assert manifest.n_primitives == 64
    assert manifest.seconds["total"] >= manifest.seconds["distill"] > 0
    assert manifest.prompt_source == {"file": "config", "sha256": None, "count": 8}
    assert {path.name for path in folder.iterdir()} - {DIFF} == {
        "manifest.json", "config.yaml", "metrics.jsonl", "log.txt", "asset.safetensors", "asset.png",
        "preview.png", "renders",
    }  # fmt: skip
    assert str(folder) in capsys.readouterr().out


@pytest.mark.slow
def test_the_manifest_says_that_a_prompt_was_cut(command, out, tmp_path):
    """The tiny prior reads 16 tokens, ends included; without its declaration it takes any text."""
    tiny = Path(str(files("trace_bench"))) / "models" / "tiny_prior"
    shutil.copytree(tiny, tmp_path / "tiny", ignore=shutil.ignore_patterns("prompts.json"))
    long = "a red cube on a blue cube on a red cube on a blue cube"
    for prompt, cut in ((long, True), ("a red cube on a blue cube", False)):
        assert (
            command(
                "prior=tiny", f"prior.repo={tmp_path / 'tiny'}", f"prompt={prompt}", "steps=1", "device=cpu"
            )
            == 0
        )
        (folder,) = [folder for folder in folders(out) if read_manifest(folder).run.prompt == prompt]
        assert read_manifest(folder).prompt_cut is cut
        assert ("leaves out 'on a blue cube'" in (folder / "log.txt").read_text()) is cut


def test_what_a_process_pays_once_is_not_charged_to_its_first_run(out, monkeypatch):
    """A first step that compiles for 1000 seconds (a jump of the clock) is loading and changes no asset."""
    plain = make_asset(spec(out / "plain")).folder
    monkeypatch.setattr(warm_up, "_done", set())
    compiled, step, clock = [], SDS.step, time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: clock() + sum(compiled))

    def first_step_is_slow(self, *args):
        if not compiled:
            compiled.append(1000.0)
        return step(self, *args)

    monkeypatch.setattr(SDS, "step", first_step_is_slow)
    first, second = (make_asset(spec(out / "slow", f"seed={seed}")).folder for seed in (0, 1))
    seconds = [read_manifest(folder).seconds for folder in (first, second)]
    assert seconds[0]["load"] >= 1000.0 > seconds[1]["load"]
    assert max(each["init"] + each["distill"] for each in seconds) < 1000.0
    assert read_manifest(first).cost == read_manifest(plain).cost
    assert asset(first) == asset(plain)


def test_the_config_in_the_folder_is_what_ran(command, out):
    command("seed=5")
    cfg = OmegaConf.load(folders(out)[0] / "config.yaml")
    assert (cfg.seed, cfg.prompt, cfg.choices.method, cfg.guidance_scale) == (5, "a red cube", "sds", 5)


def test_metrics_have_a_row_an_interval(command, out):
    command()
    rows = [json.loads(line) for line in (folders(out)[0] / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 5, 8, 11]
    assert all(row["grad_rms"] > 0 and row["steps_per_s"] > 0 for row in rows)


def test_nothing_is_written_outside_the_output_root(command, out, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command("-m", "prompt=0,1")
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    assert {path.name for path in out.iterdir()} == {"runs", "sweeps"}


def test_3d_asset_with_its_film(out):
    """Gaussians through the whole run, small."""
    made = make_asset(
        spec(out, "representation=gaussians", "resolution=8", "rig.n_views=9", "rig.resolution=16")
    )
    assert made.status == "done", made.message
    names = {path.name for path in made.folder.iterdir()}
    assert {"asset.ply", "asset.safetensors", "turntable.mp4", "preview.png", "renders"} <= names
    assert len(list((made.folder / "renders").glob("rgb_*.png"))) == read_manifest(made.folder).views == 9


# --- skipping and redoing --------------------------------------------------------------------------------


def test_a_finished_run_is_not_touched_again(command, out, capsys):
    command()
    (folder,) = folders(out)
    before = stamp(folder)
    assert command() == 0
    assert "(made before)" in capsys.readouterr().out
    assert make_asset(spec(out)).status == "skipped"
    assert stamp(folder) == before


def test_a_finished_sweep_starts_no_job(command, out, monkeypatch):
    command("-m", "prompt=0,1")

    def never(*_):
        pytest.fail("a job was started")

    monkeypatch.setattr(sweep, "_make", never)
    assert command("-m", "prompt=0,1") == 0


def test_force_makes_it_again(command, out):
    command()
    (folder,) = folders(out)
    (folder / "scores").mkdir()
    (folder / "scores" / "clip.json").write_text("{}")
    first = asset(folder), (folder / "manifest.json").stat().st_mtime_ns
    assert command("force=true") == 0
    assert asset(folder) == first[0]
    assert (folder / "manifest.json").stat().st_mtime_ns > first[1]
    assert not (folder / "scores").exists()  # scores of an asset that is gone


def test_a_done_run_with_a_missing_file_is_made_again(command, out):
    command()
    (folder,) = folders(out)
    first = asset(folder)
    (folder / "asset.safetensors").unlink()
    assert command() == 0
    assert asset(folder) == first


# --- failing ---------------------------------------------------------------------------------------------


def test_a_failing_run_is_recorded_and_stops_no_other(command, out, capsys):
    assert command("-m", "prompt=0,1,2", "prior.bad_prompt=a blue torus") == EXIT_FAILED
    assert sorted(statuses(out)) == ["done", "done", "failed"]
    (failed,) = (folder for folder in folders(out) if read_manifest(folder).status == "failed")
    record = json.loads((failed / "error.json").read_text())
    assert record["type"] == "NonFiniteError"
    assert record["step"] == 0
    assert "non-finite at step 0" in record["message"]
    assert any("distill.py" in line for line in record["traceback"])
    assert "Failed" in (failed / "log.txt").read_text()
    said = capsys.readouterr().err
    assert str(failed) in said
    assert "Traceback" not in said


def test_several_prompts_in_a_job_go_on_after_a_failure_too(command, out):
    assert command("prompt=0-2", "prior.bad_prompt=a blue torus") == EXIT_FAILED
    assert sorted(statuses(out)) == ["done", "done", "failed"]


def test_on_error_stop_ends_the_sweep(command, out, capsys):
    code = command("-m", "prompt=0,1,2", "prior.bad_prompt=a red cube", "on_error=stop")
    assert code == EXIT_FAILED
    assert statuses(out) == ["failed"]
    said = capsys.readouterr().err
    assert said.count("Not finished:") == 2


def test_a_failed_run_is_tried_again_and_its_error_goes(command, out, monkeypatch):
    def trip(*args, **kwargs):
        raise RuntimeError("the disk hiccuped")

    monkeypatch.setattr(run, "write_renders", trip)
    assert command() == EXIT_FAILED
    (folder,) = folders(out)
    assert json.loads((folder / "error.json").read_text())["message"] == "the disk hiccuped"
    assert (folder / CHECKPOINT).exists()
    monkeypatch.undo()
    assert make_asset(spec(out)).status == "done"
    assert not (folder / "error.json").exists()
    assert not (folder / CHECKPOINT).exists()
    assert read_manifest(folder).attempts == 2


def test_a_prompt_that_the_prior_refuses_is_a_failure_with_its_words(command, out, capsys):
    assert command("prompt=a purple whale") == EXIT_FAILED
    assert "no distribution named 'a purple whale'" in capsys.readouterr().err


def test_a_prior_that_cannot_be_loaded_is_tried_once(command, out, capsys):
    code = command("-m", "prompt=0-1,2", "prior._target_=analytic_prior.broken")
    assert code == EXIT_FAILED
    assert statuses(out) == ["failed"] * 3
    import analytic_prior

    assert analytic_prior.broken_calls == 1


def test_mistakes_are_refused_before_anything_is_loaded(command, out, monkeypatch, capsys):
    def never(*_):
        pytest.fail("a job was started")

    monkeypatch.setattr(sweep, "_make", never)
    assert command("steps=0") == EXIT_MISTAKE
    assert command("-m", "method=sds,sdd") == EXIT_MISTAKE
    assert command("+method.min_step_percnt=0.1") == EXIT_MISTAKE
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3
    assert all(line.startswith("trace_bench: ") for line in said)
    assert not out.exists()


def test_a_mistake_in_cfg_is_a_sentence_too(command, capsys):
    assert command("--cfg", "job", "sead=1") == EXIT_MISTAKE
    assert "did you mean seed?" in capsys.readouterr().err


def test_an_output_root_that_cannot_be_written(out, tmp_path):
    (tmp_path / "file").write_text("")
    made = make_asset(spec(tmp_path / "file"))
    assert made.status == "failed"
    assert "NotADirectoryError" in made.message


def test_a_full_disk_fails_the_run_with_a_clear_message_and_keeps_what_is_finished(out, monkeypatch):
    done = make_asset(spec(out, "prompt=1")).folder
    original = os.fsync

    def full(descriptor):
        if ".manifest" not in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    made = make_asset(spec(out))
    assert made.status == "failed"
    assert "No space left on device" in made.message
    monkeypatch.undo()
    assert is_done(done, read_manifest(done))
    assert make_asset(spec(out)).status == "done"


# --- two at once -----------------------------------------------------------------------------------------


def test_a_run_that_another_process_works_on_is_left_to_it(command, out, capsys):
    wanted = spec(out)
    wanted.folder.mkdir(parents=True)
    with claim(wanted.folder):
        assert command("-m", "prompt=0,1") == EXIT_UNFINISHED
    said = capsys.readouterr().err
    assert f"pid {os.getpid()} on host" in said
    assert "is working on" in said
    assert statuses(out) == ["done"]  # the other one
    assert command("-m", "prompt=0,1") == 0


# --- the command line ------------------------------------------------------------------------------------


def test_command_line_help_names_every_run_level_key(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    said = capsys.readouterr().out
    for key in RUN_LEVEL_KEYS:
        assert f"\n    {key} " in said or f"\n  {key} " in said, key
    assert "sds" in said
    assert "gpteval3d" in said


def test_an_error_of_the_users_is_not_shown_with_a_traceback():
    assert run.sentence(TraceBenchError("Do this.")) == "Do this."
    assert run.sentence(ValueError("a\n  b")) == "ValueError: a b"


def test_a_render_that_is_not_finite_is_never_done(out, monkeypatch):
    """Whatever made it: here, only the renders at the end, which ask for normals, are affected."""
    render = Gaussians.render

    def bad(self, cameras, background, with_normals=False):
        made = render(self, cameras, background, with_normals)
        if with_normals:
            made.depth[0, 8, 8] = float("nan")
            made.alpha[0, 8, 8] = 1.0
        return made

    monkeypatch.setattr(Gaussians, "render", bad)
    outcome = make_asset(spec(out, *SMALL_3D))
    assert outcome.status == "failed"
    assert "The rendered depth of view 0 is NaN or infinite" in outcome.message
    assert read_manifest(outcome.folder).status == "failed"
    monkeypatch.undo()
    assert make_asset(spec(out, *SMALL_3D)).status == "done"
