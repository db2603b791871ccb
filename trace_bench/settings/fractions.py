"""Fractions in YAML: `700/1700` is exact. The rounded 0.411765 is above it, and a switch came a step late."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from trace_bench.system.errors import TraceBenchError

_FRACTION = re.compile(r"(\d+)/(\d+)")


def with_numbers(key: str, value: Any) -> Any:
    """The value of setting `key`, with a number for every fraction of two whole numbers in it."""
    if isinstance(value, str) and (found := _FRACTION.fullmatch(value)):
        numerator, denominator = map(int, found.groups())
        if denominator == 0:
            raise TraceBenchError(f"{key}={value} divides by zero; write another number after the slash.")
        return numerator / denominator
    if isinstance(value, Mapping):
        return {name: with_numbers(f"{key}.{name}", item) for name, item in value.items()}
    if isinstance(value, list):
        return [with_numbers(key, item) for item in value]
    return value
