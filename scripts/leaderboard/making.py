"""Make the runs of the leaderboard, check them, and write their rows; then judge and draw."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from evaluation.gpteval3d.truth_judge import TruthJudge
from evaluation.judge_validity.agreement import validity
from evaluation.judge_validity.figure import record
from evaluation.judge_validity.judgements import find_judged
from scripts.leaderboard.admission import check_versions, judges_of, merged, provenance, versions_of
from scripts.leaderboard.completeness import listed_methods
from scripts.leaderboard.profiles import PICTURE, picture
from scripts.leaderboard.ranking import best_first
from scripts.leaderboard.rows import FILE, Board, dumps, kept, loads, plain, with_rows
from scripts.leaderboard.sections import CONTROLS, MAIN, SECTIONS
from scripts.results.workshop import Workshop
from trace_bench.system.errors import TraceBenchError

JUDGE_METRIC = "clip_score"  # by which judge=clip compares


def make(folder: Path, output_root: Path, only: str | None, anew: bool, overrides: Sequence[str]) -> None:
    """Run and score what is missing, write the rows, then judge and draw if all methods' runs are here.

    The rows of all sections are written at once: a method has all of them or none, and no run is made while
    the checkout differs from its commit.

    Args:
        folder: holds README.md and docs/.
        only: methods, joined by commas; None for all.
        anew: leave out the rows there are.
    """

    def shop(part: str, overrides: Sequence[str] = overrides) -> Workshop:
        return Workshop(folder, output_root.absolute() / part, tuple(overrides))

    listed = tuple(listed_methods())
    methods = tuple(only.split(",")) if only else listed
    for method in methods:
        if method not in listed:
            raise TraceBenchError(
                f"{method} is not in conf/experiment/leaderboard.yaml: add it to the methods there and in "
                "conf/experiment/leaderboard_equal_work.yaml, commit that, and run this again."
            )
    board = Board() if anew else read(folder, shop(MAIN))
    sweeps = {name: section.of(methods) for name, section in SECTIONS.items()}
    sweeps = {name: sweep for name, sweep in sweeps.items() if sweep}
    for name, sweep in sweeps.items():
        shop(name).make(sweep)
    lacks_controls = "controls" not in board.sections
    if lacks_controls:
        shop("controls", ()).make(CONTROLS)
    for name, sweep in sweeps.items():
        add(board, name, shop(name), sweep)
    if lacks_controls:
        add_controls(board, shop("controls", ()))
    write(board, folder)
    here = shop(MAIN)
    if not has_every_run(here, board):
        print(
            f"The verdicts of the tiny CLIP and {folder / PICTURE} stay as they are: they need the runs of "
            f"every method under {here.output_root}."
        )
        return
    board.validity = judge(here, board)
    draw(board, here, SECTIONS[MAIN].of(tuple(best_first(board))), folder / PICTURE)
    write(board, folder)


def add(board: Board, name: str, here: Workshop, sweep: tuple[str, ...]) -> None:
    """Check the runs of a section and put their rows into the board."""
    results = here.results(sweep)
    runs = here.runs(sweep)
    versions = versions_of(runs, here.metrics) | {"judges": judges_of(results.frame, here.metrics)}
    check_versions(board, versions)
    board.versions = merged(board.versions, versions)
    board.judges |= {judge: results.judges[judge] for judge in versions["judges"].values()}
    code = provenance({run.folder.relative_to(here.output_root).as_posix(): run for run in runs})
    rows = results.frame.join(pd.DataFrame.from_dict(code, orient="index"), on="folder")
    board.sections[name] = with_rows(board.sections.get(name, rows.iloc[:0]), rows)


def add_controls(board: Board, here: Workshop) -> None:
    """The truth and the wrong assets, if they have the versions and the judges of the methods' rows."""
    frame = here.results(CONTROLS).controls
    versions = versions_of(here.runs(CONTROLS), here.metrics, weights=False)
    check_versions(board, versions | {"judges": judges_of(frame, here.metrics)})
    board.sections["controls"] = kept(frame)


def has_every_run(here: Workshop, board: Board) -> bool:
    """Whether the runs of all rows with an own budget are here, not only those of some methods."""
    mine = {run.manifest.fingerprint for run in here.done().values()}
    return set(board.sections[MAIN]["fingerprint"]) <= mine


def draw(board: Board, here: Workshop, sweep: tuple[str, ...], file: Path) -> None:
    """Draw the methods' assets."""
    frame = here.results(sweep).frame
    file.parent.mkdir(parents=True, exist_ok=True)
    azimuth = next(iter(here.config.contact_sheet.views.values()))
    picture(board, frame, here.output_root, float(azimuth)).save(file, optimize=True)


def judge(here: Workshop, board: Board) -> list[dict[str, object]]:
    """Compare the assets in pairs by the tiny CLIP, and the verdicts with the truth.

    A method that maximises the CLIP score is left out: the judge's own number is no evidence about it.
    """
    rows = set(board.sections[MAIN]["fingerprint"])
    runs = [
        run
        for run in here.done().values()
        if run.manifest.fingerprint in rows and JUDGE_METRIC not in run.manifest.reward.get("metrics", ())
    ]
    methods = sorted({run.identity.method for run in runs})
    here.command("evaluation.gpteval3d", "judge=clip", f"runs.method=[{','.join(methods)}]")
    truth = TruthJudge(here.metrics[TruthJudge.metric], float(here.config.judge_validity.tie_margin))
    found = [row for judged in find_judged(here.output_root, runs, truth) for row in validity(judged)]
    return [{key: plain(value) for key, value in record(row).items()} | {"methods": methods} for row in found]


def read(folder: Path, here: Workshop) -> Board:
    path = folder / FILE
    return loads(path.read_text(encoding="utf-8"), here.metrics) if path.is_file() else Board()


def write(board: Board, folder: Path) -> None:
    (folder / FILE).write_text(dumps(board), encoding="utf-8")
