"""Mistakes in a method of one's own: one sentence each, before the first step or at it, and an exit code."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from trace_bench.sweeps import sweep
from trace_bench.sweeps.sweep import EXIT_FAILED, EXIT_MISTAKE, main

ROOT = Path(__file__).resolve().parents[2]
YAML = "_target_: {module}.Mine\nguidance_scale: null\nreference: {{steps: 5, views_per_step: 1}}\n"
CODE = """
from small_method import Good
from trace_bench.priors.base import Work
class Mine(Good):
    def cost(self, progress, batch, rng):
        return Work(unet_fwd={declared} * batch)
"""
QUICK = ["prior=analytic", "representation=image", "steps=3", "method=mine"]


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Run a method of these files' in this process; returns the exit code and stderr."""
    monkeypatch.setattr(sys, "argv", ["trace_bench"])
    monkeypatch.syspath_prepend(tmp_path)
    conf = tmp_path / "conf"
    for group, name in (("prior", "analytic"), ("method", None)):
        (conf / group).mkdir(parents=True)
        if name:
            source = ROOT / "tests" / "conf" / group / f"{name}.yaml"
            (conf / group / source.name).write_text(source.read_text())

    def run(module, yaml, code, starts=False):
        (conf / "method" / "mine.yaml").write_text(yaml)
        (tmp_path / f"{module}.py").write_text(code)
        if not starts:
            monkeypatch.setattr(sweep, "_make", lambda *_: pytest.fail("a job was started"))
        code = main(["--config-dir", str(conf), *QUICK, f"output_root={tmp_path / 'out'}"])
        return code, capsys.readouterr().err

    return run


def test_a_wrong_cost_is_named_at_the_first_step(command, tmp_path):
    code, said = command("wrong_cost", YAML.format(module="wrong_cost"), CODE.format(declared=3), starts=True)
    assert code == EXIT_FAILED
    assert (
        "wrong_cost.Mine declares 3 UNet items, but used 1 at step 0 (1 view); correct its cost(), which "
        "budget=equal_work and the tables rely on."
    ) in said
    assert "Traceback" not in said
    (record,) = (tmp_path / "out").glob("runs/mine/*/*/*/*/error.json")
    assert '"step": 0' in record.read_text()


def test_a_right_cost_runs(command):
    code, said = command("right_cost", YAML.format(module="right_cost"), CODE.format(declared=1), starts=True)
    assert code == 0, said


MISTAKES = {
    "no cost": (
        "no_cost_here",
        YAML,
        "from trace_bench.methods.base import Method\nclass Mine(Method):\n    def step(self, *_): ...\n",
        "no_cost_here.Mine does not define cost, which Method requires.",
    ),
    "no reference": (
        "no_reference",
        "_target_: {module}.Mine\nguidance_scale: null\n",
        CODE.format(declared=1),
        "conf/method/mine.yaml has no reference.steps; give the method's own number of steps.",
    ),
    "no module": (
        "some_module",
        YAML.replace("{module}", "another_module"),
        CODE.format(declared=1),
        "method._target_=another_module.Mine cannot be imported: there is no module 'another_module' in this",
    ),
    "a module that the file imports": (
        "needs_more_here",
        YAML,
        "import not_installed_here\n",
        "needs_more_here.Mine cannot be imported: it needs the module 'not_installed_here', which is not in",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_sentence_before_anything_is_loaded(command, case):
    module, yaml, source, says = MISTAKES[case]
    code, said = command(module, yaml.format(module=module), source)
    assert code == EXIT_MISTAKE
    assert said.startswith("trace_bench: ")
    assert says in said
    assert said.count("\n") == 1
