"""Every pair of rows of a table, metric by metric: difference, test, and what Holm's correction decides."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.results.aggregate import Cell, Row, Table, on_same_prompts
from evaluation.statistics.multiple import holm
from evaluation.statistics.paired import ALPHA, Difference, paired_difference
from evaluation.statistics.power import prompts_needed


@dataclass(frozen=True)
class Pair:
    """Two rows on one quantity, over the prompts that have the number in both."""

    first: Row
    second: Row
    cell: Cell  # of the first row
    difference: Difference  # first - second
    adjusted: float  # p by Holm's correction over `comparisons`
    comparisons: int  # pairs of this quantity with a common prompt
    needed: (
        int  # prompts that would decide it with a chance of 80 % if the true difference were the measured one
    )


def all_pairs(table: Table) -> list[Pair]:
    """The pairs of all quantities that have a better and a worse, in the order of the columns and rows; none
    with a row whose method maximised the quantity."""
    found = []
    for i, quantity in enumerate(table.quantities):
        if quantity.higher_is_better is not None:
            found += _pairs_of(table.rows, i)
    return found


def _pairs_of(rows: Sequence[Row], i: int) -> list[Pair]:
    pairs, differences = [], []
    for first, second in itertools.combinations([row for row in rows if not row.cells[i].optimised], 2):
        a, b = on_same_prompts(first.cells[i], second.cells[i])
        difference = paired_difference(a, b)
        if difference.prompts:
            pairs.append(
                (first, second, float(np.nanstd(a - b, ddof=1)) if difference.prompts > 1 else np.nan)
            )
            differences.append(difference)
    adjusted = holm([difference.p for difference in differences])
    return [
        Pair(first, second, first.cells[i], difference, p, len(pairs),
             _needed(difference, std, len(pairs), p) if std > 0 else 0)
        for (first, second, std), difference, p in zip(pairs, differences, adjusted, strict=True)
    ]  # fmt: skip


def _needed(difference: Difference, std: float, comparisons: int, adjusted: float) -> int:
    """By the t test alone. The decision also asks Hall's test of skewed differences, so an undecided pair
    needs more prompts than it has."""
    needed = prompts_needed(difference.mean, std, comparisons)
    return needed if adjusted <= ALPHA else max(needed, difference.prompts + 1)
