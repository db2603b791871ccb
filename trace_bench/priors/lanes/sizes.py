"""Which sizes of a batch give an item the same bits.

Libraries choose their algorithms by the size of a batch. Within a class of sizes, an item's result depends
neither on its place nor on the other items; nothing says what the classes are, so they are probed. Batches
are filled up to one of the sizes found here, and an item's result is then the same in all of them.
"""

from __future__ import annotations

import json
import logging
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trace_bench.system.cache import entry_path, keep, kept

log = logging.getLogger(__name__)

#: Rows of a batch. Fewer than 4 and more than 15 were other classes wherever this was tried. There are few
#: sizes between, so that a probe is short and a compiled network has few shapes.
ROWS = (4, 6, 8, 11, 15)
_FIXED = 8  # rows, if the sizes differ
Evaluate = Callable[[Sequence[Any]], list[tuple[Tensor, ...]]]


def candidates(rows: int) -> tuple[int, ...]:
    """Numbers of units of `rows` rows each that are tried; none if a unit alone is larger than a batch."""
    units = sorted({most // rows for most in ROWS if most // rows * rows >= ROWS[0]})
    return tuple(units)


def padded_size(units: int, sizes: Sequence[int]) -> int:
    """The smallest size that holds so many units."""
    return next(size for size in sizes if size >= units)


def probed(evaluate: Evaluate, units: Sequence[Any], sizes: Sequence[int]) -> tuple[int, ...]:
    """The sizes that agree bit for bit on every unit: all, or a fixed one, or none.

    units: as many different ones as the largest size.
    """
    most = sizes[-1]
    expected = evaluate(units)
    agreeing = [size for size in sizes if _agrees(evaluate, units, size, expected)]
    if agreeing and agreeing[-1] == most:
        return tuple(agreeing)
    size = max((size for size in sizes if size <= _FIXED), default=most)
    first = evaluate(units[:size])
    return (size,) if _agrees(evaluate, units[:size], size, first) else ()


def _agrees(
    evaluate: Evaluate, units: Sequence[Any], size: int, expected: Sequence[tuple[Tensor, ...]]
) -> bool:
    """Whether `size` units, in two orders, have the results that are expected of them."""
    n = len(units)
    for order in ([(n - 1 - i) % n for i in range(size)], [(n // 2 + i) % n for i in range(size)]):
        found = evaluate([units[i] for i in order])
        if not all(
            torch.equal(one, other)
            for i, row in zip(order, found, strict=True)
            for one, other in zip(row, expected[i], strict=True)
        ):
            return False
    return True


def remembered(key: Sequence[Any], probe: Callable[[], tuple[int, ...]]) -> tuple[int, ...]:
    """The result of a probe, from the cache if it was made before on such a machine with such libraries."""
    machine = [torch.__version__, torch.__config__.show(), torch.get_num_threads(), _cpu()]
    path = entry_path("lane_sizes", json.dumps([ROWS, machine, list(key)], default=str))
    found = kept(path, lambda data: tuple(int(size) for size in json.loads(data)))
    if found is None:
        found = probe()
        keep(path, json.dumps(found).encode())
        log.debug("Lanes: batches of %s for %s", list(found) or "one run each", key[0])
    return found


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith("model name")), platform.machine())
