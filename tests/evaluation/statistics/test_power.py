"""Prompts and seeds that decide a difference: against closed forms, and how often it is decided."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from evaluation.statistics.paired import p_value
from evaluation.statistics.power import Spread, power, prompts_needed, seeds_needed, spread

RNG = np.random.default_rng(0)


def drawn(shift: float, parts: Spread, prompts: int, seeds: int, repeats: int) -> np.ndarray:
    """Differences [repeats, P, S] with a true mean and the two parts of variance."""
    of_prompts = parts.prompts * RNG.normal(size=(repeats, prompts, 1))
    return shift + of_prompts + parts.seeds * RNG.normal(size=(repeats, prompts, seeds))


def test_the_power_is_that_of_the_paired_t_test():
    limit = stats.t.ppf(0.975, 29)
    found = stats.nct(29, 0.5 * math.sqrt(30))
    assert power(0.5, 1.0, 30) == pytest.approx(found.sf(limit) + found.cdf(-limit))


@pytest.mark.parametrize(("comparisons", "quantile"), [(1, 0.975), (136, 1 - 0.025 / 136)])
def test_many_prompts_need_what_the_normal_distribution_says(comparisons, quantile):
    by_hand = ((stats.norm.ppf(quantile) + stats.norm.ppf(0.8)) / 0.05) ** 2
    assert prompts_needed(0.05, 1.0, comparisons) == pytest.approx(by_hand, rel=0.01)


def test_the_parts_of_the_variance_by_hand():
    """Means 1, 4, 1 with variance 3; within the prompts 2, 8 and 2, so 4; 3 - 4 / 2 is 1."""
    parts = spread(np.array([[0.0, 2.0], [2.0, 6.0], [0.0, 2.0]]))
    assert (parts.prompts, parts.seeds) == pytest.approx((1.0, 2.0))
    assert parts.std(2) == pytest.approx(math.sqrt(3))
    assert parts.std(1) == pytest.approx(math.sqrt(5))


def test_prompts_that_do_not_differ_have_no_spread():
    parts = spread(np.array([[0.0, 2.0], [2.0, 0.0], [0.5, 1.5]]))
    assert parts.prompts == 0
    with pytest.raises(ValueError, match="3 prompts and 1 seeds"):
        spread(np.zeros((3, 1)))


def test_the_parts_are_found_again_in_drawn_differences():
    true = Spread(0.05, 0.08)
    parts = [spread(d) for d in drawn(0.01, true, 200, 2, 100)]
    assert np.mean([one.seeds**2 for one in parts]) == pytest.approx(true.seeds**2, rel=0.03)
    assert np.mean([one.prompts**2 for one in parts]) == pytest.approx(true.prompts**2, rel=0.1)


@pytest.mark.parametrize("seeds", [1, 2, 4])
def test_the_promised_chance_is_how_often_a_difference_is_decided(seeds):
    parts = Spread(0.05, 0.08)
    prompts = prompts_needed(0.03, parts.std(seeds))
    means = drawn(0.03, parts, prompts, seeds, 1000).mean(axis=2)
    assert np.mean([p_value(row) <= 0.05 for row in means]) == pytest.approx(0.8, abs=0.05)


def test_seeds_help_until_only_the_prompts_are_left():
    parts = Spread(0.05, 0.08)
    prompts = prompts_needed(0.03, parts.std(3))
    assert seeds_needed(0.03, parts, prompts) == 3
    assert seeds_needed(0.03, parts, prompts_needed(0.03, parts.std(1))) == 1
    assert seeds_needed(0.03, parts, prompts_needed(0.03, parts.prompts) - 1) is None
    assert seeds_needed(0.03, parts, prompts, comparisons=45) is None
