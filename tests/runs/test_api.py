"""The Python interface: the same plan, folder and identity as the command, and its own ways to fail."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from quick_runs import CONF, STEPS, stamp

import trace_bench
from trace_bench.run_folder.manifest import read_manifest
from trace_bench.runs.identity import RunSpec
from trace_bench.settings.typed_text import as_overrides, readable_overrides
from trace_bench.sweeps.planning import make_plan
from trace_bench.system.errors import TraceBenchError

ROOT = Path(__file__).resolve().parents[2]
QUICK = {
    "prior": "analytic",
    "representation": "image",
    "method": "sds",
    "steps": STEPS,
    "guidance_scale": 5,
    "log_every": 3,
    "checkpoint": {"every_steps": 4},
}


@pytest.fixture
def make(out):
    def make_it(prompt=0, **settings):
        return trace_bench.make(prompt, config_dir=CONF, output_root=str(out), **{**QUICK, **settings})

    return make_it


def planned(*overrides: str) -> RunSpec:
    (run,) = make_plan(readable_overrides(overrides, multirun=False), multirun=False)
    return run


def test_one_run_whoever_asks_for_it(make, command, out):
    """The command finds the asset that make() made, and the other way round."""
    asset = make("a red cube")
    before = stamp(asset.folder)
    assert command("prompt=a red cube") == 0
    assert stamp(asset.folder) == before
    assert command("prompt=a red cube", "seed=3") == 0
    (other,) = (path.parent for path in out.glob("runs/*/*/*/*/*seed3*/manifest.json"))
    assert make("a red cube", seed=3).folder == other


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "overrides"),
    [
        ({"prompt": "a red cube"}, ["prompt=a red cube"]),
        ({"prompt": 'it\'s "odd", {x}: 50 %'}, ['prompt=it\'s "odd", {x}: 50 %']),
        ({"prompt": 3}, ["prompt=3"]),
        ({"method": "trace", "guidance_scale": 7.5}, ["method=trace", "guidance_scale=7.5"]),
        ({"method": "sds", "method.grad_clamp": None}, ["method=sds", "method.grad_clamp=null"]),
        ({"method": "sds", "method.min_step_percent": 1e-5}, ["method=sds", "method.min_step_percent=1e-5"]),
        ({"method.x0_noise": False, "seed": np.int64(4)}, ["method.x0_noise=false", "seed=4"]),
        ({"cameras": {"distance": (2.5, 3)}}, ["cameras.distance=[2.5,3]"]),
        ({"representation": "nerf", "rig": {"n_views": 3}}, ["representation=nerf", "rig.n_views=3"]),
        ({"init": "sphere"}, ["init=sphere"]),
    ],
)
def test_settings_are_those_of_the_command(settings, overrides):
    (ours,) = make_plan(as_overrides(settings), multirun=False)
    theirs = planned(*overrides)
    assert (ours.fingerprint, ours.folder, ours.job) == (theirs.fingerprint, theirs.folder, theirs.job)


@pytest.mark.slow
@pytest.mark.parametrize(
    "text", ["", "null", "12", "true", "a b", "a,b", "x=y", "C:\\a\\", 'say "hi"', "~/a b"]
)
def test_texts_stay_texts(text):
    (run,) = make_plan(
        as_overrides({"prompt": "p", "output_root": f"r{text}", "device": "cpu"}), multirun=False
    )
    assert run.job.output_root == f"r{text}"


def test_a_setting_of_no_kind_is_named():
    with pytest.raises(TraceBenchError, match="steps cannot be a object"):
        as_overrides({"steps": object()})


@pytest.mark.slow
def test_an_asset_shows_itself(make):
    small = {"resolution": 8, "rig": {"n_views": 4, "resolution": 16}, "init": {"n": 200}}
    asset = make("a red cube", representation="gaussians", **small)
    assert trace_bench.Asset(asset.folder).manifest == asset.manifest == read_manifest(asset.folder)
    assert asset.rgb(3).size == asset.normal(0).size == (16, 16)
    assert asset.preview.size == (4 * 16, 2 * 16)
    assert asset.turntable.name == "turntable.mp4"
    asset.manifest.run = dataclasses.replace(asset.manifest.run, prompt="a <b>")
    shown = asset._repr_html_()
    assert "a &lt;b&gt;" in shown
    assert shown.count("data:image/png;base64,") == shown.count("data:video/mp4;base64,") == 1
    with pytest.raises(IndexError, match="no view 4"):
        asset.rgb(4)


def test_a_picture_has_no_film(make):
    asset = make()
    assert asset.turntable is None
    assert "<video" not in asset._repr_html_()


def test_no_asset_of_an_unfinished_folder(tmp_path):
    with pytest.raises(TraceBenchError, match="no finished run"):
        trace_bench.Asset(tmp_path)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"method": "sdss"}, "did you mean sds"),
        ({"prompt": "0-2"}, "asks for 3 assets"),
        ({"+method.max_stp": 3}, "method.max_stp is not a setting"),
        ({"detach": True}, "detach"),
        ({"device": "cuda:99"}, "device=cuda:99 does not exist"),
    ],
)
def test_mistakes_are_said_in_one_sentence(make, settings, says):
    with pytest.raises(TraceBenchError, match=says):
        make(**settings)


def test_a_failed_run_says_why(make, monkeypatch):
    def fail(*_args, **_settings):
        raise ValueError("no luck")

    monkeypatch.setattr("trace_bench.runs.run.distill", fail)
    with pytest.raises(TraceBenchError, match="ValueError: no luck"):
        make()


def test_an_interrupted_run_goes_on(make, out, monkeypatch):
    from trace_bench.runs.reporter import Reporter

    step = Reporter.step

    def interrupt(self, k, values):
        step(self, k, values)
        if k == 5:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Reporter, "step", interrupt)
    with pytest.raises(KeyboardInterrupt):
        make()
    monkeypatch.setattr(Reporter, "step", step)
    asset = make()
    assert asset.manifest.attempts == 2
    assert "Resuming at step 6" in (asset.folder / "log.txt").read_text()


@pytest.fixture(scope="module")
def prior():
    return trace_bench.load_prior("tiny", device="cpu")


def test_parts_have_the_settings_of_the_command(prior):
    """... the protocol's changes included."""
    assert trace_bench.load_prior("tiny", device="cpu") is prior
    method = trace_bench.load_method("sds", prior)
    assert (method.guidance_scale, method.negative_prompt) == (4, "")
    paper = trace_bench.load_method("sds", prior, protocol="paper", **{"method.grad_clamp": None})
    assert (paper.guidance_scale, paper.grad_clamp) == (101.0, None)
    assert paper.negative_prompt.startswith("ugly")
    assert trace_bench.load_method("trace", prior, guidance_scale=7.5).guidance_scale == 7.5
    with pytest.raises(TraceBenchError, match=r"did you mean method\.grad_clamp"):
        trace_bench.load_method("sds", prior, grad_clamp=None)


