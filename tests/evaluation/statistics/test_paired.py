"""Tests and intervals of paired differences against brute force, scipy and worked examples."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from evaluation.statistics import paired
from evaluation.statistics.multiple import can_decide, holm, prompts_to_decide_any
from evaluation.statistics.paired import of_differences, p_value, paired_difference, sign_flip_p, smallest_p
from evaluation.statistics.power import power, prompts_needed, smallest_difference


def brute_force(d):
    signs = np.array(list(itertools.product([1, -1], repeat=len(d))))
    return float((np.abs(signs @ d) >= abs(d.sum()) - 1e-9).mean())


@pytest.mark.parametrize("n", [2, 3, 6, 7, 10])
@pytest.mark.parametrize("digits", [1, 8])
def test_the_sign_flip_test_counts_all_patterns_with_ties_and_zeros(n, digits):
    rng = np.random.default_rng(n)
    for _ in range(10):
        d = np.round(rng.exponential(size=n) - 0.6, digits)
        assert sign_flip_p(d) == pytest.approx(brute_force(d), abs=1e-12)


def test_the_sign_flip_test_is_scipys():
    d = np.random.default_rng(1).normal(0.4, 1, 9)
    found = stats.permutation_test((d,), np.sum, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip_p(d) == pytest.approx(found.pvalue)


def test_the_ends_of_the_sign_flip_interval_are_means_of_subsets():
    """Hartigan's typical values: of 2^8 - 1 means, the 6th from each end (.05 / 2 of 2^8 is 6.4)."""
    d = np.random.default_rng(2).normal(0.3, 1, 8)
    means = sorted(
        float(d[list(chosen)].mean()) for k in range(1, 9) for chosen in itertools.combinations(range(8), k)
    )
    assert paired._sign_flip_interval(d) == pytest.approx((means[5], means[-6]))


def test_above_twenty_prompts_it_is_students_t():
    d = np.random.default_rng(3).normal(0.2, 1, 60)
    found = stats.ttest_1samp(d, 0)
    assert paired._t_p(d) == pytest.approx(found.pvalue)
    assert paired._t_interval(d) == pytest.approx(tuple(found.confidence_interval()))


def test_halls_transformation_by_hand():
    d = np.array([0.1, 0.2, 0.2, 0.3, 0.4, 1.9])
    t = d.mean() / (d.std(ddof=1) / math.sqrt(6))
    third = ((d - d.mean()) ** 3).sum() * 6 / (5 * 4) / d.std(ddof=1) ** 3 / math.sqrt(6)
    moved = t + third * t**2 / 3 + third**2 * t**3 / 27 + third / 6
    assert paired._hall_p(d) == pytest.approx(2 * stats.t.sf(abs(moved), 5))


@pytest.mark.parametrize("n", [6, 8, 13, 20, 21, 60])
def test_the_interval_excludes_zero_exactly_if_p_is_small(n):
    rng = np.random.default_rng(n)
    verdicts = []
    for k in range(40):
        d = rng.exponential(size=n) - 1 + 0.03 * k * (-1) ** k
        found = of_differences(d)
        assert found.decided == (found.low > 0 or found.high < 0) == (found.p <= 0.05)
        assert found.low <= found.mean <= found.high
        for end, inside in ((found.low, 1e-6), (found.high, -1e-6)):
            assert p_value(d - (end + inside)) > 0.05 > p_value(d - (end - inside)) - 0.02
        verdicts.append(found.decided)
    assert 0 < sum(verdicts) < 40


def test_five_prompts_decide_nothing():
    found = of_differences(np.full(5, 0.2) + np.arange(5) * 0.01)
    assert (found.p, found.decided, math.isnan(found.low)) == (0.0625, False, True)
    assert found.text(2) == "+0.22"
    assert of_differences(np.full(6, 0.2)).decided


def test_prompts_missing_on_one_side_are_dropped():
    found = paired_difference(np.array([1.0, 2.0, np.nan, 4.0]), np.array([0.5, 1.5, 3.0, np.nan]))
    assert (found.mean, found.prompts) == (0.5, 2)
    assert paired_difference(np.array([np.nan]), np.array([1.0])).prompts == 0


@pytest.mark.parametrize("n", [8, 30])
def test_equal_differences(n):
    assert of_differences(np.zeros(n))[1:] == (0.0, 0.0, n, 1.0)
    found = of_differences(np.full(n, 0.3))
    assert (found.low, found.high) == pytest.approx((0.3, 0.3))
    assert found.decided
    assert found.text(1) == "+0.3 [+0.3, +0.3]"


def test_twenty_prompts_need_sums_of_halves_only(monkeypatch):
    sizes = []
    sums = paired._sums
    monkeypatch.setattr(paired, "_sums", lambda d: sizes.append(len(d)) or sums(d))
    of_differences(np.random.default_rng(0).normal(size=20))
    assert set(sizes) == {10}  # 2^10 sums each, where a list of all sign patterns has 2^20
    assert len(sizes) < 1000


# --- many comparisons ------------------------------------------------------------------------------------


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
    found = holm([0.01, math.nan, 0.02])
    assert found[0] == pytest.approx(0.02)
    assert math.isnan(found[1])


def test_eight_prompts_cannot_decide_among_ten_methods():
    assert smallest_p(8) == 0.0078125
    assert not can_decide(8, 45)
    assert can_decide(8, 6)
    assert not can_decide(5, 1)
    assert prompts_to_decide_any(45) == 11
    assert prompts_to_decide_any(1) == 6


# --- number of prompts -----------------------------------------------------------------------------------


def test_prompts_needed_as_tables_have_it():
    """Paired t, two-sided .05, power .8 (Cohen 1988): 34 pairs for d = .5, 199 for d = .2."""
    assert prompts_needed(0.5, 1.0) == 34
    assert prompts_needed(0.2, 1.0) == 199
    assert prompts_needed(10.0, 1.0) == 6
    assert prompts_needed(10.0, 1.0, comparisons=45) == 11
    assert prompts_needed(0.0, 1.0) == 1_000_000
    assert smallest_difference(1.0, 34) == pytest.approx(0.495, abs=1e-3)
    assert smallest_difference(1.0, 8, comparisons=45) == math.inf


def test_power_is_how_often_a_difference_is_decided():
    d = np.random.default_rng(0).normal(0.3, 1.0, (2000, 50))
    decided = float(np.mean([p_value(row) <= 0.05 for row in d]))
    assert power(0.3, 1.0, 50) == pytest.approx(decided, abs=0.04)
