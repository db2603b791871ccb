"""Make the leaderboard of the toy world, or add the rows of some methods to it.

    make leaderboard                    # every method of conf/experiment/leaderboard.yaml: 5 hours, two cores
    make leaderboard METHODS=mine       # only a new method: its runs, its scores, its rows, the pages
    python scripts/make_leaderboard.py --check  # the pages follow from docs/leaderboard.json

Finished runs are kept under outputs/leaderboard, so the command continues where it stopped. Rows enter
docs/leaderboard.json only if every run is finished and scored and all versions are those of the other rows.
Tables in docs/leaderboard.md and README.md are made from that file alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from evaluation.gpteval3d.truth_judge import TruthJudge
from evaluation.judge_validity.agreement import validity
from evaluation.judge_validity.figure import record
from evaluation.judge_validity.judgements import find_judged
from scripts.leaderboard.admission import check_versions, judges_of, versions_of
from scripts.leaderboard.page import BLOCKS
from scripts.leaderboard.profiles import picture
from scripts.leaderboard.rows import FILE, Board, dumps, kept, loads, plain, with_rows
from scripts.leaderboard.sections import CONTROLS, MAIN, SECTIONS
from scripts.results.document import replace_block
from scripts.results.workshop import ROOT, Workshop
from trace_bench.system.errors import TraceBenchError

PICTURE = Path("docs") / "images" / "leaderboard_methods.png"


def options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make_leaderboard.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", metavar="A,B", help="only these methods; the rows of others stay")
    parser.add_argument("--check", action="store_true", help="make nothing; fail if a page differs")
    parser.add_argument(
        "--anew", action="store_true", help="leave out the rows there are, whatever their versions"
    )
    runs = ROOT / "outputs" / "leaderboard"
    parser.add_argument("--output-root", type=Path, default=runs, metavar="FOLDER",
                        help="where the runs are (outputs/leaderboard)")  # fmt: skip
    parser.add_argument(
        "--folder", type=Path, default=ROOT, metavar="FOLDER", help="holds README.md and docs/"
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="added to every sweep")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = options(sys.argv[1:] if arguments is None else arguments)
    try:
        if not chosen.check:
            make(chosen)
        return write_pages(chosen.folder, chosen.check)
    except TraceBenchError as error:
        print(error, file=sys.stderr)
        return 2


def make(chosen: argparse.Namespace) -> None:
    """Run, score and judge what is missing, then write the rows."""

    def shop(part: str, overrides: Sequence[str] = chosen.overrides) -> Workshop:
        return Workshop(chosen.folder, chosen.output_root / part, tuple(overrides))

    board = Board() if chosen.anew else read(chosen.folder, shop(MAIN))
    for name, section in SECTIONS.items():
        here = shop(name)
        methods = tuple(chosen.methods.split(",")) if chosen.methods else all_methods(here, section.sweep)
        sweep = section.of(methods)
        if not sweep:
            continue
        add(board, name, here, sweep)
        if name == MAIN:
            board.validity = judge(here)
            draw(board, here, section.of(all_methods(here, section.sweep)), chosen.folder / PICTURE)
        write(board, chosen.folder)
    if "controls" not in board.sections:
        here = shop("controls", ())
        here.make(CONTROLS)
        board.sections["controls"] = kept(here.results(CONTROLS).controls)
    write(board, chosen.folder)


def all_methods(here: Workshop, sweep: Sequence[str]) -> tuple[str, ...]:
    """The methods that the experiment's YAML lists."""
    return tuple(dict.fromkeys(run.identity.method for run in here.plan(tuple(sweep))))


def add(board: Board, name: str, here: Workshop, sweep: tuple[str, ...]) -> None:
    """Make the runs of a section that are missing, check them, and put their rows into the board."""
    here.make(sweep)
    results = here.results(sweep)
    versions = versions_of(here.runs(sweep), here.metrics) | {
        "judges": judges_of(results.frame, here.metrics)
    }
    check_versions(board, versions)
    board.versions = versions
    board.judges |= {judge: results.judges[judge] for judge in versions["judges"].values()}
    board.sections[name] = with_rows(board.sections.get(name, results.frame.iloc[:0]), results.frame)


def draw(board: Board, here: Workshop, sweep: tuple[str, ...], file: Path) -> None:
    """Draw the methods' assets, unless some were made elsewhere: then the picture stays as it is."""
    frame = here.results(sweep).frame
    if set(frame["fingerprint"]) != set(board.sections[MAIN]["fingerprint"]):
        print(f"{file} stays as it is: it needs the runs of every method under {here.output_root}.")
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    azimuth = next(iter(here.config.contact_sheet.views.values()))
    picture(board, frame, here.output_root, float(azimuth)).save(file, optimize=True)


def judge(here: Workshop) -> list[dict[str, object]]:
    """Compare the assets in pairs by the tiny CLIP, and the verdicts with the truth."""
    here.command("evaluation.gpteval3d", "judge=clip")
    truth = TruthJudge(here.metrics[TruthJudge.metric], float(here.config.judge_validity.tie_margin))
    runs = list(here.done().values())
    found = [row for judged in find_judged(here.output_root, runs, truth) for row in validity(judged)]
    return [{key: plain(value) for key, value in record(row).items()} for row in found]


def read(folder: Path, here: Workshop) -> Board:
    path = folder / FILE
    return loads(path.read_text(encoding="utf-8"), here.metrics) if path.is_file() else Board()


def write(board: Board, folder: Path) -> None:
    (folder / FILE).write_text(dumps(board), encoding="utf-8")


def write_pages(folder: Path, check: bool) -> int:
    """Make the blocks again; with `check`, write nothing and return 1 if one differs."""
    here = Workshop(folder, folder)
    if not (folder / FILE).is_file():
        raise TraceBenchError(f"{folder / FILE} does not exist: `make leaderboard` makes it.")
    board, differing = read(folder, here), []
    for (page, name), block in BLOCKS.items():
        path = folder / page
        before = path.read_text(encoding="utf-8")
        made = block(board, here.metrics)
        after = replace_block(before, name, partial(_instead, made))
        if after != before:
            differing.append(f"{page}: {name}")
            if not check:
                path.write_text(after, encoding="utf-8")
    print(
        "\n".join(
            [("Differs" if check else "Changed") + ":", *differing]
            if differing
            else ["Pages are up to date."]
        )
    )
    return 1 if check and differing else 0


def _instead(made: str, _old: str) -> str:
    return made


if __name__ == "__main__":
    sys.exit(main())
