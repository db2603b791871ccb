"""Make the numbers and pictures of README.md and docs/ that come from our own code, and write them there.

    make results                                  # everything
    make results STAGES="readme costs"            # some stages
    python scripts/make_results.py --keep-times   # on a busy machine: leave minutes and seconds as they are

Finished runs are kept under outputs/results, so the command continues where it stopped, and a second call
takes seconds. Remove that folder to make everything again: on two cores this takes more than an hour. A block
in a page begins with `<!-- results: NAME -->`; edit the text around it, not in it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.results.stages import STAGES, make
from scripts.results.workshop import ROOT, Workshop
from trace_bench.system.errors import TraceBenchError


def options(arguments: Sequence[str]) -> argparse.Namespace:
    lines = [f"  {name:<16} {stage.what}" for name, stage in STAGES.items()]
    parser = argparse.ArgumentParser(
        prog="make_results.py",
        description=__doc__,
        epilog="\n".join(["stages:", *lines]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("stages", nargs="*", metavar="STAGE", help="what to make (everything)")
    parser.add_argument(
        "--keep-times", action="store_true", help="leave what depends on the machine as it is"
    )
    parser.add_argument(
        "--folder", type=Path, default=ROOT, help="the folder with README.md and docs/ (this one)"
    )
    parser.add_argument("--output-root", type=Path, default=ROOT / "outputs" / "results", metavar="FOLDER",
                        help="where the runs are (outputs/results)")  # fmt: skip
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                        help="a setting for every run, for a quick trial with --folder")  # fmt: skip
    chosen = parser.parse_args(arguments)
    unknown = [name for name in chosen.stages if name not in STAGES]
    if unknown:
        parser.error(f"there is no stage {unknown[0]}; the stages are {', '.join(STAGES)}.")
    if chosen.set and chosen.folder.resolve() == ROOT:
        parser.error("--set changes the results, so name a copy of the pages with --folder.")
    return chosen


def main(arguments: Sequence[str]) -> int:
    chosen = options(arguments)
    chosen.output_root.mkdir(parents=True, exist_ok=True)
    shop = Workshop(
        chosen.folder.resolve(), chosen.output_root.resolve(), tuple(chosen.set), not chosen.keep_times
    )
    names = list(dict.fromkeys(chosen.stages)) or list(STAGES)
    for i, name in enumerate(names, start=1):
        print(f"[{i}/{len(names)}] {name}: {STAGES[name].what}", flush=True)
        start = time.monotonic()
        try:
            changed = make(STAGES[name], shop)
        except TraceBenchError as error:
            print(f"make_results: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("make_results: stopped; the same command continues.", file=sys.stderr)
            return 130
        print(f"[{i}/{len(names)}] {name}: {time.monotonic() - start:.0f} s, {_changes(changed)}", flush=True)
    return 0


def _changes(changed: Sequence[str]) -> str:
    return f"changed {', '.join(changed)}" if changed else "nothing changed"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
