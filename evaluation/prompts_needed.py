"""How many prompts a difference needs, from the variance of finished runs.

    python -m evaluation.prompts_needed match=0.01 colour_error=1
    python -m evaluation.prompts_needed match=0.01 --comparisons 45

For each NUMBER=DIFFERENCE: the standard deviation over prompts of the paired differences between all methods
of the largest sweep in the output root (median and largest pair), and the number of prompts that decide such
a difference with a chance of 80 % (docs/statistics.md).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from evaluation.metrics.base import Quantity
from evaluation.metrics.load import configured_metrics
from evaluation.results.aggregate import Cell, method_table, on_same_prompts, one_judge, panels
from evaluation.results.collect import collect
from evaluation.results.missing import notes_on_scores
from evaluation.statistics.power import MOST, POWER, prompts_needed
from trace_bench.system.errors import TraceBenchError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="evaluation.prompts_needed", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("wanted", nargs="+", metavar="NUMBER=DIFFERENCE", help="such as match=0.01")
    parser.add_argument("--output-root", type=Path, default=Path("outputs"), metavar="FOLDER",
                        help="where the finished runs are (outputs)")  # fmt: skip
    parser.add_argument("--comparisons", type=int, default=1, metavar="N",
                        help="pairs that Holm's correction is over: 45 for ten methods (1)")  # fmt: skip
    parser.add_argument("--power", type=float, default=POWER, metavar="SHARE",
                        help=f"chance that the difference is decided ({POWER:g})")  # fmt: skip
    chosen = parser.parse_args(argv)
    try:
        return report(chosen.wanted, chosen.output_root, chosen.comparisons, chosen.power)
    except TraceBenchError as error:
        print(f"evaluation.prompts_needed: {error}", file=sys.stderr)
        return 2


def report(wanted: Sequence[str], root: Path, comparisons: int, power: float) -> int:
    """Print one line per number; raises TraceBenchError for a mistake."""
    if comparisons < 1 or not 0 < power < 1:
        raise TraceBenchError("--comparisons must be 1 or more, and --power between 0 and 1.")
    if not root.is_dir():
        raise TraceBenchError(f"The folder {root} does not exist: name the runs with --output-root.")
    metrics = configured_metrics()
    known = {quantity.name: quantity for metric in metrics.values() for quantity in metric.quantities}
    differences = dict(_difference(item, known) for item in wanted)
    results = collect(root, metrics)
    found = panels(results.frame)
    if not found:
        raise TraceBenchError(f"{root} has no finished runs: make some with `python -m trace_bench -m`.")
    panel, mixed = one_judge(max(found, key=lambda part: len(part.frame)), metrics)
    table = method_table(panel, [known[name] for name in differences], {})
    print(f"Prompt set {panel.title}, prior {panel.prior}; {comparisons} comparisons, chance {power:.0%}.")
    for note in mixed:
        print(note)
    for i, (name, difference) in enumerate(differences.items()):
        spreads = std_of_pairs([row.cells[i] for row in table.rows])
        if not len(spreads):
            owners = {m.name: m for m in metrics.values() if known[name] in m.quantities}
            known_in = int(panel.frame[name].notna().sum())
            why = notes_on_scores(panel.frame, owners, results)
            raise TraceBenchError(
                f"{name}: no two methods have it on the same three prompts or more; {known_in} of "
                f"{len(panel.frame)} runs of the largest sweep have it. {' '.join(why)}".strip()
            )
        middle, largest = float(np.median(spreads)), float(spreads.max())
        needed = [_count(prompts_needed(difference, std, comparisons, power)) for std in (middle, largest)]
        print(
            f"{known[name].label}: a difference of {difference:g} needs {needed[0]} prompts for the median "
            f"pair (std {middle:.3g}), {needed[1]} for the pair that varies most (std {largest:.3g}); "
            f"{len(spreads)} pairs."
        )
    return 0


def std_of_pairs(cells: Sequence[Cell]) -> np.ndarray:
    """Standard deviations [K] of the differences of all pairs of cells with three common prompts or more."""
    differences = [np.subtract(*on_same_prompts(a, b)) for a, b in combinations(cells, 2)]
    known = [d[np.isfinite(d)] for d in differences]
    return np.array([d.std(ddof=1) for d in known if len(d) > 2])


def _count(prompts: int) -> str:
    return f"{prompts:,}" if prompts < MOST else f"more than {MOST:,}"


def _difference(item: str, known: dict[str, Quantity]) -> tuple[str, float]:
    name, _, value = item.partition("=")
    if name not in known:
        raise TraceBenchError(f"{item}: there is no number {name!r}; use some of {', '.join(known)}.")
    try:
        difference = float(value)
    except ValueError:
        difference = 0.0
    if not difference > 0:
        raise TraceBenchError(f"{item}: write a positive difference, such as {name}=0.01.")
    return name, difference


if __name__ == "__main__":
    sys.exit(main())
