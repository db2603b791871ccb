"""A report made once, by the command itself."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from report_folders import write_report_root

from evaluation.report import __main__ as report


@pytest.fixture(scope="session")
def report_root(tmp_path_factory) -> Path:
    return write_report_root(tmp_path_factory.mktemp("report") / "outputs")


@pytest.fixture(scope="session")
def finished(report_root) -> Path:
    """The report's folder."""
    before = sys.argv
    sys.argv = ["evaluation.report", f"output_root={report_root}"]
    try:
        report.main()
    finally:
        sys.argv = before
    return report_root / "report"


@pytest.fixture
def address(finished):
    return (finished / "index.html").as_uri()


@pytest.fixture
def call(monkeypatch, capsys, tmp_path, report_root):
    """`call("report.assets=none")` -> (exit code, stdout, stderr), over a copy in tmp_path/outputs."""
    outputs = Path(
        shutil.copytree(report_root, tmp_path / "outputs", ignore=shutil.ignore_patterns("report"))
    )
    monkeypatch.chdir(tmp_path)

    def run(*overrides: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["evaluation.report", f"output_root={outputs}", *overrides])
        code = 0
        try:
            report.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run
