"""Wrong options of an evaluation command are one sentence, and a reader that goes away is no error."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ALL = ("score", "tables.__main__", "figures.__main__", "contact_sheet", "collect")


@pytest.fixture
def refused(monkeypatch, capsys):
    def run(module, *arguments):
        monkeypatch.setattr(sys, "argv", [module, *arguments])
        with pytest.raises(SystemExit) as left:
            importlib.import_module(f"evaluation.{module}").main()
        said = capsys.readouterr()
        assert left.value.code == 2
        assert said.out == ""
        assert said.err.count("\n") == 1
        return said.err

    return run


@pytest.mark.parametrize("module", ALL)
def test_every_command_refuses_an_unknown_key(refused, module):
    assert (
        refused(module, "outptu_root=x") == "There is no setting 'outptu_root'; did you mean output_root?\n"
    )


@pytest.mark.parametrize(
    ("module", "arguments", "says"),
    [
        ("figures.__main__", ["figure=foo"], "There is no figure 'foo'. Options: cfg_ablation, "),
        ("figures.__main__", ["figure=[foo]"], "There is no figure 'foo'. Options: cfg_ablation, "),
        ("score", ["metric=[nope]"], "There is no metric 'nope'. Options: "),
        ("score", ["metric=default,clip_score"], "write 'metric=[default,clip_score]' for a list"),
        ("score", ["metric=nan"], "There is no metric 'nan'. Options: "),
        ("score", ["force"], "'force' is not key=value"),
        ("score", ["~output_root"], "output_root could not be resolved: "),
        ("score", ["-m", "--cfg", "job"], "leave out -m."),
        ("tables.__main__", ["table=4,7"], "write 'table=[4,7]' for a list"),
        ("gpteval3d.__main__", ["judge=foo"], "There is no judge 'foo'. Options: clip, openai, truth."),
        ("gpteval3d.__main__", ["judge.mode=x"], "did you mean judge.model?"),
        ("user_study.__main__", ["nope=1"], "There is no setting 'nope'."),
    ],
)
def test_a_wrong_option(refused, module, arguments, says):
    assert says in refused(module, *arguments)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["", "run", "status", "score", "check"])
def test_a_reader_that_goes_away(name, tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "evaluation.cli", *([name] if name else []), "--help"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=120
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
