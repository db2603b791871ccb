"""The complete state of a run in one file; a resumed run continues exactly as without the interruption."""

from __future__ import annotations

import hashlib
import io
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import torch

from trace_bench.priors.base import Work
from trace_bench.run_folder.manifest import SECONDS
from trace_bench.runs.lane import Mode
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
    mode: Mode = "single"
    batch_sizes: dict[str, list[int]] = field(default_factory=dict)  # by network, in the batched mode
    lanes: int = 1  # the most runs that shared a process with it; with more than one, `seconds` are its share


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Replace the folder's checkpoint; state dicts may contain tensors, numbers, strings, lists and dicts."""
    buffer = io.BytesIO()
    torch.save(dict(vars(checkpoint)), buffer)
    payload = buffer.getvalue()
    write_atomic(folder / CHECKPOINT, _MAGIC + hashlib.sha256(payload).digest() + payload)


def load_checkpoint(folder: Path, fingerprint: str, steps: int) -> Checkpoint | None:
    """The checkpoint of a run of `steps` steps, on the CPU; None if there is none.

    Raises:
        CheckpointError: it is damaged, of another run or version, or holds impossible values.
    """
    path = folder / CHECKPOINT
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}).") from error
    digest, payload = data[len(_MAGIC) : len(_MAGIC) + _DIGEST], data[len(_MAGIC) + _DIGEST :]
    if not data.startswith(_MAGIC) or hashlib.sha256(payload).digest() != digest:
        raise CheckpointError(f"{path} is damaged (its checksum does not match).")
    try:
        checkpoint = Checkpoint(**torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True))
    except Exception as error:  # unpickling raises whatever it meets
        raise CheckpointError(f"{path} was written by another version ({type(error).__name__}).") from error
    if checkpoint.fingerprint != fingerprint:
        raise CheckpointError(f"{path} belongs to another run.")
    if odd := _odd(checkpoint, steps):
        raise CheckpointError(f"{path} cannot be used: {odd}.")
    return checkpoint


def _odd(checkpoint: Checkpoint, steps: int) -> str | None:
    """What is impossible about the checkpoint's fields, in a few words; None if nothing is."""
    step, work = checkpoint.step, Work().as_dict()
    if type(step) is not int or not 0 <= step <= steps:
        return f"step {step!r} is not one of the run's {steps} steps"
    for name in ("representation", "method"):
        state = getattr(checkpoint, name)
        if not isinstance(state, dict):
            return f"its {name} is no state"
        if bad := first_non_finite(state, name):
            return f"{bad} is not finite"
    if checkpoint.mode not in get_args(Mode):
        return f"its mode is {checkpoint.mode!r}"
    if not isinstance(checkpoint.batch_sizes, dict):
        return "its batch sizes are no sizes"
    if type(checkpoint.lanes) is not int or not 1 <= checkpoint.lanes < 2**63:
        return f"its number of lanes is {checkpoint.lanes!r}"
    cost, seconds = checkpoint.cost, checkpoint.seconds
    if not isinstance(cost, dict) or not all(
        key in work and type(count) is int and 0 <= count < 2**63 for key, count in cost.items()
    ):
        return "its cost is not a count of network items"
    if not isinstance(seconds, dict) or not all(
        key in SECONDS and type(value) in (int, float) and 0 <= value < math.inf
        for key, value in seconds.items()
    ):
        return "its seconds are not times of phases"
    return None


def state_differs(restored: Any, saved: Any, name: str) -> str | None:
    """The name of the first value that a part did not take over from its saved state; None if it took all.

    A part that fills a whole picture with a single saved value, for example, gives back another state.
    """
    if isinstance(saved, torch.Tensor) and isinstance(restored, torch.Tensor):
        same = restored.shape == saved.shape and torch.equal(restored.cpu().to(saved.dtype), saved.cpu())
        return None if same else name
    if isinstance(saved, dict) and isinstance(restored, dict):
        if saved.keys() != restored.keys():
            return name
        pairs = ((restored[key], value, f"{name}.{key}") for key, value in saved.items())
        return next((found for pair in pairs if (found := state_differs(*pair))), None)
    if isinstance(saved, (list, tuple)) and isinstance(restored, (list, tuple)):
        if len(saved) != len(restored):
            return name
        items = ((*pair, f"{name}.{i}") for i, pair in enumerate(zip(restored, saved, strict=True)))
        return next((found for item in items if (found := state_differs(*item))), None)
    return None if type(saved) is type(restored) and saved == restored else name


def settings_differ(fresh: Any, saved: Any, name: str) -> str | None:
    """The name of the first setting of an optimiser whose type is not that of a new one; None if all fit.

    Optimisers take over what they are given: a word where a flag belongs would switch it on.
    """
    if isinstance(fresh, dict) and isinstance(saved, dict):
        for key, value in fresh.items():
            where = f"{name}.{key}"
            if key == "param_groups":
                groups = zip(value, saved.get(key) or [], strict=True)
                kinds = ((group, other) for group, other in groups if _types(group) != _types(other))
                if any(True for _ in kinds):
                    return where
            elif key in saved and (found := settings_differ(value, saved[key], where)):
                return found
    return None


def _types(group: dict[str, Any]) -> dict[str, list[type]]:
    """The types of each setting and of its parts."""
    return {
        key: [type(value), *map(type, value if isinstance(value, (list, tuple)) else ())]
        for key, value in group.items()
    }


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
