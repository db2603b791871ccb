"""Elo against worked examples, closed forms and properties of the maximum-likelihood estimate."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import stdtr

from evaluation.gpteval3d.comparisons import Game
from evaluation.gpteval3d.elo import cluster_matrices, existence, fit, win_matrix
from evaluation.gpteval3d.intervals import intervals, standard_errors
from evaluation.gpteval3d.rating import Rules, rate
from evaluation.gpteval3d.report import _cell

#: left, right, result, how often: 180 games of D (the anchor), A, B and G.
CASE = """D A -1 9 | D A 0 2 | D A 1 15 | D B -1 17 | D B 0 7 | D B 1 7 | D G -1 5 | D G 0 2 | D G 1 12
        | A B -1 26 | A B 0 5 | A B 1 6 | A G -1 10 | A G 0 3 | A G 1 18 | B G -1 8 | B G 0 3 | B G 1 25"""
NAMES = "DABG"
ANCHOR = {0: 1000.0}


def case_games() -> list[tuple[int, int, float]]:
    games = []
    for entry in CASE.split("|"):
        left, right, result, times = entry.split()
        games += [(NAMES.index(left), NAMES.index(right), float(result))] * int(times)
    return games


GAMES = case_games()


def solve(wins, frozen=ANCHOR, prior=None) -> np.ndarray:
    return fit(np.asarray(wins, float)[None], frozen, prior).elo[0]


# --- worked cases: converged values of the published program's loss ---------------------------------------


def test_the_win_matrix_counts_a_draw_for_both():
    expected = [[0, 11, 24, 7], [17, 0, 31, 13], [14, 11, 0, 11], [14, 21, 28, 0]]
    assert win_matrix(GAMES, 4).tolist() == expected


@pytest.mark.parametrize(
    ("draw", "prior", "expected"),
    [
        (1.0, None, [1067.543968, 914.464431, 1116.608020]),
        (0.5, None, [1072.803703, 896.830658, 1125.389535]),
        (1.0, 0.5, [1064.966707, 916.275464, 1112.068474]),
    ],
)
def test_a_tournament(draw, prior, expected):
    assert solve(win_matrix(GAMES, 4, draw=draw), prior=prior)[1:] == pytest.approx(expected, abs=1e-6)


def test_standard_errors():
    matrices = cluster_matrices(GAMES, 4, np.arange(180), 180)
    elo = solve(matrices.sum(axis=0))
    naive, clustered = standard_errors(matrices, elo, ANCHOR)
    assert naive[1:] == pytest.approx([46.042080, 44.019493, 49.276967], abs=1e-5)
    assert clustered[1:] == pytest.approx([40.623649, 37.012999, 44.252866], abs=1e-5)


def test_an_interval_is_where_the_profile_deviance_is_below_its_limit():
    """With 180 clusters near the bootstrap's [987.9, 1155.5], [836.0, 988.8] and [1026.2, 1206.4]."""
    found = intervals(cluster_matrices(GAMES, 4, np.arange(180), 180), ANCHOR)
    assert found.low[1:] == pytest.approx([987.9, 836.0, 1026.2], abs=6)
    assert found.high[1:] == pytest.approx([1155.5, 988.8, 1206.4], abs=6)
    assert np.isnan(found.low[0])
    assert np.isnan(found.p).tolist() == np.eye(4, dtype=bool).tolist()


def test_two_players_have_a_profile_interval_by_hand():
    """Seven prompts won, three lost: independent games, so the effect is that of a mean of ten."""
    games = [(1, 0, -1.0 if k < 7 else 1.0) for k in range(10)]
    found = intervals(cluster_matrices(games, 2, np.arange(10), 10), ANCHOR)
    scale = 400 / math.log(10)
    left_out = np.log([6 / 3] * 7 + [7 / 2] * 3) - math.log(7 / 3)
    effect = 0.9 * (left_out**2).sum() / (1 / 7 + 1 / 3)
    for end in (found.low[1], found.high[1]):
        p = 1 / (1 + math.exp(-(end - 1000) / scale))
        deviance = -2 * (7 * math.log(p / 0.7) + 3 * math.log((1 - p) / 0.3))
        assert deviance / effect == pytest.approx(2.262157**2, rel=1e-4)  # t of 9 degrees of freedom
    at_zero = -2 * (7 * math.log(0.5 / 0.7) + 3 * math.log(0.5 / 0.3))
    assert found.p[0, 1] == pytest.approx(2 * stdtr(9, -math.sqrt(at_zero / effect)))


