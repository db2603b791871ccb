"""Sizes of batches that give an item the same bits, found by a probe."""

from __future__ import annotations

import weakref

import pytest
import torch

from trace_bench.priors.lanes.batcher import ENCODE, EPS, Batcher, _chunks
from trace_bench.priors.lanes.sizes import candidates, padded_size, probed
from trace_bench.priors.lanes.turns import Call
from trace_bench.priors.stable_diffusion import StableDiffusionPrior

SIZES = candidates(1)


def computed(error):
    """A library whose results have `error(size of the batch, place in it)` in the last bits."""

    def evaluate(units):
        return [
            (torch.tensor(float(unit) + 2.0**-20 * error(len(units), i)),) for i, unit in enumerate(units)
        ]

    return evaluate


@pytest.mark.parametrize(
    ("error", "sizes"),
    [
        (lambda size, place: 0, (4, 6, 8, 11, 15)),
        (lambda size, place: size < 7, (8, 11, 15)),  # small batches are another class
        (lambda size, place: size, (15,)),  # each size is a class of its own
        (lambda size, place: place if size > 8 else 0, (8,)),  # in large ones, the place counts
        (lambda size, place: place, ()),  # runs are not merged
    ],
)
def test_a_probe_finds_the_sizes_that_agree(error, sizes):
    assert probed(computed(error), range(1, 16), SIZES) == sizes


def test_a_batch_is_filled_up_to_the_next_size():
    assert [padded_size(n, (4, 8, 15)) for n in (1, 4, 5, 15)] == [4, 4, 8, 15]
    assert candidates(2) == (2, 3, 4, 5, 7)
    assert candidates(16) == ()  # a unit alone is larger than a batch


@pytest.mark.parametrize(
    ("calls", "batches"),
    [(3, [3]), (7, [7]), (8, [4, 4]), (9, [7, 2]), (11, [7, 4]), (12, [7, 5]), (14, [7, 7])],
)
def test_calls_are_split_so_that_few_rows_are_repeats(calls, batches):
    waiting = [Call(None, EPS, (), [n], None, None) for n in range(calls)]
    chunks = _chunks(waiting, (2, 3, 4, 5, 7))
    assert [len(chunk) for chunk in chunks] == batches
    assert [call for chunk in chunks for call in chunk] == waiting


@pytest.mark.parametrize(
    ("rank", "calls", "batches"),
    [(ENCODE, 12, [8, 4]), (ENCODE, 14, [8, 6]), (ENCODE, 9, [6, 3]), (EPS, 12, [12]), (EPS, 14, [14])],
)
def test_pictures_are_encoded_in_more_batches_rather_than_with_repeats(rank, calls, batches):
    """One batch more costs the encoder next to nothing, a repeat as much as a picture."""
    waiting = [Call(None, rank, (), [n], None, None) for n in range(calls)]
    assert [len(chunk) for chunk in _chunks(waiting, (4, 6, 8, 11, 15))] == batches


def test_a_call_that_is_larger_than_a_batch_is_alone():
    small, large = (Call(None, EPS, (), range(n), None, None) for n in (1, 20))
    assert _chunks([small, large, small], (4, 8)) == [[small], [large], [small]]


def test_a_compiled_network_meets_all_sizes_in_its_first_call(checkpoints, monkeypatch):
    """On a GPU nothing is probed. A warm-up shares what torch compiles, so all of it has to be made there."""
    base, _ = checkpoints
    prior = StableDiffusionPrior(str(base), resolution=16)
    prior.compile, prior.device = True, torch.device("meta")
    batcher, met = Batcher(prior), []
    monkeypatch.setattr(batcher, "_evaluate", lambda call, units, is_probe: met.append(len(units)))
    call = Call(batcher.answer, 0, ("eps", 2), ["rows"], lambda: None, lambda outputs: None)
    assert batcher._sizes_of(call) == candidates(2)
    assert met == [2, 3, 4, 5, 7]
    assert batcher._sizes_of(call) == candidates(2)
    assert len(met) == 5


def test_what_a_probe_found_is_for_one_dtype(checkpoints):
    """On some processors, bfloat16 has other kernels than float32, with other classes of sizes."""
    base, _ = checkpoints
    call = Call(lambda calls: None, EPS, ("eps", 2), [], lambda: None, lambda outputs: None)
    names = {
        Batcher(StableDiffusionPrior(str(base), resolution=16, **settings))._networks(call)
        for settings in ({}, {}, {"dtype": "bfloat16"}, {"vae_dtype": "bfloat16"})
    }
    assert len(names) == 3


def test_a_batch_that_fails_is_answered_one_by_one_without_its_memory(checkpoints, monkeypatch, caplog):
    """As on a GPU whose memory is full: the retries must not find it full of the batch that failed."""
    base, _ = checkpoints
    batcher, held = Batcher(StableDiffusionPrior(str(base), resolution=16)), []

    def evaluate(call, units):
        assert not any(reference() is not None for reference in held)
        activations = torch.zeros(len(units))
        held.append(weakref.ref(activations))
        if len(units) > 6:
            raise torch.OutOfMemoryError("full")
        return units

    monkeypatch.setattr(batcher, "_sizes_of", lambda call: (4, 6, 8, 11, 15))
    monkeypatch.setattr(batcher, "_evaluate", evaluate)
    calls = [Call(batcher.answer, EPS, ("eps", 4), list("abcd"), lambda: None, "".join) for _ in range(3)]
    batcher.answer(calls)
    assert [call.result for call in calls] == ["abcd"] * 3
    assert [call.error for call in calls] == [None] * 3
    (message,) = [record.getMessage() for record in caplog.records]
    assert message == "3 runs are answered one by one in this step. OutOfMemoryError: full"
