"""Reads a group of settings from a representation's YAML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from trace_bench.system.errors import TraceBenchError

S = TypeVar("S")


def merged(name: str, defaults: Mapping[str, Any], given: Mapping[str, Any] | None) -> dict[str, Any]:
    """The defaults, overridden by `given`; unknown keys raise an error."""
    unknown = set(given or {}) - set(defaults)
    if unknown:
        raise TraceBenchError(
            f"representation.{name} has no key {', '.join(sorted(unknown))}; use {', '.join(defaults)}."
        )
    return {**defaults, **(given or {})}


def settings_from(cls: type[S], name: str, given: Mapping[str, Any] | None) -> S:
    """A settings dataclass from its defaults, overridden by `given`."""
    return cls(**merged(name, vars(cls()), given))
