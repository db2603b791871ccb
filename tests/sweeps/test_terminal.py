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
from fcntl import ioctl
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # a whole sweep in processes of its own

CONF = str(Path(__file__).parents[1] / "conf")
COMMAND = [
    "-m", "trace_bench", "--config-dir", CONF, "-m", "prior=analytic", "representation=image",
    "method=sds", "prompt=0-3", "log_every=1", "hydra/launcher=local", "hydra.launcher.n_jobs=2", "lanes=1",
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


def test_ctrl_c_leaves_a_clean_screen_and_says_how_to_go_on(tmp_path):
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    command = [sys.executable, *COMMAND, "steps=200000", f"output_root={tmp_path}"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "TERM": "xterm-256color"}
    for name in ("COLUMNS", "LINES"):
        environment.pop(name, None)
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True,
        preexec_fn=lambda: ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
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
            if not asked and len(list(tmp_path.rglob("metrics.jsonl"))) == 2:
                time.sleep(1.0)
                os.write(ours, b"\x03")  # as the keyboard does
                asked = True
        code = process.wait(timeout=60)
    os.close(ours)
    assert asked
    assert code == 128 + signal.SIGINT
    shown = screen(written.decode(errors="replace"))
    text = " ".join(line for line in shown if "^C" not in line)
    assert re.search(r"SIGINT: stopping after this step, with a checkpoint", text)
    assert text.count("Stopped: ") == 3, text  # two runs, and the first of three lines
    assert not [line for line in shown if "━" in line or "running" in line], shown
    assert "Stopped: 0 of 4 assets are done, 0 failed; see " in text, shown[-12:]
    end = text[text.index("Stopped: 0 of 4") :]
    assert "2 interrupted, with checkpoints; 2 not started." in end
    assert end.index("The same command continues: ") > end.index("2 interrupted")
    assert "Traceback" not in text
