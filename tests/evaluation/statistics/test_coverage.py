"""The promises of docs/statistics.md: short forms here, the whole simulations as long tests."""

from __future__ import annotations

import numpy as np
import pytest

from scripts.results import coverage
from scripts.results.coverage import (
    DESIGNS,
    PROMPTS,
    distributions,
    elo_coverage,
    elo_effects,
    elo_false_families,
    false_families,
    mean_coverage,
    votes_coverage,
)

LEAST, MOST, FALSE = 0.93, 0.97, 0.06
NOISE = 0.03  # of the short forms


@pytest.mark.parametrize("prompts", [6, 8, 20])
@pytest.mark.parametrize("name", ["normal", "exponential", "measured IoU"])
def test_intervals_of_means_short(name, prompts):
    assert mean_coverage(distributions()[name], prompts, 600) > LEAST - NOISE / 2


def test_the_sign_flip_test_alone_would_break_the_promise(monkeypatch):
    """Why the correction for skewness is there."""
    monkeypatch.setattr("evaluation.statistics.paired._hall_p", lambda d: 0.0)
    assert mean_coverage(distributions()["exponential"], 8, 1000) < LEAST - 0.01


@pytest.mark.slow
@pytest.mark.parametrize("prompts", [6, 8])
def test_intervals_of_elo_short(prompts):
    assert elo_coverage(elo_effects()["normal"], prompts, 40) > LEAST - NOISE


def test_intervals_of_votes_short():
    assert votes_coverage(6, 6, 150) > LEAST - NOISE


def test_false_positives_short():
    assert false_families(4, 8, 200) < FALSE + NOISE
    assert false_families(10, 12, 60) < FALSE + 2 * NOISE


def test_measured_residuals_have_mean_zero_in_each_pair():
    assert np.abs(coverage.differences("iou").mean(axis=1)).max() < 1e-12
    assert coverage.interactions("iou").std() == pytest.approx(1.0)


@pytest.mark.long
@pytest.mark.parametrize("name", distributions())
def test_intervals_of_means(name):
    for prompts in PROMPTS:
        found = mean_coverage(distributions()[name], prompts)
        assert found >= LEAST, prompts
        assert found <= MOST or prompts < 20, prompts


@pytest.mark.long
@pytest.mark.parametrize("name", elo_effects())
def test_intervals_of_elo(name):
    for prompts in PROMPTS:
        found = elo_coverage(elo_effects()[name], prompts)
        assert found >= LEAST, prompts
        assert found <= MOST or prompts < 20, prompts


@pytest.mark.long
@pytest.mark.parametrize(("methods", "prompts"), DESIGNS)
def test_families_with_a_false_positive(methods, prompts):
    assert false_families(methods, prompts) <= FALSE


@pytest.mark.long
@pytest.mark.parametrize("name", ["normal", "exponential"])
def test_tournaments_of_equals_with_a_false_positive(name):
    assert all(elo_false_families(elo_effects()[name], prompts) <= FALSE for prompts in coverage.ELO_PROMPTS)


@pytest.mark.long
@pytest.mark.parametrize("raters", coverage.RATERS)
def test_intervals_of_votes(raters):
    """A limit: six of the one with many of the other have a little less than `LEAST`."""
    for prompts in coverage.VOTE_PROMPTS:
        few = min(raters, prompts) < 10 and max(raters, prompts) > 20
        assert votes_coverage(raters, prompts) >= LEAST - (0.02 if few else 0.0), prompts
