"""Make the leaderboard of the toy world, or add the rows of some methods to it.

    make leaderboard                    # every method of conf/experiment/leaderboard.yaml
    make leaderboard METHODS=mine       # only a new method: its runs, its scores, its rows, the pages
    make leaderboard METHODS=mine SECTIONS=guidance,inits  # ... and what it is sensitive to
    python scripts/make_leaderboard.py --pages  # no runs: the tables from the rows there are
    python scripts/make_leaderboard.py --check  # the rows are sound, and the pages follow from them

Finished runs are kept under outputs/leaderboard, so the command continues where it stopped. A method's rows
of a section enter docs/leaderboard.json only if every run is finished and scored, was made from committed
code, and has the versions of the other rows. Where settings vary, a run that fails by its method or settings
is a result too, and the page says it. Tables in docs/ and README.md are made from that file alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from evaluation.figures.base import NothingToDraw
from scripts.leaderboard.completeness import lacking_sections, pending, problems
from scripts.leaderboard.figures import FIGURES, save_png
from scripts.leaderboard.making import make, read
from scripts.leaderboard.page import BLOCKS, EMPTY
from scripts.leaderboard.profiles import picture_of
from scripts.leaderboard.rows import FILE, Board
from scripts.leaderboard.sections import COMPARISON, MAIN, SECTIONS
from scripts.results.decisions import prompts_needed_block
from scripts.results.document import blocks as blocks_of
from scripts.results.document import replace_block
from scripts.results.workshop import ROOT, Workshop
from trace_bench.system.errors import TraceBenchError

STATISTICS = ("docs/statistics.md", "prompts-needed")  # a block that comes from the same file


def options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make_leaderboard.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", metavar="A,B", help="only these methods; the rows of others stay")
    parser.add_argument(
        "--sections",
        type=_sections,
        default=",".join(COMPARISON),
        metavar="A,B",
        help=f"what to make: of {', '.join(SECTIONS)} (%(default)s)",
    )
    parser.add_argument("--pages", action="store_true", help="make no runs, only the pages")
    parser.add_argument(
        "--check",
        action="store_true",
        help="make nothing; fail if a method lacks some rows or a page differs",
    )
    parser.add_argument(
        "--anew", action="store_true", help="leave out the rows there are, whatever their versions"
    )
    runs = ROOT / "outputs" / "leaderboard"
    parser.add_argument("--output-root", type=Path, default=runs, metavar="FOLDER",
                        help="where the runs are (outputs/leaderboard)")  # fmt: skip
    parser.add_argument(
        "--folder", type=Path, default=ROOT, metavar="FOLDER", help="holds README.md and docs/"
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE",
                        help="a setting for every run, for a quick trial with --folder")  # fmt: skip
    chosen = parser.parse_args(arguments)
    if chosen.overrides and chosen.folder.resolve() == ROOT:
        parser.error(
            f"{chosen.overrides[0]} would change the leaderboard, so name a copy of the pages with --folder."
        )
    if chosen.anew and chosen.methods:
        parser.error("--anew drops the rows of all methods, so leave out --methods.")
    return chosen


def _sections(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in SECTIONS:
            raise argparse.ArgumentTypeError(f"{name} is none of {', '.join(SECTIONS)}")
    return names


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = options(sys.argv[1:] if arguments is None else arguments)
    try:
        if not (chosen.check or chosen.pages):
            make(
                chosen.folder,
                chosen.output_root,
                chosen.methods,
                chosen.sections,
                chosen.anew,
                chosen.overrides,
            )
        return write_pages(chosen.folder, chosen.check)
    except TraceBenchError as error:
        print(error, file=sys.stderr)
        return 2


def write_pages(folder: Path, check: bool) -> int:
    """Make the blocks again; with `check`, return 1 if one differs or the file lacks rows."""
    here = Workshop(folder, folder)
    if not (folder / FILE).is_file():
        return _without_rows(folder, check)
    board, differing = read(folder, here), []
    if missing := lacking_sections(board):
        raise TraceBenchError(f"{' '.join(missing)} Take the file again from git, or make it with --anew.")
    lacking = problems(board, here.metrics) if check else []
    blocks: Mapping[tuple[str, str], Callable[[str], str]] = {
        **{key: partial(_instead, block(board, here.metrics)) for key, block in BLOCKS.items()},
        STATISTICS: partial(prompts_needed_block, here),
    }
    for (page, name), make_block in blocks.items():
        path = folder / page
        before = path.read_text(encoding="utf-8")
        after = replace_block(before, name, make_block)
        if after != before:
            differing.append(f"{page}: {name}")
            if not check:
                path.write_text(after, encoding="utf-8")
    if not check:
        for file, (section, draw) in FIGURES.items():
            if section in board.sections:
                try:
                    save_png(draw(board, here.metrics), folder / file)
                except NothingToDraw as error:  # a trial of some prompts
                    print(f"{file} stays as it is. {error}")
    lacking += [f"{name} is missing." for name in pictures(board) if check and not (folder / name).is_file()]
    words = ["Differs:" if check else "Changed:", *differing] if differing else ["Pages are up to date."]
    print("\n".join([*lacking, *(f"Not made yet, {text}" for text in pending(board)), *words]))
    return 1 if check and (differing or lacking) else 0


def pictures(board: Board) -> list[Path]:
    """The files that the pages show."""
    figures = [file for file, (section, _) in FIGURES.items() if section in board.sections]
    return [*figures, *map(picture_of, sorted(set(map(str, board.sections[MAIN]["method"]))))]


def _without_rows(folder: Path, check: bool) -> int:
    """Before there is a file, all blocks must be empty."""
    for page, name in BLOCKS:
        text = blocks_of((folder / page).read_text(encoding="utf-8")).get(name, "")
        if not check or not text.startswith(EMPTY):
            raise TraceBenchError(
                f"{folder / FILE} does not exist, but {page} has rows in {name}: take the file from git, or "
                "make it with `make leaderboard`."
                if check
                else f"{folder / FILE} does not exist: `make leaderboard` makes it."
            )
    print(f"There are no rows yet: {FILE} does not exist, and all tables are empty.")
    return 0


def _instead(made: str, _old: str) -> str:
    return made


if __name__ == "__main__":
    sys.exit(main())
