"""Colours as files store them: bytes, 16 bits, integers or floats, brought to [0, 1]."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trace_bench.system.errors import TraceBenchError

#: names of the columns of red, green and blue, in lower case
COLOR_COLUMNS = (("red", "green", "blue"), ("diffuse_red", "diffuse_green", "diffuse_blue"), ("r", "g", "b"))
_ROUNDING = 1.05  # floats up to here are 0 to 1, a little beyond it
_DARK = 32.0  # floats from 1.05 up to here may be 0 to 255, or 0 to 1 far beyond it


def color_columns(names: Sequence[str]) -> tuple[str, str, str] | None:
    """The columns of red, green and blue among `names`, in any case; None if there are none."""
    for wanted in COLOR_COLUMNS:
        found = [
            next((n for n in (color, *names) if n in names and n.lower() == color), "") for color in wanted
        ]
        if all(found):
            return found[0], found[1], found[2]
    return None


def unit_colors(stored: Sequence[np.ndarray], where: str) -> np.ndarray:
    """Three columns [N] of one colour format as float32 [N, 3] in [0, 1].

    uint8 is 0 to 255. uint16 is 0 to 65535, or 0 to 255 if no value is larger. Other integers are 0 to 255.
    Floats are 0 to 1, or 0 to 255 if their largest value is at least 32.

    Raises: TraceBenchError, which starts with `where`, for values that no format explains.
    """
    table = np.stack([np.asarray(column, np.float64) for column in stored], axis=-1)
    if bad := int((~np.isfinite(table)).any(axis=-1).sum()):
        raise TraceBenchError(
            f"{where} has NaN or infinite colours in {bad} of {len(table)} rows; remove them."
        )
    low, high = (float(table.min()), float(table.max())) if table.size else (0.0, 0.0)
    largest = _largest_stored(np.asarray(stored[0]).dtype, low, high)
    if largest is None:
        raise TraceBenchError(
            f"{where} has colours from {low:g} to {high:g}; store them as bytes from 0 to 255, or as floats "
            "from 0 to 1."
        )
    return np.clip(table / largest, 0.0, 1.0).astype(np.float32)


def _largest_stored(kind: np.dtype, low: float, high: float) -> float | None:
    """The stored value that means 1; None if values from `low` to `high` fit no format of this type."""
    if np.issubdtype(kind, np.integer):
        if kind == np.uint16 and high > 255.0:
            return 65535.0
        return 255.0 if low >= 0.0 and high <= 255.0 else None
    if low < 1.0 - _ROUNDING:
        return None
    if high <= _ROUNDING:
        return 1.0
    return 255.0 if _DARK <= high <= 255.0 else None
