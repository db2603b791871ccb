"""A study of three methods and four prompts, made once; and in-process calls of the command."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from study_folders import write_runs

from evaluation.user_study import __main__ as user_study
from evaluation.user_study.study import Study, load_study

ROOT = Path(__file__).resolve().parents[3]
SMALL = ("baselines=[sds,vsd]", "raters=6", "per_rater=4", "bootstrap.replicates=200")


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """`call("mode=import", ...)` -> (exit code, stdout, stderr), over tmp_path/outputs."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")

    def run(*overrides: str) -> tuple[int, str, str]:
        arguments = ["evaluation.user_study", f"output_root={tmp_path / 'outputs'}", *SMALL, *overrides]
        monkeypatch.setattr(sys, "argv", arguments)
        code = 0
        try:
            user_study.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        assert list(Path.cwd().iterdir()) == []  # the working folder stays empty
        return code, out, err

    return run


@pytest.fixture(scope="session")
def finished_runs(tmp_path_factory) -> Path:
    """An output root with only runs."""
    root = tmp_path_factory.mktemp("runs") / "outputs"
    write_runs(root)
    return root


@pytest.fixture
def outputs(finished_runs, tmp_path) -> Path:
    """A copy for one test."""
    return Path(shutil.copytree(finished_runs, tmp_path / "outputs"))


@pytest.fixture(scope="session")
def finished_study(finished_runs, tmp_path_factory) -> Path:
    """The same with a study that the command made."""
    root = Path(shutil.copytree(finished_runs, tmp_path_factory.mktemp("study") / "outputs"))
    command = [sys.executable, "-m", "evaluation.user_study", f"output_root={root}", *SMALL]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return root


@pytest.fixture
def made(finished_study, tmp_path) -> tuple[Path, Study]:
    """A copy of the study's folder and its key for one test, with the runs."""
    folder = Path(shutil.copytree(finished_study, tmp_path / "outputs")) / "user_study" / "main"
    return folder, load_study(folder)
