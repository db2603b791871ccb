"""Finished runs with small pictures of one colour each, and calls of the command."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from PIL import Image
from run_folders import write_run

ROOT = Path(__file__).resolve().parents[3]
PROMPTS = ["a red cube", "a duck", "a tree"]
METHODS = ("sds", "vsd", "trace")
VIEWS, PX = 9, 8
TIMEOUT_S = 6  # long enough for a busy machine: only unserved requests time out
KEY = "sk-test-0123456789abcdefghijkl"
STARTED: list[subprocess.Popen[str]] = []  # so that a failing test leaves no process behind


def make_runs(root: Path, methods=METHODS, prompts=PROMPTS, **identity: Any) -> Path:
    for method in methods:
        for i, prompt in enumerate(prompts):
            folder = write_run(
                root, method=method, prompt_id=str(i), prompt=prompt, count=len(prompts), **identity
            )
            draw_views(folder / "renders", f"{method} {prompt}")
    return root


def draw_views(folder: Path, seed: str, views: int = VIEWS, mode: str = "RGB") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(views):
        for kind in ("rgb", "normal"):
            colour = tuple(hashlib.sha256(f"{seed} {kind} {i}".encode()).digest()[: len(mode)])
            Image.new(mode, (PX, PX), colour).save(folder / f"{kind}_{i}.png")


def arguments(url: str, *more: str, prompts: int = 1) -> list[str]:
    """Overrides for a quick judge: small pictures, short delays, one answer per question."""
    return [
        f"judge.base_url={url}", "judge.api_key_env=TEST_JUDGE_KEY", "judge.choices=1", "judge.tile_px=8",
        f"judge.timeout_s={TIMEOUT_S}", "judge.backoff_s=0.02", "judge.backoff_max_s=0.1",
        f"runs.prompts={prompts}", *more,
    ]  # fmt: skip


def start(outputs: Path, *overrides: str) -> subprocess.Popen[str]:
    """Start the command in a subprocess."""
    environment = os.environ | {"TEST_JUDGE_KEY": KEY, "OPENAI_API_KEY": "sk-not-for-strangers-987654321"}
    command = [sys.executable, "-m", "evaluation.gpteval3d", f"output_root={outputs}", *overrides]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    STARTED.append(process)
    return process


def only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def result(outputs: Path) -> dict[str, Any]:
    """The only tournament of the only judge."""
    content = json.loads(only(outputs, "gpteval3d/*/elo.json").read_text())
    (tournament,) = content["tournaments"]
    return tournament | {"judge": content["judge"]}


def scores(tournament: dict[str, Any]) -> dict[tuple[str, str], float | None]:
    return {(row["contestant"], row["criterion"]): row["elo"] for row in tournament["rows"]}


def events(outputs: Path, kind: str | None = None) -> list[dict[str, Any]]:
    lines = only(outputs, "gpteval3d/*/answers.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    return [event for event in found if kind in (None, event["event"])]