@pytest.mark.parametrize(("result", "ends"), [(-1.0, (True, False)), (1.0, (False, True))])
def test_who_never_lost_has_a_lower_bound_only(result, ends):
    """Each prompt counts as one game: eight wins give the bound of 8 games, however many a prompt has."""
    for games_each in (1, 5):
        games = [(1, 0, result)] * 8 * games_each
        found = intervals(cluster_matrices(games, 2, np.repeat(np.arange(8), games_each), 8), ANCHOR)
        assert (np.isfinite(found.low[1]), np.isfinite(found.high[1])) == ends
        bound = found.low[1] if ends[0] else found.high[1]
        p = 1 / (1 + 10 ** (-abs(bound - 1000) / 400))  # of the winner at the bound, above or below one half
        wanted = math.exp(-(2.364624**2) / 16)  # 16 log p = -t^2 of 7 degrees of freedom
        assert (p if (bound - 1000) * -result > 0 else 1 - p) == pytest.approx(wanted, abs=1e-3)


def test_prompts_that_all_say_the_same_give_no_interval_of_zero_width():
    games = [(1, 0, -1.0), (1, 0, -1.0), (0, 1, -1.0)] * 8
    found = intervals(cluster_matrices(games, 2, np.repeat(np.arange(8), 3), 8), ANCHOR)
    assert found.high[1] - found.low[1] > 200


def test_no_interval_below_six_prompts():
    for prompts in (5, 6):
        found = intervals(cluster_matrices(GAMES, 4, np.arange(180) % prompts, prompts), ANCHOR)
        assert np.isfinite(found.low[1:]).all() == (prompts == 6)
        assert np.isfinite(found.p[0, 1]) == (prompts == 6)


def test_contestants_without_a_chain_to_the_anchor_have_no_interval():
    games = [(1, 0, -1.0), (0, 1, -1.0), (2, 3, -1.0), (3, 2, -1.0)] * 8
    found = intervals(cluster_matrices(games, 4, np.repeat(np.arange(8), 4), 8), ANCHOR)
    assert np.isfinite(found.low).tolist() == [False, True, False, False]


