"""Floating-point operations of a network, counted without its weights."""

from __future__ import annotations

from collections.abc import Callable


def tflop_of(call: Callable[[], object]) -> float:
    """TFLOP of what `call` computes (FLOP = 2 multiply-adds; convolutions, matrix products, attention)."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / 1e12