def test_representations_begin_as_in_a_run(prior):
    first, second = (
        trace_bench.load_representation("gaussians", prior, init={"n": 30}, seed=s) for s in (0, 1)
    )
    assert first.n_primitives == second.n_primitives == 30
    means = [r.state_dict()["params"]["means"] for r in (first, second)]
    assert not torch.equal(*means)
    with pytest.raises(TraceBenchError, match="takes no initial points"):
        trace_bench.load_representation("image", prior, init="sphere")


@pytest.mark.slow
def test_types_are_known(tmp_path):
    """mypy sees through the lazy names, and misses those that are not there."""
    (tmp_path / "user.py").write_text(
        "import evaluation, trace_bench\n"
        "reveal_type(trace_bench.make('a'))\nreveal_type(evaluation.read_results)\ntrace_bench.mak\n"
    )
    code = "import sys; from mypy import api; print(api.run(sys.argv[1:])[0])"
    command = [
        sys.executable,
        "-c",
        code,
        "--config-file",
        str(ROOT / "pyproject.toml"),
        str(tmp_path / "user.py"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert '"trace_bench.api.Asset"' in done.stdout
    assert "-> pandas" in done.stdout or "-> Any" in done.stdout
    assert 'no attribute "mak"' in done.stdout or "has no attribute" in done.stdout
