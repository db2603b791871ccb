"""Runs docs/adding_a_method.md: only its file and its YAML in an empty folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from trace_bench.run_folder.manifest import read_manifest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "adding_a_method.md").read_text(encoding="utf-8")
QUICK = ["steps=4", "init.n=80", "rig.n_views=8", "rig.resolution=16", "resolution=24", "device=cpu"]


def block(language: str) -> str:
    """The page's only code block in a language."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The result of steps 1 and 2."""
    folder = tmp_path_factory.mktemp("mine")
    for heading in re.findall(r"^## \d\. The (?:file|YAML): `(.+)`$", PAGE, re.MULTILINE):
        path = folder / heading
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block({".py": "python", ".yaml": "yaml"}[path.suffix]))
    return folder


def run(folder, command):
    """Run a command of the page in that folder, with short runs."""
    python, flag, module, *arguments = command.split()
    assert (python, flag) == ("python", "-m")
    quick = QUICK if module == "trace_bench" else []
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, flag, module, *arguments, *quick],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_two_files_are_all_it_takes(folder):
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert files == ["conf/method/direct.yaml", "direct.py"]


@pytest.mark.slow
def test_it_sweeps_beside_the_others(folder):
    """Step 3's sweep: all runs done, the method under its own name, with the declared cost."""
    commands = block("sh").splitlines()
    assert commands[0] == "python -m trace_bench --config-dir conf method=direct"
    sweep = next(command for command in commands if " -m method=" in command)
    done = run(folder, sweep)
    assert done.returncode == 0, done.stdout + done.stderr
    runs = sorted(folder.glob("outputs/runs/*/gaussians/toy/*/*/manifest.json"))
    manifests = [read_manifest(path.parent) for path in runs]
    found = [(m.run.method, m.run.prompt_id, m.status) for m in manifests]
    assert found == [(name, prompt, "done") for name in ("direct", "sds") for prompt in ("0", "3")]
    assert {m.cost["unet_fwd"] for m in manifests} == {2 * 4}
    assert len({m.fingerprint for m in manifests}) == 4


def test_its_settings_are_checked_like_any_other(folder):
    done = run(folder, "python -m trace_bench --config-dir conf method=direct +method.max_stp=3")
    assert done.returncode == 2
    assert "method.max_stp is not a setting of direct.Direct; did you mean max_step?" in done.stderr
    done = run(folder, "python -m trace_bench --config-dir conf method=dirct")
    assert done.returncode == 2
    assert "There is no method 'dirct'; did you mean direct?" in done.stderr
