"""Make the runs of the leaderboard, check them, write their rows and draw their pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from PIL import Image

from evaluation.results.variants import flat_config
from scripts.leaderboard.admission import check_versions, judges_of, merged, provenance, versions_of
from scripts.leaderboard.completeness import listed_methods
from scripts.leaderboard.profiles import picture, picture_of
from scripts.leaderboard.rows import FILE, Board, Failed, dumps, kept, loads, with_rows
from scripts.leaderboard.sections import COMPARISON, CONTROLS, MAIN, SECTIONS
from scripts.results.workshop import Workshop
from trace_bench.run_folder.reading import Run, natural
from trace_bench.system.errors import TraceBenchError


def make(
    folder: Path,
    output_root: Path,
    only: str | None,
    names: Sequence[str],
    anew: bool,
    overrides: Sequence[str],
) -> None:
    """Run and score what is missing, section by section, then write the rows of all sections that are whole.

    A section has all rows of a method or none. Rows are written at the end, also after an error or Ctrl-C,
    and not earlier: a changed file would be a difference to the commit, and later runs would be refused.

    Args:
        folder: holds README.md and docs/.
        only: methods, joined by commas; None for all.
        names: sections to make.
        anew: leave out the rows there are.
    """

    def shop(part: str, overrides: Sequence[str] = overrides) -> Workshop:
        failures = part in SECTIONS and part not in COMPARISON
        return Workshop(folder, output_root.absolute() / part, tuple(overrides), failures=failures)

    listed = tuple(listed_methods())
    methods = tuple(only.split(",")) if only else listed
    for method in methods:
        if method not in listed:
            raise TraceBenchError(
                f"{method} is not in conf/experiment/leaderboard.yaml: add it to the methods there and in "
                "conf/experiment/leaderboard_equal_work.yaml, commit that, and run this again."
            )
    board = Board() if anew else read(folder, shop(MAIN))
    drawn: dict[Path, Image.Image] = {}
    try:
        if "controls" not in board.sections:
            here = shop("controls", ())
            here.make(CONTROLS)
            add_controls(board, here)
        for name in names:
            if sweep := SECTIONS[name].of(methods):
                here = shop(name)
                here.make(sweep)
                add(board, name, here, sweep)
                if name == MAIN:
                    drawn = draw(here, sweep)
    finally:
        if MAIN in board.sections:
            write(board, folder, drawn)


def add(board: Board, name: str, here: Workshop, sweep: tuple[str, ...]) -> None:
    """Check the runs of a section and put their rows into the board."""
    results = here.results(sweep)
    runs, failed = here.runs(sweep), here.failed(sweep)
    every = [*runs, *(run for run, _ in failed.values())]
    versions_of(every, here.metrics, weights=False)  # a failed run does not say those of its prior
    versions = versions_of(runs, here.metrics) | {"judges": judges_of(results.frame, here.metrics)}
    check_versions(board, versions)
    board.versions = merged(board.versions, versions)
    board.judges |= {judge: results.judges[judge] for judge in versions["judges"].values()}
    code = provenance({run.folder.relative_to(here.output_root).as_posix(): run for run in every})
    rows = results.frame.join(pd.DataFrame.from_dict(code, orient="index"), on="folder")
    by = SECTIONS[name].by
    if by and by not in rows:
        rows[by] = [_setting(here.output_root / folder, by) for folder in rows["folder"]]
    board.sections[name] = with_rows(board.sections.get(name, rows.iloc[:0]), rows)
    made = {run.identity.method for run in every}
    board.failures = [one for one in board.failures if one.section != name or one.method not in made]
    board.failures += [
        Failed(
            name, run.identity.method, run.identity.prompt_id, run.identity.seed, _value(run, by), why,
            run.manifest.fingerprint, code[folder]["commit"],
        )
        for folder, (run, why) in failed.items()
    ]  # fmt: skip
    board.failures.sort(
        key=lambda one: (one.section, one.method, natural(one.prompt_id), one.seed, one.value)
    )


def _value(run: Run, by: str | None) -> str:
    """The setting that a section varies, as the experiment has it."""
    found = getattr(run.identity, by, None) if by else ""
    if found is None:
        return _setting(run.folder, str(by))
    return f"{found:g}" if isinstance(found, float) else str(found)


def _setting(folder: Path, key: str) -> str:
    return flat_config(folder / "config.yaml")[key]


def add_controls(board: Board, here: Workshop) -> None:
    """The truth and the wrong assets, if they have the versions and the judges of the methods' rows."""
    frame = here.results(CONTROLS).controls
    versions = versions_of(here.runs(CONTROLS), here.metrics, weights=False)
    versions |= {"judges": judges_of(frame, here.metrics)}
    check_versions(board, versions)
    board.versions = merged(board.versions, versions)
    board.sections["controls"] = kept(frame)


def draw(here: Workshop, sweep: tuple[str, ...]) -> dict[Path, Image.Image]:
    """A picture of each method's assets, by its file."""
    azimuth = float(next(iter(here.config.contact_sheet.views.values())))
    return {
        picture_of(str(method)): picture(rows, here.output_root, azimuth)
        for method, rows in here.results(sweep).frame.groupby("method", observed=True)
    }


def read(folder: Path, here: Workshop) -> Board:
    path = folder / FILE
    return loads(path.read_text(encoding="utf-8"), here.metrics) if path.is_file() else Board()


def write(board: Board, folder: Path, drawn: Mapping[Path, Image.Image]) -> None:
    for file, image in drawn.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        image.save(folder / file, optimize=True)
    (folder / FILE).write_text(dumps(board), encoding="utf-8")
