"""Answer files that raters download from the page, checked against the study's key."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluation.user_study.aspects import ASPECT_IDS, CHOICES
from evaluation.user_study.page import FORMAT
from evaluation.user_study.study import Study
from evaluation.user_study.tokens import is_signed
from trace_bench.system.errors import UNREADABLE, TraceBenchError
from trace_bench.system.files import write_atomic
from trace_bench.system.text import one_line

ANSWERS = "answers"
SCHEMA_VERSION = 2
HEAD = ("format", "schema_version", "study", "rater", "session", "started", "saved", "finished")
MAX_BYTES = 8_000_000
_LONGEST_MS = 10**10


@dataclass(frozen=True)
class Answer:
    """The answers to one screen."""

    trial: int
    left: str  # file names of the clips
    right: str
    choices: dict[str, str]  # aspect -> left, tie, right, unknown
    ms: int


@dataclass(frozen=True)
class Answers:
    """A valid answer file."""

    rater: str
    session: str
    saved: str
    finished: bool
    answers: list[Answer]
    text: str

    def by_trial(self) -> dict[int, dict[str, str]]:
        return {answer.trial: answer.choices for answer in self.answers}


@dataclass
class Imported:
    """Result of an import."""

    added: list[str] = field(default_factory=list)  # raters
    renewed: list[str] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def signed_text(content: Mapping[str, Any]) -> str:
    """Head and answers as the text that is signed, the same as on the page (assets/session.js)."""
    head = [
        ("true" if content[name] else "false") if name == "finished" else str(content[name]) for name in HEAD
    ]
    lines = ["|".join(head)]
    for a in content["answers"]:
        choices = [str(a["choices"][aspect]) for aspect in ASPECT_IDS]
        lines.append("|".join([str(a["trial"]), str(a["left"]), str(a["right"]), *choices, str(a["ms"])]))
    return "\n".join(lines)


def parse(path: Path, study: Study) -> Answers:
    """Read an answer file.

    Raises: TraceBenchError if it is not an answer file, belongs to another study, is not signed with the
        rater's token, or answers screens that the rater was not given.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError("it is too large")
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
        if content["format"] != FORMAT or content["schema_version"] != SCHEMA_VERSION:
            raise ValueError("unknown format or schema_version")
        answers = [_answer(entry) for entry in content["answers"]]
        text_signed, signature = signed_text(content), content["signature"]
        head = [content[name] for name in ("study", "rater", "session", "saved")]
        if not all(isinstance(value, str) and value for value in head):
            raise ValueError("study, rater, session and saved must be non-empty strings")
        if not isinstance(signature, str):
            raise ValueError("signature must be a string")
    except (OSError, *UNREADABLE, KeyError, TypeError, AttributeError) as error:
        said = str(error).rstrip(".")
        raise TraceBenchError(
            f"{path} is not a valid answer file ({said}): ask the rater to send it again."
        ) from error
    if content["study"] != study.study_id:
        raise TraceBenchError(
            f"{path} belongs to study {content['study']}, not {study.study_id}: choose it with study=NAME."
        )
    rater = content["rater"]
    if rater not in study.tokens:
        raise TraceBenchError(
            f"{path} is by {one_line(rater, 40)}, who is not a rater of this study: see raters.csv."
        )
    if not is_signed(study.tokens[rater], text_signed, signature):
        raise TraceBenchError(
            f"{path} is not signed with the token of rater {rater}: it was changed after it was saved, or "
            "is by "
            "somebody else; ask the rater to send the downloaded file."
        )
    _check_against(path, study, content["rater"], answers)
    finished = len(answers) == len(study.trials[content["rater"]])
    return Answers(content["rater"], content["session"], content["saved"], finished, answers, text)


def _answer(entry: Mapping[str, Any]) -> Answer:
    choices = {str(aspect): str(choice) for aspect, choice in entry["choices"].items()}
    if set(choices) != set(ASPECT_IDS) or not set(choices.values()) <= set(CHOICES):
        raise ValueError(f"screen {entry['trial']} has invalid choices")
    for name in ("trial", "ms"):
        if not isinstance(entry[name], int) or isinstance(entry[name], bool) or entry[name] < 0:
            raise ValueError(f"{name} must be an integer of at least 0")
    if entry["ms"] > _LONGEST_MS:
        raise ValueError("ms is too large")
    return Answer(entry["trial"], str(entry["left"]), str(entry["right"]), choices, entry["ms"])


def _check_against(path: Path, study: Study, rater: str, answers: list[Answer]) -> None:
    """Check that the rater was given these screens, each once."""
    trials, seen = study.trials[rater], set()
    for answer in answers:
        if answer.trial in seen:
            raise TraceBenchError(
                f"{path} answers screen {answer.trial} twice: ask the rater to send the file again."
            )
        seen.add(answer.trial)
        given = None
        if answer.trial < len(trials):
            trial = trials[answer.trial]
            given = (study.clip(trial.prompt, trial.left), study.clip(trial.prompt, trial.right))
        if (answer.left, answer.right) != given:
            raise TraceBenchError(
                f"{path} answers a screen {answer.trial} that rater {rater} was not given: "
                "the file was edited, or the page belongs to another version of the study."
            )


def import_answers(source: Path, study: Study, folder: Path) -> Imported:
    """Import a file, or the JSON files of a folder, into the study's answers/.

    A later file of the same session replaces the earlier one; a second session of a rater is rejected.
    """
    if source.is_dir():
        files = sorted(source.glob("*.json"))
    elif source.is_file():
        files = [source]
    else:
        raise TraceBenchError(
            f"There is no file or folder {source}: set answers= to the raters' answer files."
        )
    if not files:
        raise TraceBenchError(f"{source} has no .json files: set answers= to the raters' answer files.")
    target, imported = folder / ANSWERS, Imported()
    target.mkdir(exist_ok=True)
    for file in files:
        try:
            _take(parse(file, study), file, target, study, imported)
        except TraceBenchError as error:
            imported.problems.append(str(error))
    return imported


def _take(new: Answers, file: Path, target: Path, study: Study, imported: Imported) -> None:
    path = target / f"{new.rater}.json"
    if not path.exists():
        imported.added.append(new.rater)
        write_atomic(path, new.text)
        return
    try:
        old = parse(path, study)
    except TraceBenchError:  # not the rater's: whoever put it there must not keep the rater out
        imported.renewed.append(new.rater)
        write_atomic(path, new.text)
        return
    if old.session != new.session:
        raise TraceBenchError(
            f"{file} is a second session of rater {new.rater}, who has already answered: "
            f"only one counts, so remove this file, or remove {path} to count this one instead."
        )
    if new.saved > old.saved and new.answers != old.answers:
        imported.renewed.append(new.rater)
        write_atomic(path, new.text)
    else:
        imported.known.append(new.rater)


def load_answers(study: Study, folder: Path) -> tuple[list[Answers], list[str]]:
    """The imported answers, sorted by rater and checked again; and what is wrong with the others."""
    answers, problems = [], []
    for path in sorted((folder / ANSWERS).glob("*.json")):
        try:
            found = parse(path, study)
            if path.stem != found.rater:
                raise TraceBenchError(f"{path} is by rater {found.rater}: import it with mode=import.")
            answers.append(found)
        except TraceBenchError as error:
            problems.append(str(error))
    return answers, problems
