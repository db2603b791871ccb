"""The complete state of a run in one file; a resumed run continues exactly as without the interruption."""

from __future__ import annotations

import hashlib
import io
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trace_bench.system.errors import TraceBenchError
from trace_bench.system.files import write_atomic

CHECKPOINT = "checkpoint.pt"
_MAGIC = b"TBCK1\n"
_DIGEST = 32


class CheckpointError(TraceBenchError):
    """A checkpoint that cannot be read."""


@dataclass(frozen=True)
class Checkpoint:
    """A run after `step` steps. Contains no generator state, because randomness depends on (seed, step)."""

    fingerprint: str
    step: int
    representation: dict[str, Any]
    method: dict[str, Any]
    cost: dict[str, int]
    seconds: dict[str, float]


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Replace the folder's checkpoint; state dicts may contain tensors, numbers, strings, lists and dicts."""
    buffer = io.BytesIO()
    torch.save(dict(vars(checkpoint)), buffer)
    payload = buffer.getvalue()
    write_atomic(folder / CHECKPOINT, _MAGIC + hashlib.sha256(payload).digest() + payload)


def load_checkpoint(folder: Path, fingerprint: str) -> Checkpoint | None:
    """The folder's checkpoint on the CPU; None if there is none; CheckpointError if it is damaged."""
    path = folder / CHECKPOINT
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    digest, payload = data[len(_MAGIC) : len(_MAGIC) + _DIGEST], data[len(_MAGIC) + _DIGEST :]
    if not data.startswith(_MAGIC) or hashlib.sha256(payload).digest() != digest:
        raise CheckpointError(f"{path} is damaged (its checksum does not match).")
    try:
        checkpoint = Checkpoint(**torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True))
    except (pickle.UnpicklingError, RuntimeError, TypeError) as error:
        raise CheckpointError(f"{path} was written by another version ({type(error).__name__}).") from error
    if checkpoint.fingerprint != fingerprint:
        raise CheckpointError(f"{path} belongs to another run.")
    return checkpoint


def first_non_finite(state: Any, name: str) -> str | None:
    """The name of the first tensor with NaN or infinity in a state dict; None if all are finite."""
    if isinstance(state, torch.Tensor):
        return name if state.is_floating_point() and not bool(torch.isfinite(state).all()) else None
    items = (
        state.items()
        if isinstance(state, dict)
        else enumerate(state)
        if isinstance(state, (list, tuple))
        else ()
    )
    return next((bad for key, value in items if (bad := first_non_finite(value, f"{name}.{key}"))), None)
