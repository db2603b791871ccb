"""docs/adding_a_method.md, run verbatim: in an empty folder, and in a copy of the tree."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import types

import pytest
import torch
from analytic_prior import make as make_prior
from page import ROOT, Page, run

from trace_bench.priors.text import embed_prompt
from trace_bench.run_folder.manifest import read_manifest
from trace_bench.sweeps.planning import make_plan

PAGE = Page("adding_a_method")
# Looked up on import: a renamed heading fails in the quick run too.
CODE, YAML = PAGE.under("1. The file"), PAGE.under("2. The YAML")
TOY, PLAIN = PAGE.under("What the toy world needs"), PAGE.under("A second, plain version")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The result of steps 1 and 2."""
    folder = tmp_path_factory.mktemp("mine")
    assert PAGE.write(folder) == ["conf/method/direct.yaml", "direct.py"]
    return folder


@pytest.mark.slow
def test_the_check_is_green(folder):
    done = run(folder, PAGE.under("3.").text)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == f"{len(lines) - 1} checks, none failed."
    assert len(lines) > 10
    assert all(line.startswith("ok    ") for line in lines[:-1])


@pytest.mark.slow
def test_it_sweeps_beside_the_others(folder):
    """Step 4's sweep: every run done, the method's under its own name, with the cost that it declared."""
    commands = PAGE.under("4.").text.splitlines()
    assert commands[0] == "python -m trace_bench --config-dir conf method=direct"
    done = run(folder, next(command for command in commands if " -m method=" in command), "init.n=80")
    assert done.returncode == 0, done.stdout + done.stderr
    runs = sorted(folder.glob("outputs/runs/*/gaussians/toy/*/*/manifest.json"))
    manifests = [read_manifest(path.parent) for path in runs]
    found = [(m.run.method, m.run.prompt_id, m.status) for m in manifests]
    assert found == [(name, prompt, "done") for name in ("direct", "sds") for prompt in ("0", "3")]
    assert {m.cost["unet_fwd"] for m in manifests} == {2 * 4}
    assert len({m.fingerprint for m in manifests}) == 4


def test_an_edited_method_makes_another_run(tmp_path, monkeypatch):
    """The file of a class outside trace_bench is part of the run's identity."""
    PAGE.write(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "direct", raising=False)
    command = ["method=direct", "prompt=0"]
    (before,) = make_plan(command, False, "conf")
    (again,) = make_plan(command, False, "conf")
    code = tmp_path / "direct.py"
    code.write_text(code.read_text().replace("latents - x0", "0.1 * (latents - x0)"))
    (after,) = make_plan(command, False, "conf")
    assert before.folder == again.folder
    assert before.folder != after.folder
    monkeypatch.delitem(sys.modules, "direct", raising=False)


@pytest.mark.slow
def test_its_settings_are_checked_like_any_other(folder):
    done = run(folder, "python -m trace_bench --config-dir conf method=direct method.max_stp=3")
    assert done.returncode == 2
    assert "There is no setting 'method.max_stp'; did you mean method.max_step?" in done.stderr
    done = run(folder, "python -m trace_bench --config-dir conf method=dirct")
    assert done.returncode == 2
    assert "There is no method 'dirct'; did you mean direct?" in done.stderr


def test_the_page_s_three_texts_are_one_call():
    """The block of "More than two texts", in a step's names."""
    prior, n = make_prior(), 2
    text = embed_prompt(prior, "a duck")
    names = {"self": types.SimpleNamespace(prior=prior), "text": text, "cond": text.plain.expand(n), "n": n}
    names |= {"x_t": torch.randn(n, *prior.latent_shape, dtype=torch.float64), "t": torch.tensor([50, 700])}
    exec(PAGE.under("More than two texts").text, names)
    assert prior.counter.unet_fwd == 3 * n
    assert torch.equal(names["eps_cond"], prior.eps(names["x_t"], names["t"], names["cond"]))
    assert torch.equal(names["eps_negative"], names["eps_empty"])


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the tree in which step 5 was followed."""
    tree = tmp_path_factory.mktemp("tree")
    for name in ("trace_bench", "evaluation", "conf", "tests"):
        ignored = shutil.ignore_patterns("models", "__pycache__") if name != "tests" else None
        shutil.copytree(ROOT / name, tree / name, ignore=ignored)
    (tree / "trace_bench" / "models").symlink_to(ROOT / "trace_bench" / "models")
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tree)
    (tree / "trace_bench" / "methods" / CODE.path).write_text(CODE.text)
    moved = YAML.text.replace("_target_: direct.Direct", "_target_: trace_bench.methods.direct.Direct")
    (tree / YAML.path).write_text(moved)
    assert not (tree / TOY.path).exists()
    (tree / TOY.path).write_text(TOY.text)
    with (tree / PLAIN.path).open("a") as stream:
        stream.write(f"\n\n{PLAIN.text}")
    return tree


WHERE = [
    "tests/methods/test_conformance.py",
    "tests/methods/test_plain.py",
    "tests/conformance/test_every_pair.py",
]
FOUND = [
    "test_every_method_passes_every_check[direct-declared cost",
    "test_step_agrees_with_the_plain_one[",
    "test_every_hyper_parameter_names_its_source[direct]",
    "test_config_states_what_it_must[direct]",
    "test_the_toy_world_s_settings_fit[direct]",
    "test_pair[direct-image]",
]


@pytest.mark.long
def test_kept_in_the_tree_every_test_finds_it_and_passes(tree):
    """All that is made for each method, with one of the representations; and what is about all methods."""
    chosen = "plain_step or (direct and (image or not test_pair))"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "-k", chosen, *WHERE],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert [name for name in FOUND if f"::{name}" not in done.stdout] == []
