"""The page's clips: turntables under opaque names, and scrambled copies."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from evaluation.user_study.ordering import digest, shuffled
from evaluation.user_study.scramble import write_scrambled
from evaluation.user_study.selection import FILM, StudyPrompt
from evaluation.user_study.study import CLIPS, PAGE, SCRAMBLED, Clip, Study
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.files import write_atomic

DATE = 1_600_000_000  # the same for all clips; real dates would reveal which belong together


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def opaque(key: str, prompt: int, name: str) -> str:
    """A clip's file name, meaningless without the key."""
    return f"{digest(key, 'clip', prompt, name)[:16]}.mp4"


def add_scrambled(study: Study, prompts: Sequence[StudyPrompt], folder: Path) -> list[tuple[int, str]]:
    """Create as many scrambled clips as a rater sees, from randomly chosen assets.

    Returns: (prompt index, method) of each.
    """
    target = folder / PAGE / CLIPS
    target.mkdir(parents=True, exist_ok=True)
    made: list[tuple[int, str]] = []
    for place in shuffled(range(len(prompts)), study.key, "scrambled"):
        if len(made) >= study.settings["attention"]["scrambled"]:
            break
        method = shuffled(study.methods, study.key, "scrambled", place)[0]
        path = target / opaque(study.key, place, SCRAMBLED)
        film = prompts[place].runs[method].folder / FILM
        if write_scrambled(film, path, digest(study.key, "scramble", place)):
            whole = study.clips[f"{place}/{method}"]
            study.clips[f"{place}/{SCRAMBLED}"] = Clip(path.name, sha256(path), whole.run, whole.fingerprint)
            made.append((place, method))
    return made


def copy_clips(study: Study, root: Path, folder: Path) -> None:
    """Copy missing clips to the page and delete unused ones."""
    target = folder / PAGE / CLIPS
    target.mkdir(parents=True, exist_ok=True)
    names = {clip.file for clip in study.clips.values()}
    for stray in target.iterdir():
        if stray.name not in names:
            stray.unlink()
    for name, clip in study.clips.items():
        path = target / clip.file
        if not path.is_file() or sha256(path) != clip.sha256:
            if name.endswith(f"/{SCRAMBLED}"):
                raise TraceBenchError(f"{path} is missing or damaged: make the study again with force=true.")
            write_atomic(path, (root / clip.run / FILM).read_bytes())
        os.utime(path, (DATE, DATE))
