"""Checkpoints: round trip; damaged or foreign checkpoints are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trace_bench.runs.checkpoint import (
    CHECKPOINT,
    Checkpoint,
    CheckpointError,
    first_non_finite,
    load_checkpoint,
    save_checkpoint,
)

SAVED = Checkpoint(
    fingerprint="f" * 64,
    step=7,
    representation={"means": torch.arange(6.0).view(2, 3), "opt": {0: {"step": torch.tensor(7.0)}}},
    method={"lora": {"a": torch.ones(2, dtype=torch.bfloat16)}, "note": "x", "n": [1, 2.5, None, True]},
    cost={"unet_fwd": 14},
    seconds={"total": 1.5},
)


def test_round_trip(tmp_path):
    save_checkpoint(tmp_path, SAVED)
    found = load_checkpoint(tmp_path, SAVED.fingerprint, 12)
    assert torch.equal(found.representation["means"], SAVED.representation["means"])
    assert found.method["lora"]["a"].dtype == torch.bfloat16
    assert found.method["n"] == [1, 2.5, None, True]
    assert (found.step, found.cost, found.seconds) == (7, {"unet_fwd": 14}, {"total": 1.5})
    assert load_checkpoint(tmp_path / "elsewhere", SAVED.fingerprint, 12) is None


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    save_checkpoint(tmp_path, SAVED)
    with pytest.raises(CheckpointError, match="belongs to another run"):
        load_checkpoint(tmp_path, "0" * 64, 12)


def test_every_flipped_byte_is_noticed(tmp_path):
    save_checkpoint(tmp_path, SAVED)
    whole = (tmp_path / CHECKPOINT).read_bytes()
    for position in range(0, len(whole), 97):
        data = bytearray(whole)
        data[position] ^= 0x10
        (tmp_path / CHECKPOINT).write_bytes(bytes(data))
        with pytest.raises(CheckpointError, match="is damaged"):
            load_checkpoint(tmp_path, SAVED.fingerprint, 12)


def test_nothing_is_executed_on_loading(tmp_path):
    """Only tensors and plain values are loaded; other objects are refused rather than unpickled."""
    save_checkpoint(tmp_path, Checkpoint("f" * 64, 0, {"x": np.random.default_rng(0)}, {}, {}, {}))
    with pytest.raises(CheckpointError, match="by another version"):
        load_checkpoint(tmp_path, "f" * 64, 12)


@pytest.mark.parametrize(
    ("state", "name"),
    [
        ({"a": torch.ones(2), "n": 3, "s": "nan"}, None),
        ({"a": {"b": [torch.ones(1), torch.tensor([1.0, torch.nan])]}}, "r.a.b.1"),
        ({"a": (torch.tensor(-torch.inf),)}, "r.a.0"),
        ({"count": torch.tensor([2**62])}, None),
    ],
)
def test_what_is_not_finite_has_a_name(state, name):
    assert first_non_finite(state, "r") == name
