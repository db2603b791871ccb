"""The display of a sweep, on a terminal and without one."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path

import pytest
from rich.console import Console

from trace_bench.run_folder.live import LIVE, Live, LiveFile, read_live
from trace_bench.run_folder.states import CLAIM
from trace_bench.sweeps import display, local
from trace_bench.sweeps.board import AtWork, Board, Planned, View, fraction_done
from trace_bench.sweeps.display import Display, drawn, in_a_line, summary
from trace_bench.system import tracked

VIEW = View(24, 7, 1, 0.31, 240.0, [
    AtWork("vsd", "a red house", Live("distill", 120, 240, 2.4, "lora_loss", 0.123)),
    AtWork("nerf_method", "a blue cone on a red sphere, and so on" * 4, Live("render", 40, 120)),
    AtWork("sds", "[red]markup\x1b[2J", None),
])  # fmt: skip


def terminal(width=100, height=24):
    return Console(
        file=io.StringIO(), force_terminal=True, width=width, height=height, _environ={"TERM": "xterm"}
    )


def lines(view, rows=10, width=100):
    console = Console(file=io.StringIO(), width=width, height=30, no_color=True)
    console.print(drawn(view, rows))
    return console.file.getvalue().splitlines()


def test_a_line_for_each_running_asset_none_too_long():
    said = lines(VIEW)
    assert said[0] == "7/24 done, 1 failed, 3 running, about 4 min left"
    assert len(said) == 5
    assert all(len(line) <= 100 for line in said)
    assert "vsd" in said[2]
    assert "120/240  2.4 steps/s  lora_loss 0.123" in said[2]
    assert "rendering" in said[3]
    assert "…" in said[3]
    assert "40/120" in said[3]
    assert "[red]markup" in said[4]
    assert "\x1b" not in said[4]
    assert "starting" in said[4]


def test_more_running_assets_than_lines():
    many = View(900, 0, 0, 0.0, None, [AtWork("sds", str(i), None) for i in range(50)])
    assert lines(many, rows=6)[-1].strip() == "... and 44 more"
    assert len(lines(many, rows=6)) == 2 + 6 + 1


def test_a_terminal_shows_one_block_and_messages_above_it():
    console = terminal()
    with Display(lambda: VIEW, console=console) as shown:
        shown.say("Done: sds, a duck")
        time.sleep(0.3)
    said = console.file.getvalue()
    assert said.count("Done: sds, a duck") == 1
    assert "7/24 done" in said


def test_without_a_terminal_a_line_an_interval(monkeypatch, capsys):
    monkeypatch.setattr(display, "pause_before_line", lambda elapsed: 0.02)
    with Display(lambda: VIEW, console=Console(file=io.StringIO())):
        time.sleep(0.3)
    said = capsys.readouterr().out.splitlines()
    assert len(said) >= 2
    assert said[0] == in_a_line(VIEW)
    assert said[0].startswith(
        "7/24 done, 1 failed, 3 running, about 4 min left (31% of the work); vsd 'a red house' "
    )
    assert "\x1b" not in said[0]


def test_lines_get_rarer_and_never_stop():
    assert tracked.pause_before_line(0) == 10
    assert tracked.pause_before_line(3600) == 180
    assert tracked.pause_before_line(10**6) == 300


def test_a_look_that_fails_ends_nothing(monkeypatch):
    def broken():
        raise OSError("gone")

    monkeypatch.setattr(display, "pause_before_line", lambda elapsed: 0.01)
    with Display(broken, console=Console(file=io.StringIO())):
        time.sleep(0.05)


def test_the_board_follows_the_runs(tmp_path):
    runs = {tmp_path / name: Planned("sds", "gaussians", name, 1.0) for name in "abcd"}
    a, b, c, _ = runs
    for folder in (a, b, c):
        folder.mkdir()
    board = Board(runs, 2)
    assert summary(board.view()) == "0/4 done"
    board.started(a)
    board.started(b)
    board.ended(a, "done")
    board.started(c)
    LiveFile(c).update(Live("distill", 10, 10, 5.0))
    board.ended(b, "failed")
    view = board.view()
    assert (view.total, view.done, view.failed) == (4, 1, 1)
    assert view.fraction == 0.75
    assert [asset.live.done for asset in view.at_work] == [10]
    board.ended(c, "lost")
    assert not board.view().at_work


def test_what_an_attempt_does_is_written_seldom_and_removed(tmp_path):
    file = LiveFile(tmp_path)
    file.enter("load")
    file.update(Live("distill", 1, 100))  # too soon
    assert read_live(tmp_path) == Live("load")
    file.update(Live("render", 8, 8))  # the last of its phase
    assert read_live(tmp_path) == Live("render", 8, 8)
    file.close()
    assert read_live(tmp_path) is None
    (tmp_path / LIVE).write_text('{"phase": 3}')
    assert read_live(tmp_path) is None
    LiveFile(tmp_path / "none").enter("load")  # no folder, no error


def test_renders_between_two_steps_neither_end_nor_undo_the_steps():
    """`renders_at` on a NeRF takes minutes: they count as neither all of the work nor none."""
    live = Live("render_step", 40, 120, part_of_steps=0.25)
    assert fraction_done({"a": 4.0, "b": 4.0}, [], {"a": live}) == 0.125
    assert "rendering" in in_a_line(View(1, at_work=[AtWork("sds", "a duck", live)]))
    assert "40/120" in in_a_line(View(1, at_work=[AtWork("sds", "a duck", live)]))


def test_what_a_worker_prints_comes_line_by_line():
    said = []
    read, write = os.pipe()
    os.write(write, b"one\ntw")
    os.write(write, b"o \x1b[2J\n\n 10%\r 100%\nrest")
    os.close(write)

    class Pipe:
        fileno = staticmethod(lambda: read)
        close = staticmethod(lambda: os.close(read))

    local._relay(Pipe, said.append)
    assert said == ["one", "two \ufffd[2J", " 100%", "rest"]


def test_scoring_says_how_far_it_is(monkeypatch, capsys):
    monkeypatch.setattr(tracked, "pause_before_line", lambda elapsed: -1.0)
    assert list(tracked.tracked([1, 2, 3], "scoring")) == [1, 2, 3]
    said = capsys.readouterr().err
    assert "scoring: 1/3, about 0 s left" in said
    assert "scoring: 2/3" in said


def test_the_block_leaves_room_for_what_ctrl_c_prints():
    """^C in the last column would wrap, and the next frame would leave a line behind."""
    console = terminal()
    lines = console.render_lines(Display(lambda: VIEW, console=console)._draw(), pad=False)
    assert len(lines) == 5
    assert max(sum(segment.cell_length for segment in line) for line in lines) <= 97


def test_work_that_does_not_end_in_order_says_how_far_it_is(monkeypatch, capsys):
    monkeypatch.setattr(tracked, "pause_before_line", lambda elapsed: -1.0)
    with tracked.tracker(3, "asking") as one_is_done:
        for _ in range(3):
            one_is_done()
    said = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in said] == ["asking: 1/3", "asking: 2/3"]
    assert list(tracked.tracked(iter("ab"), "pictures", 2)) == ["a", "b"]


def test_one_library_shows_progress():
    """Bars of two libraries overwrite each other."""
    root = Path(tracked.__file__).parents[2]
    code = [path for name in ("trace_bench", "evaluation") for path in (root / name).rglob("*.py")]
    assert len(code) > 100
    assert not [path for path in code if "tqdm" in path.read_text(encoding="utf-8")]


def test_the_board_knows_which_worker_makes_a_run(tmp_path):
    """Two lanes of one worker, the other has none: the time left is that of both runs."""
    runs = {tmp_path / name: Planned("sds", "gaussians", name, 1.0) for name in "ab"}
    board = Board(runs, 2, 2)
    for folder in runs:
        folder.mkdir()
        board.started(folder)
        LiveFile(folder).update(Live("distill", 10, 20, 2.0))
        (folder / CLAIM).write_text('{"pid": 7, "host": "here"}')
    steps, others = 10 / 2.0, 2 * 0.1 * 5.0  # side by side; init and renders: a tenth of each run's share
    assert board.view().left_s == pytest.approx(steps + others)
