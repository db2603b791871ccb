"""The assignment: balanced, repeatable, blind."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from evaluation.user_study.assignment import places_of_checks, plan
from evaluation.user_study.ordering import coin, shuffled

# prompts, baselines, raters, comparisons per rater
SHAPES = [
    (50, 5, 60, 50), (50, 5, 60, None), (50, 5, 17, 60), (8, 2, 7, None), (7, 3, 10, 5), (12, 5, 9, 30),
    (1, 1, 5, 1), (50, 1, 10, 50), (48, 6, 30, 48), (3, 5, 4, 99),
    (5, 5, 10, 5), (4, 5, 10, 4), (6, 6, 12, 6), (8, 16, 20, 8), (6, 2, 12, 6), (7, 3, 11, 9), (2, 9, 13, 5),
]  # fmt: skip


@pytest.fixture(params=SHAPES, ids=str)
def shape(request):
    return request.param


def spread(counts, keys):
    values = [counts[key] for key in keys]
    return max(values) - min(values)


def test_cells_prompts_and_baselines_are_balanced(shape):
    prompts, baselines, raters, per_rater = shape
    sessions = plan(prompts, baselines, raters, per_rater, "key")
    assert {len(s) for s in sessions} == {min(per_rater or prompts * baselines, prompts * baselines)}
    cells = [(p, k) for p in range(prompts) for k in range(baselines)]
    given = Counter((c.prompt, c.baseline) for s in sessions for c in s)
    assert spread(given, cells) <= 1
    for session in sessions:
        assert len({(c.prompt, c.baseline) for c in session}) == len(session)
        assert spread(Counter(c.prompt for c in session), range(prompts)) <= 1
        assert spread(Counter(c.baseline for c in session), range(baselines)) <= 2


@pytest.mark.parametrize("key", ["key", "other"])
def test_sides_are_balanced(shape, key):
    """Left less right is 0 in every group of even size, and 1 or -1 in one of odd size."""
    size, excess = Counter(), Counter()
    for rater, session in enumerate(plan(*shape, key)):
        for c in session:
            for group in (
                ("cell", c.prompt, c.baseline),
                ("baseline", c.baseline),
                ("rater", rater),
                ("rater and baseline", rater, c.baseline),
            ):
                size[group] += 1
                excess[group] += 1 if c.ours_left else -1
    assert {group: abs(n) for group, n in excess.items()} == {group: n % 2 for group, n in size.items()}


def test_a_cell_is_balanced_however_many_codes_are_used(shape):
    excess = Counter()
    for session in plan(*shape, "key"):
        for c in session:
            excess[c.prompt, c.baseline] += 1 if c.ours_left else -1
        assert max(map(abs, excess.values())) <= 1


def test_sides_are_random():
    """Over keys, two comparisons of a rater have the same side as often as in a shuffled balanced session."""
    alike = Counter()
    for i in range(400):
        session = sorted(plan(4, 3, 6, 6, f"key {i}")[2], key=lambda c: (c.prompt, c.baseline))
        alike.update(a.ours_left == b.ours_left for a, b in pairwise(session))
        assert {c.ours_left for c in session} == {True, False}
    assert 0.3 < alike[True] / alike.total() < 0.5  # 2 of the 5 others


def test_paper_sized_plan_is_balanced_exactly_for_each_rater():
    for session in plan(50, 5, 60, 50, "key"):
        assert set(Counter((c.baseline, c.ours_left) for c in session).values()) == {5}
        assert set(Counter(c.prompt for c in session).values()) == {1}


def test_a_prompt_never_comes_twice_running():
    for session in plan(10, 5, 6, None, "key"):
        assert all(a.prompt != b.prompt for a, b in pairwise(session))
        rounds = [session[i : i + 10] for i in range(0, 50, 10)]
        assert all(len({c.prompt for c in part}) == 10 for part in rounds)


def test_the_key_decides_and_nothing_else():
    assert plan(9, 2, 4, 9, "a") == plan(9, 2, 4, 9, "a")
    first, other = plan(9, 2, 4, 9, "a"), plan(9, 2, 4, 9, "b")
    assert first != other
    assert len({tuple(c.prompt for c in session) for session in first}) == 4  # raters' orders differ


def test_order_does_not_tell_the_side():
    """Over many raters, our method is on the left in half of the cases at each position of the session."""
    sessions = plan(20, 4, 400, 20, "key")
    for place in range(20):
        assert 140 < sum(session[place].ours_left for session in sessions) < 260


def test_orders_are_those_of_every_machine():
    """Hashes, not a generator: a library update must not change a running study."""
    assert "".join(shuffled("abcdef", "key", "x")) == "acedbf"
    assert [coin("key", i) for i in range(8)] == [0, 0, 1, 1, 1, 1, 0, 1]
    shown = [f"{c.prompt}{c.baseline}{'rl'[c.ours_left]}" for c in plan(4, 3, 2, 4, "key")[1]]
    assert shown == ["20r", "01l", "32l", "11r"]


@pytest.mark.parametrize(("comparisons", "checks"), [(50, 4), (4, 4), (2, 5), (1, 1), (250, 3)])
def test_checks_are_spread_and_never_first(comparisons, checks):
    places = places_of_checks(comparisons, checks, "key", 3)
    assert len(places) == checks
    assert all(1 <= place <= comparisons for place in places)
    if comparisons >= 2 * checks:
        assert all(
            i * comparisons / checks - 1 < p <= (i + 1) * comparisons / checks for i, p in enumerate(places)
        )
