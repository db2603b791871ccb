"""No path of the machine leaves with a report: not in commands, not in messages."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from evaluation.report.paths import scrubbed, shareable, without_paths

BEGIN = "python -m trace_bench -m method=sds,vsd"


@pytest.mark.parametrize(
    ("more", "left"),
    [
        (["output_root=/home/me/my runs/out"], []),
        (["+output_root=/home/me/out"], []),
        (["++output_root=/home/me/out", "seed=0,1"], ["seed=0,1"]),
        (["hydra.sweep.dir=/home/me/x", "hydra.run.dir=x"], []),
        (["--config-dir", "/home/me/my conf", "method=mine"], ["--config-dir", "FOLDER", "method=mine"]),
        (["--config-dir=/home/me/conf"], ["--config-dir", "FOLDER"]),
        (["-cd", "/home/me/conf"], ["-cd", "FOLDER"]),
        (["method.asset=/home/me/my assets/a.glb"], ["method.asset=…/a.glb"]),
        (["method.asset=/home/me/a.glb,/home/me/b.glb"], ["method.asset=…/a.glb,…/b.glb"]),
        (["init.file=~/a.ply", "+x=[/home/me/a,/home/me/b]"], ["init.file=…/a.ply", "+x=[…/a,…/b]"]),
        (["prompt=a cat and/or a dog; 1/2"], ["prompt=a cat and/or a dog; 1/2"]),
        (["prior.repo=org/model", "url=https://a.b/c/d"], ["prior.repo=org/model", "url=https://a.b/c/d"]),
    ],
)
def test_a_command_names_no_place_of_this_machine(more, left):
    shown = shareable(shlex.join([*BEGIN.split(), *more]))
    assert shlex.split(shown) == [*BEGIN.split(), *left]
    assert "/home" not in shown


def test_a_command_that_is_no_shell_line_is_shown_without_paths():
    shown = shareable("python -m trace_bench 'x output_root=/home/me/out")
    assert shlex.split(shown) == ["python", "-m", "trace_bench", "'x"]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("No such file: '/home/me/my data/x.pt'", "No such file: '…/x.pt'"),
        ("/home/me/x.pt is damaged.", "…/x.pt is damaged."),
        ("cannot read ~/models/x.pt", "cannot read …/x.pt"),
        ("cannot read ~me/models/x.pt", "cannot read …/x.pt"),
        ("see file:///home/me/x.html", "see …/x.html"),
        ("path=/home/me/x.pt, (/home/me/y)", "path=…/x.pt, (…/y)"),
        ("either/or </script><b>x</b> 3 GB/s https://a.b/c/d?e=/f pkg://a/b", None),
        ("tables/x.csv; ../x/y; a / b; 12/24", None),
    ],
)
def test_a_message_keeps_the_last_part_of_a_path(text, left):
    assert without_paths(text) == (text if left is None else left)


@pytest.mark.parametrize("given", ["outputs", "./outputs", "ABSOLUTE", "link"])
def test_the_output_root_is_left_out_however_it_was_given(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs").mkdir()
    (tmp_path / "link").symlink_to("outputs")
    root = tmp_path / "outputs" if given == "ABSOLUTE" else Path(given)
    for written in (root, root.absolute(), root.resolve()):
        assert without_paths(f"{written}/runs/a/x.json is odd.", root) == "runs/a/x.json is odd."
        assert without_paths(f"{written} is odd.", root) == f"{written.name} is odd."
    assert without_paths("my-outputs/x and outputs.txt", root) == "my-outputs/x and outputs.txt"


def test_the_current_folder_as_output_root_leaves_full_stops(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert without_paths(f"{tmp_path}/runs/x. It is odd.", Path()) == "runs/x. It is odd."


def test_texts_in_lists_and_dicts_lose_their_paths():
    assert scrubbed({"a": [["/home/me/x", 1, None]], "b": ("y",)}) == {"a": [["…/x", 1, None]], "b": ["y"]}
