"""Tensors to a GPU without waiting for it: one copy, from pinned memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_ALIGNMENT = 16  # bytes; the kernels read vectors of up to 16


def send(tensors: Sequence[Tensor], device: torch.device | str) -> list[Tensor]:
    """The tensors, which lie on the CPU, on `device`: one transfer for all of them.

    The host does not wait for it. On the CPU the tensors are returned as they are.
    """
    device = torch.device(device)
    if device.type == "cpu":
        return list(tensors)
    starts, end = [], 0
    for tensor in tensors:
        starts.append(end)
        end += -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
    # torch keeps pinned memory for the next step, and waits for the copy before it uses it again.
    packed = torch.empty(end, dtype=torch.uint8, pin_memory=device.type == "cuda")
    for start, tensor in zip(starts, tensors, strict=True):
        _part(packed, start, tensor).copy_(tensor)
    there = copy_across(packed, device)
    return [_part(there, start, tensor) for start, tensor in zip(starts, tensors, strict=True)]


def copy_across(packed: Tensor, device: torch.device) -> Tensor:
    """The only place at which a step's data goes to the device."""
    return packed.to(device, non_blocking=True)


def _part(packed: Tensor, start: int, like: Tensor) -> Tensor:
    return packed[start : start + like.nbytes].view(like.dtype).view(like.shape)
