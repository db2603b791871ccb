"""Mistakes in a command: one clear sentence on stderr, a non-zero exit code, and no job started."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from trace_bench.sweeps import sweep
from trace_bench.sweeps.sweep import EXIT_MISTAKE, main

CONF = str(Path(__file__).parents[1] / "conf")
QUICK = ["prior=analytic", "representation=image", "method=sds"]
PICTURES = Path(__file__).resolve().parents[2] / "docs" / "images"
EXTERNAL = ["method=external", "method.source=us", "method.minutes=1"]

CASES = {
    "missing .ply": (
        ["representation=gaussians", "init=pointcloud", "init.path=nowhere.ply"],
        "The file nowhere.ply does not exist; set init.path to the path of an existing file.",
    ),
    "missing mesh": (
        ["representation=gaussians", "init=mesh", "init.path=nowhere.glb"],
        "The file nowhere.glb does not exist; set init.path to the path of an existing file.",
    ),
    "missing run": (
        ["representation=gaussians", "init=run", "init.folder=nowhere"],
        "nowhere is not a run folder; set init.folder to a folder with a manifest.json.",
    ),
    "missing asset": (
        [*EXTERNAL, "method.asset=nowhere.ply"],
        "nowhere.ply does not exist; set method.asset to",
    ),
    "no source": (["method=external", "method.minutes=1", "method.asset=x"], "method.source has no value"),
    "wrong prompt index": (["prompt=99"], "There is no prompt 99 in prompt_set=toy, which has 8 (0 to 7)."),
    "unknown method": (["method=tracee"], "There is no method 'tracee'; did you mean trace? Options: "),
    "unknown init": (["init=spere"], "There is no init 'spere'; did you mean sphere? Options: "),
    "guidance on a method without it": (
        ["method=csd", "guidance_scale=7.5"],
        "method=csd has no guidance scale; leave out guidance_scale=7.5.",
    ),
    "guidance on a contestant": (
        [*EXTERNAL, "method.asset=x", "guidance_scale=3"],
        "method=external has no guidance scale; leave out guidance_scale=3.",
    ),
    "negative steps": (["steps=-5"], "steps must be an integer of at least 1, but is -5."),
    "steps of a contestant": (
        [*EXTERNAL, "method.asset=x", "steps=5"],
        "method=external distils nothing; leave out steps=5.",
    ),
    "points for a picture": (
        ["init=sphere"],
        "representation=image takes no initial points; use init=none.",
    ),
    "no points for Gaussians": (
        ["representation=gaussians", "init=none"],
        "representation=gaussians needs initial points, but init=none provides none; choose another",
    ),
    "points for a contestant": (
        [*EXTERNAL, f"method.asset={PICTURES}", "init=sphere"],
        "method=external uses no init; leave out init=sphere.",
    ),
    "points for a field": (
        ["representation=nerf", "init=toy_coarse"],
        "representation=nerf takes no initial points; use init=none.",
    ),
    "settings of points for a field": (
        ["representation=nerf", "init.n=80"],
        "representation=nerf takes no initial points; leave out init.n=80.",
    ),
    "unknown setting of a start": (
        ["representation=gaussians", "init=sphere", "+init.m=3"],
        "init.m is not a setting of trace_bench.inits.sphere.Sphere",
    ),
}


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    def never(*_):
        pytest.fail("a job was started")

    monkeypatch.setattr(sweep, "_make", never)
    monkeypatch.setattr(sys, "argv", ["trace_bench"])

    def run(overrides):
        code = main(["--config-dir", CONF, *QUICK, f"output_root={tmp_path / 'out'}", *overrides])
        assert not (tmp_path / "out").exists()
        return code, capsys.readouterr().err

    return run


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_one_sentence_and_a_code(refused, case):
    overrides, says = CASES[case]
    code, said = refused(overrides)
    assert code == EXIT_MISTAKE != 0
    assert said.startswith("trace_bench: ")
    assert says in said
    assert said.count("\n") == 1


def test_what_a_run_finds_out_is_a_sentence_too(tmp_path, monkeypatch, capsys):
    """An existing but unusable file fails its run without a traceback."""
    monkeypatch.setattr(sys, "argv", ["trace_bench"])
    (tmp_path / "x.ply").write_text("this is not a ply")
    overrides = ["representation=gaussians", "init=pointcloud", f"init.path={tmp_path / 'x.ply'}"]
    code = main(["--config-dir", CONF, *QUICK, f"output_root={tmp_path / 'out'}", *overrides])
    said = capsys.readouterr()
    assert code == sweep.EXIT_FAILED
    assert "cannot be read as .ply" in said.err
    assert "Traceback" not in said.err + said.out
