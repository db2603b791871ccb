"""`python -m evaluation.user_study`: make a study, import the raters' answers, compute preferences."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from evaluation.command import command, output_root
from evaluation.results.csv_text import csv_text
from evaluation.user_study.answers import Answers, import_answers, load_answers
from evaluation.user_study.make import make
from evaluation.user_study.report import markdown, summary
from evaluation.user_study.results import (
    PREFERENCES,
    describe,
    describe_votes,
    dropped_by_column,
    dropped_of,
    preferences,
    sources,
)
from evaluation.user_study.study import load_study
from evaluation.user_study.votes import VOTES, read_votes, votes_of
from trace_bench.run_folder.index import read_index
from trace_bench.system.config_path import conf_dir
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.files import write_atomic, write_json


def run_make(config: dict[str, Any], root: Path, folder: Path) -> int:
    index = read_index(root)
    runs, problems = list(index.runs.values()), index.problems
    make([run for run in runs if run.manifest.status == "done"], root, folder, config, print)
    for problem in problems:
        print(f"Problem: {problem}", file=sys.stderr)
    return 1 if problems else 0


def run_import(config: dict[str, Any], root: Path, folder: Path) -> int:
    study = load_study(folder)
    if not config["answers"]:
        raise TraceBenchError("mode=import needs answers=FILE_OR_FOLDER with the raters' answer files.")
    done = import_answers(Path(str(config["answers"])).expanduser(), study, folder)
    print(f"{len(done.added)} raters added, {len(done.renewed)} updated, {len(done.known)} unchanged.")
    for problem in done.problems:
        print(f"Problem: {problem}", file=sys.stderr)
    code = 0
    if load_answers(study, folder)[0]:
        code = run_results(config | {"votes": None}, root, folder)
    return 1 if done.problems else code


def run_results(config: dict[str, Any], root: Path, folder: Path) -> int:
    settings, problems = config["bootstrap"], list[str]()
    if config["votes"]:
        path, answers = Path(str(config["votes"])).expanduser(), list[Answers]()
        votes = read_votes(path)
        if votes.empty:
            raise TraceBenchError(f"{path} holds no judgements.")
        about, dropped = describe_votes(votes, folder.name, config["baselines"]), dropped_by_column(votes)
        folder.mkdir(parents=True, exist_ok=True)
    else:
        study, path = load_study(folder), folder / VOTES
        answers, problems = load_answers(study, folder)
        for problem in problems:
            print(f"Problem: {problem}", file=sys.stderr)
        if not any(file.answers for file in answers):
            raise TraceBenchError(
                f"No answers have been imported into {folder}: use mode=import answers=FILE_OR_FOLDER first."
            )
        made = votes_of(study, answers)
        write_atomic(path, csv_text(made))
        votes, about, dropped = read_votes(path), describe(study, folder.name), dropped_of(study, answers)
    result = preferences(
        votes,
        dropped,
        about,
        sources(folder, path, answers),
        int(settings["replicates"]),
        int(settings["seed"]),
    )
    write_json(folder / PREFERENCES, result)
    print(f"\n{markdown(result)}")
    for line in summary(result):
        print(line)
    print(f"\nWritten: {folder / PREFERENCES}")
    return 1 if problems else 0


MODES = {"make": run_make, "import": run_import, "results": run_results}


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="user_study")
@command
def main(config: DictConfig) -> int:
    settings: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    name = str(settings["study"])
    if settings["mode"] not in MODES:
        raise TraceBenchError(f"mode must be one of {', '.join(MODES)}, but is {settings['mode']!r}.")
    if not name or name != Path(name).name or name.startswith("."):
        raise TraceBenchError(f"study must be the name of a folder, not {name!r}.")
    root = output_root(config)
    return MODES[settings["mode"]](settings, root, root / "user_study" / name)


if __name__ == "__main__":
    main()
