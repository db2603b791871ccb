"""Draws depend only on (seed, step, purpose, item)."""

from __future__ import annotations

import torch

from trace_bench.seeding import Rng


def test_draws_are_reproducible_and_distinct() -> None:
    a = Rng(0).at(3).randn("eps", (2, 4))
    assert torch.equal(a, Rng(0).at(3).randn("eps", (2, 4)))
    for other in (Rng(1).at(3), Rng(0).at(4)):
        assert not torch.equal(a, other.randn("eps", (2, 4)))
    assert not torch.equal(a, Rng(0).at(3).randn("xi", (2, 4)))


def test_items_do_not_depend_on_the_batch() -> None:
    rng = Rng(7).at(0)
    assert torch.equal(rng.randn("eps", (4, 3))[:2], rng.randn("eps", (2, 3)))
    assert torch.equal(rng.uniform("u", (4,))[:1], rng.uniform("u", (1,)))
    assert torch.equal(rng.randint("t", 20, 981, 4)[:3], rng.randint("t", 20, 981, 3))


def test_global_rng_is_left_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    Rng(0).at(0).randn("eps", (8, 8))
    Rng(0).at(0).chance("dropout", 0.5)
    assert torch.equal(before, torch.get_rng_state())


def test_randint_covers_its_range_and_chance_its_probability() -> None:
    draws = torch.cat([Rng(0).at(k).randint("t", 0, 4, 8) for k in range(100)])
    assert draws.unique().tolist() == [0, 1, 2, 3]
    hits = sum(Rng(0).at(k).chance("dropout", 0.1) for k in range(2000))
    assert 150 < hits < 250
