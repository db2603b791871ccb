"""Percentages, intervals, tests and agreement against published values and brute force."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.user_study.agreement import alpha, coincidences
from evaluation.user_study.statistics import (
    BASELINE,
    OURS,
    TIE,
    UNKNOWN,
    Bootstrap,
    agreement,
    estimate,
    row,
    sign_test,
)


def votes(raters, prompts, *outcomes):
    """[R, P, 4] with the outcomes given one after the other."""
    counts = np.zeros((raters, prompts, 4))
    for i, outcome in enumerate(outcomes):
        counts[i // prompts % raters, i % prompts, outcome] += 1
    return counts


def simulate(rng, raters, prompts, rater_std, prompt_std):
    """Crossed judgements; the probability of "ours" depends on rater and prompt, with mean one half."""
    logit = rng.normal(0, rater_std, (raters, 1)) + rng.normal(0, prompt_std, (1, prompts))
    ours = rng.random((raters, prompts)) < 1 / (1 + np.exp(-logit))
    counts = np.zeros((raters, prompts, 4))
    counts[..., OURS], counts[..., BASELINE] = ours, ~ours
    return counts


# --- percentages -----------------------------------------------------------------------------------------


def test_worked_example():
    """ours 30, tie 12, baseline 8."""
    counts = votes(5, 10, *([OURS] * 30 + [TIE] * 7 + [UNKNOWN] * 5 + [BASELINE] * 8))
    result = row(counts, Bootstrap.draw(5, 10, 50, 0))
    assert result["counts"] == {"ours": 30, "tie": 7, "unknown": 5, "baseline": 8}
    assert [result["percent"][name]["value"] for name in ("ours", "tie", "baseline")] == [60.0, 24.0, 16.0]
    assert result["decided"]["votes"] == 38
    assert result["decided"]["ours"]["value"] == pytest.approx(78.947, abs=1e-3)
    assert result["decided"]["wilson"]["low"] == pytest.approx(63.65, abs=5e-3)
    assert result["decided"]["wilson"]["high"] == pytest.approx(88.93, abs=5e-3)
    assert result["decided"]["sign_test_p"] == pytest.approx(0.000472, abs=1e-6)
    assert result["ties_as_half"]["value"] == 72.0
    assert (result["votes"], result["raters"], result["prompts"]) == (50, 5, 10)


@pytest.mark.parametrize(
    ("ours", "baseline", "low", "high"),
    [(30, 20, 46.18, 72.39), (0, 20, 0.0, 16.11), (20, 0, 83.89, 100.0)],
)
def test_wilson(ours, baseline, low, high):
    interval = sign_test(ours, baseline)["wilson"]
    assert (interval["low"], interval["high"]) == pytest.approx((low, high), abs=6e-3)


def test_no_votes_no_numbers():
    result = row(np.zeros((3, 4, 4)), Bootstrap.draw(3, 4, 10, 0))
    nothing = {"value": None, "low": None, "high": None}
    assert result["percent"] == {"ours": nothing, "tie": nothing, "baseline": nothing}
    assert result["decided"] == {
        "votes": 0,
        "ours": nothing,
        "wilson": {"low": None, "high": None},
        "sign_test_p": None,
    }


@pytest.mark.parametrize(("raters", "prompts"), [(5, 20), (20, 5)])
def test_no_interval_below_six_raters_or_six_prompts(raters, prompts):
    counts = votes(raters, prompts, *([OURS, BASELINE] * 10))
    percent = row(counts, Bootstrap.draw(raters, prompts, 50, 0))["percent"]["ours"]
    assert percent == {"value": 50.0, "low": None, "high": None}


# --- the bootstrap ---------------------------------------------------------------------------------------


def test_bootstrap_is_the_product_of_multiplicities():
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 3, (4, 5, 4)).astype(float)
    bootstrap = Bootstrap.draw(4, 5, 7, seed=1)
    assert np.allclose(bootstrap.raters.sum(1), 4)
    assert np.allclose(bootstrap.prompts.sum(1), 5)
    for b, totals in enumerate(bootstrap.totals(counts)):
        raters = np.repeat(np.arange(4), bootstrap.raters[b].astype(int))
        prompts = np.repeat(np.arange(5), bootstrap.prompts[b].astype(int))
        assert np.allclose(totals, counts[np.ix_(raters, prompts)].sum((0, 1)))


def test_intervals_are_repeatable_and_depend_on_the_seed():
    counts = simulate(np.random.default_rng(3), 10, 12, 0.5, 0.5)
    first, same, other = (
        row(counts, Bootstrap.draw(10, 12, 300, seed))["percent"]["ours"] for seed in (0, 0, 1)
    )
    assert first == same
    assert (first["low"], first["high"]) != (other["low"], other["high"])


def test_intervals_cover_the_truth_where_raters_and_prompts_differ():
    """In 150 studies with strong rater and prompt effects, our intervals contain the true 50 % as often as
    they should; Wilson's, which ignore the crossing, do not.
    """
    rng, crossed, wilson = np.random.default_rng(5), 0, 0
    for study in range(150):
        counts = simulate(rng, 20, 20, 0.8, 0.8)
        result = row(counts, Bootstrap.draw(20, 20, 300, study))
        percent, naive = result["percent"]["ours"], result["decided"]["wilson"]
        crossed += percent["low"] <= 50.0 <= percent["high"]
        wilson += naive["low"] <= 50.0 <= naive["high"]
    assert crossed >= 0.9 * 150
    assert wilson < 0.7 * 150


def test_replicates_without_votes_are_left_out():
    """A baseline judged by six of forty raters: some replicates contain none of them."""
    counts = np.zeros((40, 6, 4))
    counts[:3, :, OURS] = counts[3:6, :, BASELINE] = 1
    eye = np.eye(4)
    drawn = Bootstrap.draw(40, 6, 4000, 0).totals(counts)
    assert (drawn.sum(1) == 0).any()
    result = estimate(counts, drawn, eye[OURS], eye.sum(0))
    assert result == {"value": 50.0, "low": 0.0, "high": 100.0}


# --- agreement -------------------------------------------------------------------------------------------

#: Krippendorff (2011), section C: 4 observers, 12 units, nominal; rows are observers, 0 is missing.
OBSERVERS = np.array([
    [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
    [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
])  # fmt: skip


def test_alpha_of_the_published_example():
    counts = np.stack([(c == OBSERVERS).sum(0) for c in range(1, 6)], axis=1).astype(float)
    matrix = coincidences(counts).sum(0)
    assert matrix.sum() == pytest.approx(40)  # pairable values
    assert alpha(matrix) == pytest.approx(0.743, abs=5e-4)


def brute_force_alpha(counts):
    """Over all ordered pairs of values, within units and of everything."""
    units = [np.repeat(np.arange(len(unit)), unit.astype(int)) for unit in counts]
    units = [unit for unit in units if len(unit) > 1]
    values = np.concatenate(units)
    observed = sum((unit[:, None] != unit).sum() / (len(unit) - 1) for unit in units) / len(values)
    expected = (values[:, None] != values).sum() / (len(values) * (len(values) - 1))
    return 1 - observed / expected


def test_alpha_is_its_definition():
    counts = np.random.default_rng(2).integers(0, 4, (30, 3)).astype(float)
    assert alpha(coincidences(counts).sum(0)) == pytest.approx(brute_force_alpha(counts), abs=1e-12)


def test_alpha_at_its_ends():
    agreed = np.array([[5, 0, 0], [0, 4, 0], [0, 0, 3]], float)
    assert alpha(coincidences(agreed).sum(0)) == 1.0
    chance = np.random.default_rng(0).multinomial(10, [1 / 3] * 3, 4000).astype(float)
    assert alpha(coincidences(chance).sum(0)) == pytest.approx(0.0, abs=0.01)
    assert np.isnan(alpha(coincidences(np.array([[5.0, 0, 0], [3, 0, 0]])).sum(0)))  # no second category


def test_agreement_leaves_unknown_out_and_takes_each_prompt_and_baseline_as_a_unit():
    counts = np.zeros((2, 2, 4))  # prompts, baselines
    counts[0, 0, [OURS, UNKNOWN]] = 3, 7
    counts[0, 1, [TIE, BASELINE]] = 2, 1
    counts[1, 0, BASELINE] = 4
    counts[1, 1, [OURS, UNKNOWN]] = 1, 5  # one value left: no unit
    result = agreement(counts, Bootstrap.draw(3, 2, 100, 0))
    assert (result["units"], result["votes"]) == (3, 10)
    kept = np.array([[3, 0, 0], [0, 2, 1], [0, 0, 4]], float)
    assert result["alpha"]["value"] == pytest.approx(brute_force_alpha(kept))
    assert (result["alpha"]["low"], result["alpha"]["high"]) == (None, None)  # of two prompts
