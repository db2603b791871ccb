"""What all runs of a command would fail with is one sentence before the first run."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from trace_bench.run_folder.manifest import read_manifest
from trace_bench.runs import build
from trace_bench.runs.known_prompts import check_prompt
from trace_bench.sweeps import preflight, sweep
from trace_bench.sweeps.planning import make_plan
from trace_bench.sweeps.sweep import EXIT_MISTAKE, main
from trace_bench.system.errors import TraceBenchError
from trace_bench.toyworld.captions import VIEW_PHRASES, all_captions

TINY = Path(str(files("trace_bench"))) / "models" / "tiny_prior"
PICTURES = Path(__file__).resolve().parents[2] / "docs" / "images"
QUICK = [
    "steps=1",
    "views_per_step=1",
    "device=cpu",
    "rig.n_views=8",
    "rig.resolution=16",
    "representation=image",
]


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """A command that must be refused with one sentence, before anything is loaded; returns the sentence."""

    def run(*overrides):
        monkeypatch.setattr(sweep, "_make", lambda *_: pytest.fail("a run was started"))
        monkeypatch.setattr(build, "load_prior", lambda *_: pytest.fail("a prior was loaded"))
        assert main([*overrides, f"output_root={tmp_path / 'out'}"]) == EXIT_MISTAKE
        said = capsys.readouterr().err
        assert said.startswith("trace_bench: ")
        assert said.count("\n") == 1
        assert not (tmp_path / "out" / "runs").exists()
        return said

    return run


@pytest.fixture
def tiny(tmp_path):
    """A copy of the tiny prior to damage."""
    shutil.copytree(TINY, tmp_path / "tiny", ignore=shutil.ignore_patterns("*.png", "README.md"))
    return tmp_path / "tiny"


def run_of(*overrides):
    return make_plan(["method=sds", *overrides], multirun=False)[0]


# --- prompts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ("a red dragon", "does not know 'dragon'"),
        ("a blue duck", 'use "a duck", not "a blue duck"'),
        ("a cube", "names no colour"),
        ("a red cube on a red sphere", "uses one colour twice"),
    ],
)
def test_a_prompt_outside_the_toy_grammar_is_refused(refused, prompt, says):
    said = refused(f"prompt={prompt}")
    assert says in said
    assert "prior=sd21" in said


def test_one_such_prompt_refuses_the_whole_sweep(refused):
    assert "'dragon'" in refused("-m", "method=sds,vsd", "prompt=a red cube,a red dragon")


def test_every_caption_of_the_grammar_passes():
    run = run_of()
    prompt_set = run.prompt_set
    for caption in all_captions():
        check_prompt(type(run)(run.job, prompt_set._named(caption.text), prompt_set))
    for phrase in VIEW_PHRASES:
        check_prompt(type(run)(run.job, prompt_set._named(f"A red house, {phrase}"), prompt_set))


def test_other_priors_take_any_text(tiny):
    check_prompt(run_of("prior=sd21", "prompt=a red dragon"))
    (tiny / "prompts.json").unlink()
    check_prompt(run_of(f"prior.repo={tiny}", "prompt=a red dragon"))


def test_an_external_asset_may_show_anything():
    about = [f"method.asset={PICTURES}", "method.source=us", "method.minutes=1"]
    check_prompt(make_plan(["method=external", *about, "prompt=a red dragon"], False)[0])


@pytest.mark.parametrize(("content", "says"), [("{", "must be"), ('{"grammar": "x"}', "knows only toyworld")])
def test_a_declaration_that_cannot_be_read(tiny, content, says):
    (tiny / "prompts.json").write_text(content)
    with pytest.raises(TraceBenchError, match=says):
        check_prompt(run_of(f"prior.repo={tiny}"))


# --- files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_a_part_that_is_missing(refused, tiny, name):
    shutil.rmtree(tiny / name)
    assert str(tiny / name) in refused("method=sds", f"prior.repo={tiny}")


@pytest.mark.parametrize("method", ["vsd", "trace"])
def test_a_missing_adapter_is_refused_where_it_is_used(refused, tiny, method):
    shutil.rmtree(tiny / "unet_v")
    assert str(tiny / "unet_v") in refused(f"method={method}", f"prior.repo={tiny}")


def test_a_method_without_an_adapter_neither_needs_nor_describes_one(tiny, tmp_path, capsys):
    shutil.rmtree(tiny / "unet_v")
    shutil.rmtree(tiny / "scheduler_v")
    assert main(["method=sds", f"prior.repo={tiny}", f"output_root={tmp_path / 'out'}", *QUICK]) == 0
    (path,) = (tmp_path / "out").glob("runs/**/manifest.json")
    assert set(read_manifest(path.parent).prior) == {"repo", "revision", "sha256"}


def test_an_adapter_folder_that_is_not_there_matters_only_to_who_uses_it(refused, tmp_path):
    check = preflight.check_models
    nowhere = f"+prior.adapter_repo={tmp_path}/nowhere"
    check([run_of(nowhere)], download=False)
    assert "nowhere" in refused("method=trace", nowhere)


@pytest.mark.parametrize("cut", [0, 5, 1000, -1])
def test_weights_that_are_cut_off(refused, tiny, cut):
    (path,) = (tiny / "unet").glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:cut])
    said = refused("method=sds", f"prior.repo={tiny}")
    assert str(path) in said
    assert "damaged or cut off" in said


def test_missing_weights_fail_once_not_330_times(refused, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    texts = json.dumps([f"thing {i}" for i in range(110)])
    (tmp_path / "prompts.json").write_text(texts)
    monkeypatch.setenv("TRACE_BENCH_GPTEVAL3D", str(tmp_path))
    sha256 = hashlib.sha256(texts.encode()).hexdigest()
    said = refused("-m", "method=sds,vsd,trace", "prompt_set=gpteval3d", f"prompt_set.sha256={sha256}")
    assert "is not in the local cache" in said
    assert "python -m trace_bench.prefetch repo=" in said


def test_missing_weights_of_shap_e_offer_another_init(refused):
    said = refused("init=shap_e", "method=sds")
    assert "openai/shap-e" in said
    assert "init=random" in said


# --- the disk --------------------------------------------------------------------------------------------


def test_too_little_disk(refused, monkeypatch):
    usage = shutil._ntuple_diskusage(10**9, 10**9, 10**6)
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: usage)
    said = refused("-m", "method=sds", "prompt=0,1")
    assert "2 runs need about 11.2 MB" in said
    assert "1 MB free" in said


@pytest.mark.parametrize("root", ["file/x", "file", "a" * 300, "/proc/nowhere/x"])
def test_a_root_that_cannot_be(tmp_path, monkeypatch, capsys, root):
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    for more in ([], ["dry_run=true"]):
        assert main(["method=sds", f"output_root={root}", *more]) == EXIT_MISTAKE
        said = capsys.readouterr().err
        assert f"output_root={root}" in said
        assert said.count("\n") == 1


# --- dry_run ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_dry_run_lists_the_runs_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["trace_bench"])
    assert main(["-m", "method=sds,vsd", "prompt=0-3", "dry_run=true", "hydra/launcher=local"]) == 0
    said = capsys.readouterr().out
    runs = make_plan(["method=sds,vsd", "prompt=0-3"], multirun=True)
    assert all(run.folder.relative_to("outputs").as_posix() in said for run in runs)
    assert "8 of 8 runs to make; 0 are done." in said
    for word in ("Time: about", "Disk: about 44.8 MB"):
        assert word in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("asked", "times"), [("[0,15,30,30]", 4), ("[30,999]", 2), ("[]", 1)])
def test_the_disk_of_renders_at_counts(asked, times):
    """One more rig for each number of steps that the run reaches."""
    sizes = [
        preflight.bytes_of(make_plan([*more, "method=sds", "prompt=0", "steps=30"], multirun=False)[0].job)
        for more in ([], [f"renders_at={asked}"])
    ]
    assert sizes[1] == times * sizes[0]


@pytest.mark.slow
def test_a_dry_run_for_slurm_counts_gpu_hours_and_finds_missing_weights(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    overrides = ["hydra/launcher=slurm_a100", "method=sds", "prompt_set=paper", "dry_run=true"]
    assert main(["-m", *overrides]) == EXIT_MISTAKE
    said = capsys.readouterr()
    assert "A100 hours" in said.out
    assert "is not in the local cache" in said.err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_time_of_a_kind_that_has_been_measured(tmp_path, capsys):
    command = ["method=sds", *QUICK, f"output_root={tmp_path / 'out'}"]
    assert main(command) == 0
    assert main(["-m", *command, "prompt=0,1", "dry_run=true"]) == 0
    said = capsys.readouterr().out
    assert "1 of 2 runs to make; 1 are done." in said
    assert "(measured)" in said


# --- what Hydra would answer with a traceback ------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["-m", "method=glob(z*)"], "matches no method. Options: "),
        (["-m", "guidance_scale=interval(1,10)"], "names no single values"),
        (["-m", "--cfg", "job"], "leave out -m"),
        (["method=sds,vsd", "--cfg", "job"], "add -m"),
        (["method.t_max=abc"], "method.t_max must be an integer, but is 'abc'."),
        (["method=nan"], "There is no method 'nan'"),
        (["prompt_set.file=nope"], "prompt_set=toy takes no file; add prompt_set=file."),
        (["prompt_set=file", "prompt_set.file=nope"], "prompt_set.file=nope: cannot read nope"),
        (["-m", "hydra/launcher=submitit_local"], "does not support the launcher"),
        (["--experimental-rerun", "x.pickle"], "repeat the command"),
    ],
)
def test_hydras_features_that_do_not_fit(refused, overrides, says):
    assert says in refused(*overrides)


def test_glob_chooses_options():
    found = {run.identity.method for run in make_plan(["method=glob(sd*)", "prompt=0"], True)}
    assert found == {"sds", "sdi", "sds_bridge"}
