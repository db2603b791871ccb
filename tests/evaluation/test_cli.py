"""`trace-bench`: every command under one name, found fast, with its own help and exit codes."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from run_folders import write_run

import trace_bench
from evaluation import cli

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


def test_the_script_is_declared():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"trace-bench": "evaluation.cli:main"}


@pytest.fixture
def script(monkeypatch, capsys, tmp_path):
    """`script("score", "force=true")` -> (exit code, stdout, stderr), in an empty folder."""

    def run(*arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["trace-bench", *arguments])
        try:
            code = cli.main()
        except SystemExit as left:
            code = left.code
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_help_names_every_command(script):
    code, out, _ = script("--help")
    assert code == 0
    assert re.findall(r"^  ([\w-]+) +\w", out, re.MULTILINE) == list(cli.COMMANDS)
    assert script("-h")[1] == out


def test_no_command_is_a_mistake(script):
    code, out, err = script()
    assert (code, out) == (2, "")
    assert "usage: trace-bench" in err


def test_version(script):
    assert script("--version") == (0, f"trace-bench {trace_bench.__version__}\n", "")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("tablez", "did you mean `trace-bench tables`?"),
        ("contact_sheet", "did you mean `trace-bench contact-sheet`?"),
        ("method=sds", "did you mean `trace-bench run`?"),
        ("-m", "did you mean `trace-bench sweep`?"),
        ("qqq", "see `trace-bench --help`."),
    ],
)
def test_an_unknown_command_takes_one_sentence(script, typed, meant):
    code, out, err = script(typed)
    assert (code, out, err) == (2, "", f"trace-bench: there is no command {typed!r}; {meant}\n")


HELP = {
    "run": "trace_bench makes 3D assets",
    "sweep": "trace_bench makes 3D assets",
    "export": "Copy assets and films",
    "status": "Show the progress of sweeps.",
    "prefetch": "download and verify",
    "score": "evaluation scores the runs",
    "collect": "evaluation scores the runs",
    "tables": "evaluation scores the runs",
    "figures": "evaluation scores the runs",
    "contact-sheet": "evaluation scores the runs",
    "gpteval3d": "evaluation.gpteval3d asks a judge",
    "judge-validity": "evaluation scores the runs",
    "report": "evaluation scores the runs",
    "user-study": "evaluation.user_study asks people",
    "compare": "Compare two methods, settings or output roots",
    "prompts-needed": "How many prompts a difference needs",
    "check": "check that a class of your own meets the conventions",
}


def test_every_command_is_tried_below():
    assert set(HELP) == set(cli.COMMANDS)


@pytest.mark.parametrize("name", HELP)
def test_help_of_a_command_is_its_own(script, name):
    code, out, _ = script(name, "--help")
    assert code == 0
    assert HELP[name] in out


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["run", "method_=sds"], 2, "did you mean method?"),
        (["sweep", "method=sds,nope"], 2, "There is no method 'nope'"),
        (["run", "method=sds,vsd"], 2, "add -m"),
        (["run", "--nope"], 2, "usage: trace-bench run"),
        (["check", "metric=nope"], 2, "There is no metric 'nope'. Options: "),
        (["status", "output_root=nowhere"], 2, "The folder nowhere does not exist"),
        (["prefetch", "metric=nope"], 1, "There is no metric 'nope'"),
        (["score", "output_root=nowhere"], 2, "The folder nowhere does not exist"),
        (["contact-sheet", "output_root=nowhere"], 2, "The folder nowhere does not exist"),
        (["gpteval3d", "mode=nope"], 2, "mode=nope is unknown"),
        (["user-study", "mode=nope"], 2, "mode must be one of"),
    ],
)
def test_exit_codes_are_passed_on(script, arguments, code, says):
    done = script(*arguments)
    assert done[0] == code
    assert says in done[2]


def test_a_sweep_needs_no_flag(script, monkeypatch):
    asked = []
    monkeypatch.setattr("trace_bench.sweeps.sweep.main", lambda argv: asked.append(argv) or 75)
    assert script("sweep", "method=sds,vsd")[0] == 75
    assert script("run", "seed=1")[0] == 75
    assert asked == [["-m", "method=sds,vsd"], ["seed=1"]]


def test_as_a_process(tmp_path):
    """Over an empty output root the command has nothing to do, and says so."""
    (tmp_path / "outputs").mkdir()
    command = [sys.executable, "-m", "evaluation.cli", "score"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0
    assert "No finished runs" in done.stdout


def test_several_commands_run_in_turn_until_one_fails(script, monkeypatch):
    asked = []
    for name, code in (("score", 0), ("tables", 0), ("report", 3), ("collect", 0)):
        monkeypatch.setitem(
            cli.COMMANDS, name, lambda given, name=name, code=code: asked.append((name, given)) or code
        )
    assert script("score", "force=true", "then", "tables") == (0, "", "")
    assert asked == [("score", ["force=true"]), ("tables", [])]
    asked.clear()
    assert script("score", "then", "report", "then", "collect")[0] == 3
    assert [name for name, _ in asked] == ["score", "report"]


@pytest.mark.parametrize(
    ("code", "ran"),
    [(1, ["score", "report"]), (2, ["score"]), (130, ["score"]), (0, ["score", "tables", "report"])],
)
def test_a_report_is_made_after_problems_but_not_after_mistakes(script, monkeypatch, code, ran):
    asked = []
    for name, returned in (("score", code), ("tables", 0), ("report", 0)):
        monkeypatch.setitem(
            cli.COMMANDS, name, lambda given, name=name, returned=returned: asked.append(name) or returned
        )
    assert script("score", "then", "tables", "then", "report")[0] == code
    assert asked == ran


def test_the_line_of_make_bench_ends_with_the_page_of_the_report(script, tmp_path):
    """A run that cannot be scored is a problem of `score`, and the page is named all the same."""
    recipe = re.search(r"^bench:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    last = recipe.splitlines()[-1].partition("evaluation.cli ")[2].split()
    assert (last[:2], last[-2:]) == (["score", "then"], ["then", "report"])
    folder = write_run(tmp_path / "outputs")
    code, out, _ = script("score", "then", "tables", "then", "report")
    assert code == 1
    assert not (tmp_path / "outputs/tables").exists()  # `score` has ended all but the report
    assert out.splitlines()[-1] == "Report: outputs/report/index.html"
    assert str(folder.name) in (tmp_path / "outputs/report/index.html").read_text()


def test_a_wrong_command_among_several_runs_none(script, monkeypatch):
    monkeypatch.setitem(cli.COMMANDS, "score", lambda given: pytest.fail("it ran"))
    code, _, err = script("score", "then", "tablez")
    assert (code, "did you mean `trace-bench tables`?" in err) == (2, True)
    code, _, err = script("score", "then")
    assert (code, "usage: trace-bench" in err) == (2, True)


def test_the_exit_code_of_a_hydra_command_ends_the_line(script, monkeypatch):
    monkeypatch.setitem(cli.COMMANDS, "report", lambda given: pytest.fail("it ran"))
    code, _, err = script("tables", "output_root=nowhere", "then", "report")
    assert (code, "The folder nowhere does not exist" in err) == (2, True)
