"""A small CLIP, and in-process calls of the commands."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
from browser import chromium, opened


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory) -> Path:
    from small_clip import save_clip  # imports torch

    return save_clip(tmp_path_factory.mktemp("clip") / "model")


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """`command("score", "force=true")` -> (exit code, stdout, stderr), run in an empty folder on
    tmp_path/outputs.
    """
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")

    def call(name: str, *overrides: str) -> tuple[int, str, str]:
        arguments = [f"evaluation.{name}", f"output_root={tmp_path / 'outputs'}", *overrides]
        monkeypatch.setattr(sys, "argv", arguments)
        code = 0
        try:
            module = importlib.import_module(f"evaluation.{name}")
            if not hasattr(module, "main"):  # a package
                module = importlib.import_module(f"evaluation.{name}.__main__")
            module.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        assert list(Path.cwd().iterdir()) == []  # the working folder stays empty
        return code, out, err

    return call


@pytest.fixture(scope="module")
def browser():
    with chromium() as made:
        yield made


@pytest.fixture
def complaints():
    """What the browser complains of; a test with `context` fails if there is anything."""
    return []


@pytest.fixture
def window():
    """Size of the browser's window, pixels."""
    return {"width": 1280, "height": 800}


@pytest.fixture
def context(browser, complaints, window):
    with opened(browser, complaints, viewport=window, accept_downloads=True) as made:
        yield made
    assert complaints == []
