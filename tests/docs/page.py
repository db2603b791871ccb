"""A page of docs/ as the tests run it: its files, its commands, and an empty folder to run them in."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
QUICK = ["steps=4", "rig.n_views=8", "rig.resolution=16", "resolution=24", "device=cpu"]


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the heading that it stands under."""

    language: str
    text: str
    heading: str

    @property
    def path(self) -> str:
        """The file that the heading names."""
        return re.findall(r"`(.+?)`", self.heading)[-1]


class Page:
    """docs/<name>.md."""

    def __init__(self, name: str) -> None:
        text = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
        self.blocks: list[Block] = []
        heading = ""
        for found in re.finditer(r"^#+ ([^\n]+)$|^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            heading = found[1] or heading
            if found[2]:
                self.blocks.append(Block(found[2], found[3], heading))

    def under(self, heading: str) -> Block:
        """The one block under the heading that begins like this."""
        (found,) = [block for block in self.blocks if block.heading.startswith(heading)]
        return found

    def write(self, folder: Path) -> list[str]:
        """Write the files of steps 1 and 2 into a folder; returns all that is in it."""
        for step in ("1. The file", "2. The YAML"):
            block = self.under(step)
            path = folder / block.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def run(folder: Path, command: str, *more: str) -> subprocess.CompletedProcess[str]:
    """A command of a page, in that folder; runs are short."""
    python, *arguments = shlex.split(command)
    if (python, arguments[0]) == ("trace-bench", "check"):
        arguments[:1] = ["-m", "evaluation.check"]
    else:
        assert (python, arguments[0]) == ("python", "-m")
    quick = QUICK if arguments[1] == "trace_bench" else []
    return subprocess.run(
        [sys.executable, *arguments, *quick, *more],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
