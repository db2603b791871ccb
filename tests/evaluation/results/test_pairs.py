"""How many prompts would decide a pair."""

from __future__ import annotations

import numpy as np

from evaluation.metrics.base import Quantity
from evaluation.results.aggregate import Cell, Row, Table
from evaluation.results.pairs import all_pairs
from evaluation.statistics.paired import ALPHA
from evaluation.statistics.power import prompts_needed

MATCH = Quantity("match", "Match", "a number", True, 3)


def table(*values):
    """One row for each list of values, by prompt."""
    rows = []
    for i, row in enumerate(values):
        by_prompt = {(str(k), f"prompt {k}"): float(value) for k, value in enumerate(row)}
        cell = Cell(MATCH, len(row), len(row), float(np.mean(row)), by_prompt=by_prompt)
        rows.append(Row({"method": f"m{i}"}, [cell], len(row)))
    return Table("methods", "", {"method": "Method"}, [MATCH], rows)


def test_an_undecided_pair_needs_more_prompts_than_it_has():
    """Differences with a long tail: the t test alone would be content with fewer."""
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(200):
        d = 5.5 - rng.lognormal(0.0, 1.5, 30)
        (pair,) = all_pairs(table(d, np.zeros(30)))
        by_t = prompts_needed(pair.difference.mean, float(d.std(ddof=1)), 1)
        if pair.adjusted > ALPHA:
            assert pair.needed > 30
            found += by_t <= 30
        else:
            assert pair.needed == by_t
    assert found > 0
