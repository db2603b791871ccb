"""scripts/bootstrap on machines with missing parts, simulated by fake Python interpreters."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("sh", "dirname", "mkdir", "cat", "cp", "chmod")

OLD = 'case "$*" in --version) echo Python 3.10.12 ;; esac'
WITHOUT_VENV = 'case "$*" in *ensurepip*) exit 1 ;; *version_info*) echo 3.12 ;; esac'
# Creates an environment with itself as python, and prints what it should install.
GOOD = """
case "$*" in
    *version_info*) echo 3.12 ;;
    "-m venv"*) mkdir -p "$4/bin"; cp "$0" "$4/bin/python" ;;
    "-m uv --version") UV ;;
    "-m uv pip install"*) echo "uv: $*" ;;
    "-m pip install --quiet"*) PIP ;;
    "-m pip install"*) echo "pip: $*" ;;
esac
"""


@pytest.fixture
def bootstrap(tmp_path):
    """Runs the script with only the given interpreters on the path."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in TOOLS:
        (tools / tool).symlink_to(shutil.which(tool))

    def run(interpreters: dict[str, str], *arguments: str, **environment: str):
        for name, body in interpreters.items():
            (tools / name).write_text(f"#!/bin/sh\n{body}\n")
            (tools / name).chmod(0o755)
        return subprocess.run(
            [tools / "sh", ROOT / "scripts" / "bootstrap", tmp_path / "venv", *arguments],
            env={"PATH": str(tools), **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def good(uv: str = "exit 1", pip: str = "exit 0") -> str:
    return GOOD.replace("UV", uv).replace("PIP", pip)


@pytest.mark.parametrize(
    ("interpreters", "environment", "sentence"),
    [
        ({}, {}, "this machine has no python3 at all: sudo apt install"),
        ({"python3": OLD}, {}, "this machine has Python 3.10.12: sudo apt install"),
        ({"python3": OLD, "python3.12": WITHOUT_VENV}, {}, "sudo apt install python3.12-venv"),
        ({"python3": good()}, {"PYTHON": "python9"}, "PYTHON=python9 is not a Python 3.11, 3.12 or 3.13"),
        ({"python3": good(pip="echo Failed to establish a new connection; exit 1")}, {}, "no network"),
    ],
)
def test_what_is_missing_is_said_in_one_sentence(bootstrap, interpreters, environment, sentence):
    done = bootstrap(interpreters, **environment)
    assert done.returncode != 0
    message = done.stderr.strip()
    assert sentence in message
    assert len(message.splitlines()) == 1
    assert message.startswith("trace_bench: ")


def test_a_later_interpreter_serves_where_the_first_cannot(bootstrap):
    done = bootstrap({"python3": OLD, "python3.13": WITHOUT_VENV, "python3.12": good()})
    assert done.returncode == 0, done.stderr
    assert "with python3.12" in done.stdout


def test_uv_installs_with_the_constraints_and_the_extra(bootstrap):
    done = bootstrap({"python3": good()}, "dev")
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("uv: ")]
    assert "-c constraints.txt" in line
    assert line.endswith("-e .[dev]")


def test_pip_does_it_where_uv_cannot_be_had(bootstrap):
    done = bootstrap({"python3": good(pip="echo no wheel for this machine; exit 1")})
    assert done.returncode == 0, done.stderr
    assert "using pip instead" in done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("pip: ")]
    assert line.endswith("-c constraints.txt -e .")


def test_an_environment_that_is_there_is_kept(bootstrap):
    assert "Creating" in bootstrap({"python3": good()}).stdout
    assert "Creating" not in bootstrap({"python3": good()}).stdout