def test_groups_that_are_infinitely_far_apart_are_no_singular_matrix():
    """Two strong, two middling and two weak contestants, each group beating the one below on all prompts."""
    games = [(i, j, -1.0) for i in range(6) for j in range(6) if i // 2 < j // 2]
    games += [(i, i + 1, result) for i in (0, 2, 4) for result in (-1.0, 1.0)]
    found = intervals(cluster_matrices(games * 8, 6, np.repeat(np.arange(8), len(games)), 8), {2: 1000.0})
    assert (found.low[:2] > 900).all()
    assert np.isposinf(found.high[:2]).all()
    assert np.isneginf(found.low[4:]).all()


def test_three_times_the_same_answers_are_no_more_certain():
    tripled = [game for game in GAMES for _ in range(3)]
    matrices = cluster_matrices(tripled, 4, np.repeat(np.arange(180), 3), 180)
    elo = solve(matrices.sum(axis=0))
    assert elo == pytest.approx(solve(win_matrix(GAMES, 4)), abs=1e-6)
    naive, clustered = standard_errors(matrices, elo, ANCHOR)
    assert naive[1:] == pytest.approx([26.582407, 25.414666, 28.450070], abs=1e-5)
    assert clustered[1:] == pytest.approx([40.623649, 37.012999, 44.252866], abs=1e-5)


def test_who_never_lost_is_finite_by_the_stated_prior():
    wins = np.zeros((3, 3))  # D, A, B; nobody beat B
    wins[0, 1], wins[1, 0], wins[2, 0], wins[2, 1] = 3, 2, 4, 3
    found = fit(wins[None], ANCHOR)
    assert found.regularised[0]
    assert found.elo[0] == pytest.approx([1000.0, 954.790258, 1342.265541], abs=1e-6)


def test_far_apart_but_finite():
    wins = [[0, 1, 0], [999, 0, 1], [0, 999, 0]]
    gap = 400 * math.log10(999)
    assert solve(wins) == pytest.approx([1000, 1000 + gap, 1000 + 2 * gap], abs=1e-6)
    assert not fit(np.array([wins], float), ANCHOR).regularised[0]


def test_two_players_have_a_closed_form():
    for won, lost in ((3, 1), (1, 7), (50, 49)):
        assert solve([[0, lost], [won, 0]])[1] == pytest.approx(1000 + 400 * math.log10(won / lost), abs=1e-8)


# --- frozen scores ----------------------------------------------------------------------------------------


def test_frozen_scores_stay_to_the_last_bit_and_the_new_one_balances():
    rng = np.random.default_rng(0)
    frozen = {i: float(score) for i, score in enumerate(rng.normal(1000, 150, 13))}
    wins = np.zeros((14, 14))
    wins[13, :13], wins[:13, 13] = rng.integers(0, 9, 13), rng.integers(1, 9, 13)
    wins[:13, :13] = rng.integers(0, 50, (13, 13))  # games between frozen methods carry no information
    elo = solve(wins, frozen)
    assert elo[:13].tolist() == list(frozen.values())
    expected = 1 / (1 + 10 ** ((elo[:13] - elo[13]) / 400))
    met = wins[13, :13] + wins[:13, 13]
    assert (met * expected).sum() == pytest.approx(wins[13, :13].sum(), abs=1e-8)
    shifted = solve(wins, {i: score + 77.0 for i, score in frozen.items()})
    assert shifted[13] == pytest.approx(elo[13] + 77.0, abs=1e-7)


def test_a_new_method_that_always_wins_is_finite():
    wins = np.zeros((14, 14))
    wins[13, :13] = 2
    found = fit(wins[None], dict.fromkeys(range(13), 1000.0))
    assert found.regularised[0]
    assert found.elo[0, 13] == pytest.approx(1000 + 400 * math.log10(2.5 / 0.5), abs=1e-6)


# --- properties -------------------------------------------------------------------------------------------


def random_wins(seed: int, methods: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 20, (methods, methods)).astype(float)


@pytest.mark.parametrize("seed", range(5))
def test_the_gradient_is_zero_where_it_ends(seed):
    wins = random_wins(seed)
    elo = solve(wins)
    p = 1 / (1 + 10 ** ((elo[None] - elo[:, None]) / 400))
    np.fill_diagonal(wins, 0.0)
    excess = ((wins + wins.T) * p - wins).sum(axis=1)
    assert np.abs(excess[1:]).max() < 1e-8


def test_neither_order_nor_sides_of_the_games_matter():
    rng = np.random.default_rng(1)
    mixed = [GAMES[k] for k in rng.permutation(len(GAMES))]
    swapped = [(j, i, -r) if rng.random() < 0.5 else (i, j, r) for i, j, r in mixed]
    assert solve(win_matrix(swapped, 4)) == pytest.approx(solve(win_matrix(GAMES, 4)), abs=1e-9)


def test_many_at_once_are_as_each_by_itself():
    many = np.stack([random_wins(seed) for seed in range(20)])
    many[3, 5, :] = 0.0  # never wins
    together = fit(many, ANCHOR)
    for wins, elo, regularised in zip(many, together.elo, together.regularised, strict=True):
        alone = fit(wins[None], ANCHOR)
        assert elo == pytest.approx(alone.elo[0], abs=1e-7)
        assert regularised == alone.regularised[0]
    assert together.regularised.sum() == 1


def test_who_played_nobody_that_leads_to_the_anchor_has_no_score():
    wins = np.zeros((5, 5))
    wins[0, 1] = wins[1, 0] = 3.0
    wins[2, 3] = wins[3, 2] = 2.0
    elo = solve(wins)
    assert elo[:2] == pytest.approx([1000.0, 1000.0])
    assert np.isnan(elo[2:]).all()
    linked, finite = existence(wins[None], np.array([True, False, False, False, False]))
    assert linked[0].tolist() == finite[0].tolist() == [True, True, False, False, False]


def test_a_circle_is_finite_and_a_chain_is_not():
    circle = np.zeros((3, 3))
    circle[0, 1] = circle[1, 2] = circle[2, 0] = 1.0
    assert not fit(circle[None], ANCHOR).regularised[0]
    assert solve(circle) == pytest.approx([1000.0] * 3)
    circle[2, 0] = 0.0
    found = fit(circle[None], ANCHOR)
    assert found.regularised[0]
    assert np.isfinite(found.elo).all()


def test_a_maximum_that_random_steps_do_not_better():
    wins = random_wins(11)
    elo = solve(wins)

    def loss(scores):
        return (wins * np.log1p(10 ** ((scores[None] - scores[:, None]) / 400))).sum()

    rng = np.random.default_rng(2)
    for _ in range(50):
        step = rng.normal(0, 3, len(elo))
        step[0] = 0.0
        assert loss(elo + step) > loss(elo)


# --- rows -------------------------------------------------------------------------------------------------


def games_of_prompts(prompts=12, seed=3) -> list[Game]:
    rng = np.random.default_rng(seed)
    return [
        Game(left, right, int(rng.choice([-1, 0, 1], p=[0.5, 0.1, 0.4])), str(prompt))
        for prompt in range(prompts)
        for left, right in (("sds", "vsd"), ("vsd", "sds"), ("sds", "trace"), ("trace", "vsd"))
    ]


def test_a_row_for_everybody_with_interval_and_tally():
    games = games_of_prompts()
    rows = {
        r.contestant: r
        for r in rate(games, {"sds": 1000.0}, "overall", ["sds", "vsd", "trace", "idle"], Rules())
    }
    assert list(rows) == ["sds", "vsd", "trace", "idle"]
    assert (rows["sds"].elo, rows["sds"].frozen, rows["sds"].ci_low) == (1000.0, True, None)
    for name in ("vsd", "trace"):
        row = rows[name]
        assert row.ci_low < row.elo < row.ci_high
        assert (
            row.wins + row.draws + row.losses
            == row.comparisons
            == sum(name in (g.left, g.right) for g in games)
        )
    assert rows["idle"].elo is None
    assert "no chain of comparisons" in rows["idle"].note


def test_intervals_take_prompts_together():
    """Repeating each answer within its prompt must not shrink the interval."""
    games = games_of_prompts()
    wide, same = (
        rate(list(items), {"sds": 1000.0}, "overall", [], Rules())
        for items in (games, [g for g in games for _ in range(4)])
    )
    for one, other in zip(wide[1:], same[1:], strict=True):
        assert other.ci_low == pytest.approx(one.ci_low, abs=1e-6)
        assert other.ci_high == pytest.approx(one.ci_high, abs=1e-6)


def test_intervals_cover_the_truth():
    """Games drawn from known scores: 95 % intervals contain the truth about 95 % of the time."""
    truth = {"sds": 1000.0, "vsd": 1080.0}
    p = 1 / (1 + 10 ** ((truth["sds"] - truth["vsd"]) / 400))
    rng, held, tries = np.random.default_rng(5), 0, 60
    for _ in range(tries):
        games = [Game("vsd", "sds", -1 if rng.random() < p else 1, str(k)) for k in range(80)]
        row = rate(games, {"sds": 1000.0}, "overall", [], Rules())[1]
        held += row.ci_low <= truth["vsd"] <= row.ci_high
    assert held / tries > 0.9


def test_a_regularised_score_says_so():
    games = [Game("vsd", "sds", -1, str(k)) for k in range(5)]
    row = rate(games, {"sds": 1000.0}, "overall", [], Rules())[1]
    assert "no interval from fewer than 6 prompts" in row.note
    assert row.ci_low is None
    assert row.regularised
    assert "half a win" in row.note
    assert math.isfinite(row.elo)


def test_an_unbeaten_contestant_gets_a_bound_and_no_number_with_a_spread_of_zero():
    games = [Game("vsd", "sds", -1, str(k)) for k in range(8)]
    row = rate(games, {"sds": 1000.0}, "overall", [], Rules())[1]
    assert row.ci_high is None
    assert 1000 < row.ci_low < row.elo
    shown = {"elo": row.elo, "frozen": False, "regularised": True, "ci_low": row.ci_low, "ci_high": None}
    assert _cell(shown) == f"≥ {row.ci_low:.0f} *"
    assert _cell(shown | {"ci_low": None, "ci_high": 900.0}) == "≤ 900 *"


def test_who_beats_whom_is_corrected_for_all_pairs():
    rng = np.random.default_rng(0)
    strength = {"sds": 0.0, "vsd": 0.1, "trace": 3.0}
    games = [
        Game(a, b, -1 if rng.random() < 1 / (1 + math.exp(strength[b] - strength[a])) else 1, str(prompt))
        for prompt in range(40)
        for a, b in (("sds", "vsd"), ("vsd", "trace"), ("trace", "sds"))
    ]
    beats = {r.contestant: r.beats for r in rate(games, {"sds": 1000.0}, "overall", [], Rules())}
    assert beats == {"sds": (), "vsd": (), "trace": ("sds", "vsd")}
    few = {r.contestant: r.beats for r in rate(games[:15], {"sds": 1000.0}, "overall", [], Rules())}
    assert few == {"sds": (), "vsd": (), "trace": ()}  # five prompts
