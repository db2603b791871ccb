"""Small studies for the tests: run folders with turntables, and answer files as the page writes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from run_folders import write_run

from evaluation.user_study.answers import signed_text
from evaluation.user_study.aspects import ASPECT_IDS
from evaluation.user_study.page import FORMAT
from evaluation.user_study.scramble import write_film
from evaluation.user_study.study import INSTRUCTED, SCRAMBLED, Study, Trial
from evaluation.user_study.tokens import sign

PROMPTS = ("a red cube", "a blue torus", "a <!-- <script> & '<b>duck", "a green cone")
METHODS = ("trace", "sds", "vsd")
FRAMES = 24


def film(
    path: Path, colour: tuple[int, int, int], phase: float, size: int = 64, seconds: float = 1.0
) -> Path:
    """A disc that goes round once, on white."""
    y, x = np.mgrid[:size, :size] / size
    frames = []
    for angle in phase + 2 * np.pi * np.arange(FRAMES) / FRAMES:
        disc = (x - 0.5 - 0.25 * np.cos(angle)) ** 2 + (y - 0.5 - 0.25 * np.sin(angle)) ** 2 < 0.04
        frames.append(np.where(disc[..., None], colour, 255).astype(np.uint8))
    write_film(np.stack(frames), FRAMES / seconds, path)
    return path


def write_runs(root: Path, methods=METHODS, prompts=PROMPTS, **identity) -> list[Path]:
    """A finished run with a turntable for each method and prompt."""
    folders = []
    for m, method in enumerate(methods):
        for i, prompt in enumerate(prompts):
            folder = write_run(root, method=method, prompt_id=str(i), prompt=prompt, **identity)
            film(folder / "turntable.mp4", (60 * m, 80 * (i % 3), 120), 0.7 * i)
            folders.append(folder)
    return folders


Choose = Callable[[Trial, str], str]  # (screen, aspect) -> left, tie, right, unknown


def attentive(ours: str = "trace") -> Choose:
    """A rater who reads, looks, and always prefers our method."""

    def choose(trial: Trial, aspect: str) -> str:
        if trial.kind in {INSTRUCTED, SCRAMBLED}:
            return trial.expected
        return "left" if trial.left == ours else "right"

    return choose


def answer_file(
    path: Path,
    study: Study,
    rater: str,
    choose: Choose,
    *,
    upto: int | None = None,
    session: str = "ab12",
    head: Mapping[str, Any] | None = None,
    token: str | None = None,
) -> Path:
    """What the page downloads."""
    answers = [
        {
            "trial": i,
            "left": study.clip(trial.prompt, trial.left),
            "right": study.clip(trial.prompt, trial.right),
            "choices": {aspect: choose(trial, aspect) for aspect in ASPECT_IDS},
            "ms": 4000 + i,
        }
        for i, trial in enumerate(study.trials[rater][:upto])
    ]
    content = {
        "format": FORMAT,
        "schema_version": 2,
        "study": study.study_id,
        "rater": rater,
        "session": session,
        "started": "2026-01-01T10:00:00.000Z",
        "saved": f"2026-01-01T11:00:{len(answers):02d}.000Z",
        "finished": len(answers) == len(study.trials[rater]),
        "answers": answers,
    } | dict(head or {})
    path.parent.mkdir(parents=True, exist_ok=True)
    signature = sign(token or study.tokens.get(content["rater"], ""), signed_text(content))
    path.write_text(json.dumps(content | {"signature": signature}))
    return path
