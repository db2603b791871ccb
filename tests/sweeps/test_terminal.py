"""A sweep in a real terminal: one block, and after Ctrl-C three lines that say how to go on."""

from __future__ import annotations

import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from fcntl import ioctl
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # a whole sweep in processes of its own

CONF = str(Path(__file__).parents[1] / "conf")
COMMAND = [
    "-m", "trace_bench", "--config-dir", CONF, "-m", "prior=analytic", "representation=image",
    "log_every=1", "hydra/launcher=local", "hydra.launcher.n_jobs=2",
]  # fmt: skip
COLUMNS, LINES = 100, 24


def screen(written: str) -> list[str]:
    """What a terminal shows after this output: only what the display uses of its control sequences."""
    lines, row, column = [""], 0, 0
    for piece in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", written):
        if piece == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif piece == "\r":
            column = 0
        elif piece.startswith("\x1b["):
            count = int(re.search(r"\d*", piece[2:])[0] or 1)
            if piece[-1] == "A":
                row = max(0, row - count)
            elif piece[-1] == "K":
                lines[row] = ""
        else:
            lines[row] = lines[row][:column].ljust(column) + piece + lines[row][column + len(piece) :]
            column += len(piece)
    return [line.rstrip() for line in lines if line.strip()]


def test_the_screen_of_a_display_by_hand():
    assert screen("a\r\nold\r\x1b[2Knew\r\n\x1b[1A\x1b[2Kb\r\n") == ["a", "b"]


def in_a_terminal(*overrides: str, ctrl_c_when: Callable[[], bool] = lambda: False) -> tuple[int, str]:
    """Run a sweep in a terminal, with Ctrl-C once; returns its exit code and all that it wrote."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "TERM": "xterm-256color"}
    for name in ("COLUMNS", "LINES"):
        environment.pop(name, None)
    with subprocess.Popen(
        [sys.executable, *COMMAND, *overrides], stdin=theirs, stdout=theirs, stderr=theirs, env=environment,
        start_new_session=True, preexec_fn=lambda: ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
    ) as process:  # fmt: skip
        os.close(theirs)
        written, asked, deadline = b"", False, time.monotonic() + 240
        while time.monotonic() < deadline:
            try:
                chunk = os.read(ours, 2**16)
            except OSError:  # the terminal is closed
                break
            if not chunk:
                break
            written += chunk
            if not asked and ctrl_c_when():
                time.sleep(1.0)
                os.write(ours, b"\x03")  # as the keyboard does
                asked = True
        code = process.wait(timeout=60)
    os.close(ours)
    return code, written.decode(errors="replace")


def test_ctrl_c_leaves_a_clean_screen_and_says_how_to_go_on(tmp_path):
    code, written = in_a_terminal(
        "method=sds", "prompt=0-3", "lanes=1", "steps=200000", f"output_root={tmp_path}",
        ctrl_c_when=lambda: len(list(tmp_path.rglob("metrics.jsonl"))) == 2,
    )  # fmt: skip
    assert code == 128 + signal.SIGINT
    shown = screen(written)
    text = " ".join(line for line in shown if "^C" not in line)
    assert re.search(r"SIGINT: stopping after this step, with a checkpoint", text)
    assert text.count("Interrupted: ") == 2, text  # the runs
    assert text.count("Stopped: ") == 1, text  # the first of three lines
    assert not [line for line in shown if "━" in line or "running" in line], shown
    assert "Stopped: 0 of 4 assets are done, 0 failed; see " in text, shown[-12:]
    end = text[text.index("Stopped: 0 of 4") :]
    assert "2 interrupted, with checkpoints; 2 not started." in end
    assert end.index("The same command continues: ") > end.index("2 interrupted")
    assert "Traceback" not in text


@pytest.mark.long
def test_a_sweep_of_24_runs_shows_one_block_and_leaves_only_what_it_said(tmp_path):
    code, written = in_a_terminal(
        "method=sds,vsd,trace", "prompt=0-3", "seed=0,1", "steps=60", f"output_root={tmp_path}"
    )
    assert code == 0
    frames = [match.start() for match in re.finditer(r"\d+/24 done, \d+ running", written)]
    assert len(frames) > 5
    for end in frames[:: max(1, len(frames) // 12)]:
        shown = screen(written[: written.index("\n", end)])
        assert sum("/24 done" in line for line in shown) == 1, shown
    shown = screen(written)
    done = [line for line in shown if line.startswith("Done: ")]
    assert len(done) == 24, shown
    assert all(re.fullmatch(r"Done: (sds|vsd|trace), .+ \(\d+ s\)", line) for line in done), done
    assert [line for line in shown if "/24 done" in line] == [
        line for line in shown if re.fullmatch(r"24/24 done in \d+ s", line)
    ]
    assert sum(line.startswith("Images of 24 of 24 assets") for line in shown) == 1
    assert not [line for line in shown if "━" in line or "running" in line or "Traceback" in line], shown
    assert max(map(len, done)) <= COLUMNS
