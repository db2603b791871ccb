"""Planned comparisons: as many as published, balanced over pairs and prompts, no repeats."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from omegaconf import OmegaConf

from evaluation.gpteval3d.criteria import CRITERIA
from evaluation.gpteval3d.plan import Ensemble, make_plan, read_ensembles
from trace_bench.system.config_path import conf_dir
from trace_bench.system.errors import TraceBenchError

SHIPPED = OmegaConf.to_container(OmegaConf.load(f"{conf_dir()}/gpteval3d.yaml"))["ensembles"]
ENSEMBLES = read_ensembles(SHIPPED)


def pairs_of(methods: int, prompts: int) -> dict:
    ids = [str(i) for i in range(prompts)]
    return dict.fromkeys(itertools.combinations([f"m{i}" for i in range(methods)], 2), ids)


def against(opponents: int, prompts: int) -> dict:
    return {("new", f"m{i}"): [str(p) for p in range(prompts)] for i in range(opponents)}


def test_the_shipped_ensembles_are_the_published_ones():
    assert [e.comparisons for e in ENSEMBLES] == [200, 100, 200, 200, 100, 150, 150, 150, 150, 100]
    asked = Counter()
    for ensemble in ENSEMBLES:
        asked.update(dict.fromkeys(ensemble.criteria, ensemble.comparisons))
    assert [asked[name] for name in CRITERIA] == [900, 650, 550, 850, 550, 200]


@pytest.mark.parametrize(
    "prompts", [pairs_of(6, 110), pairs_of(13, 110), against(13, 110)], ids=["6", "13", "new"]
)
def test_all_1500_questions_are_planned(prompts):
    """The published program drops 70 of them for a new method, because it gives a pair each prompt once."""
    plan = make_plan(ENSEMBLES, prompts, seed=0)
    assert len(plan.comparisons) == 1500
    assert plan.notes == []
    assert Counter(c.ensemble for c in plan.comparisons) == {
        i: e.comparisons for i, e in enumerate(ENSEMBLES)
    }


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "prompts", [pairs_of(6, 110), pairs_of(4, 50), against(13, 110)], ids=["6", "4", "new"]
)
def test_pairs_prompts_and_sides_are_balanced(prompts, seed):
    plan = make_plan(ENSEMBLES, prompts, seed)
    pairs = Counter(frozenset((c.left, c.right)) for c in plan.comparisons)
    assert set(pairs) == {frozenset(pair) for pair in prompts}
    assert max(pairs.values()) - min(pairs.values()) <= 1
    texts = Counter(c.prompt_id for c in plan.comparisons)
    assert max(texts.values()) - min(texts.values()) <= 2
    for pair in prompts:
        left = sum((c.left, c.right) == pair for c in plan.comparisons)
        assert abs(2 * left - pairs[frozenset(pair)]) <= 1
    for e in range(len(ENSEMBLES)):
        within = Counter(frozenset((c.left, c.right)) for c in plan.comparisons if c.ensemble == e)
        assert max(within.values()) - min(within.values()) <= 2  # the deck carries over to the next ensemble


@pytest.mark.parametrize(
    "prompts", [pairs_of(6, 110), pairs_of(3, 8), against(13, 20)], ids=["6", "toy", "new"]
)
def test_no_question_is_asked_twice(prompts):
    """Two of the ensembles are of one kind: they share the used prompts of a pair."""
    plan = make_plan(ENSEMBLES, prompts, seed=1)
    assert ENSEMBLES[1].kind == ENSEMBLES[4].kind
    seen = [c.seen(ENSEMBLES) for c in plan.comparisons]
    assert len(set(seen)) == len(seen)


def test_what_does_not_fit_shrinks_by_one_factor_and_says_so():
    plan = make_plan(ENSEMBLES, pairs_of(3, 8), seed=0)  # 24 of one kind; two ensembles request 200 together
    assert [sum(c.ensemble == e for c in plan.comparisons) for e in range(10)] == [
        24,
        12,
        24,
        24,
        12,
        18,
        18,
        18,
        18,
        12,
    ]
    assert "180 comparisons instead of the 1500" in plan.notes[0]


def test_only_prompts_that_both_have():
    prompts = {("a", "b"): ["0", "1", "2"], ("a", "c"): ["2"], ("b", "c"): []}
    plan = make_plan(ENSEMBLES, {pair: ids for pair, ids in prompts.items() if ids}, seed=0)
    for c in plan.comparisons:
        pair = tuple(sorted((c.left, c.right)))
        assert c.prompt_id in prompts[pair]
    assert {tuple(sorted((c.left, c.right))) for c in plan.comparisons} == {("a", "b"), ("a", "c")}


def test_a_plan_follows_from_its_seed():
    prompts = pairs_of(4, 20)
    assert make_plan(ENSEMBLES, prompts, 5) == make_plan(ENSEMBLES, prompts, 5)
    assert make_plan(ENSEMBLES, prompts, 5) != make_plan(ENSEMBLES, prompts, 6)


def test_all_means_every_pair_on_every_prompt():
    ensemble = Ensemble(None, 1, True, False, CRITERIA[:1], None)
    plan = make_plan([ensemble], pairs_of(4, 5), seed=0)
    assert (
        len({(frozenset((c.left, c.right)), c.prompt_id) for c in plan.comparisons})
        == len(plan.comparisons)
        == 30
    )


def test_what_was_paid_for_is_kept_where_balance_allows():
    old = make_plan(ENSEMBLES, pairs_of(3, 30), seed=0)
    known = {c.seen(ENSEMBLES) for c in old.comparisons}
    fresh, kept = (
        sum(c.seen(ENSEMBLES) in known for c in make_plan(ENSEMBLES, pairs_of(4, 30), 1, prefer).comparisons)
        for prefer in (frozenset(), known)
    )
    assert kept > fresh


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"views": 3}, "must be a square number"),
        ({"criteria": [6]}, r"ensembles\[0\] needs"),
        ({"criteria": []}, "shows or asks nothing"),
        ({"rgb": False, "normal": False}, "shows or asks nothing"),
        ({"comparisons": "many"}, r"ensembles\[0\] needs"),
    ],
)
def test_an_ensemble_that_cannot_be(entry, says):
    with pytest.raises(TraceBenchError, match=says):
        read_ensembles([SHIPPED[0] | entry])
