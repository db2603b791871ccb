"""How a representation takes a group of settings from its YAML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from trace_bench.system.errors import TraceBenchError

S = TypeVar("S")


def merged(name: str, defaults: Mapping[str, Any], given: Mapping[str, Any] | None) -> dict[str, Any]:
    """The defaults with what is given in their place; unknown keys are refused."""
    unknown = set(given or {}) - set(defaults)
    if unknown:
        raise TraceBenchError(
            f"representation.{name} has no key {', '.join(sorted(unknown))}; it takes {', '.join(defaults)}."
        )
    return {**defaults, **(given or {})}


def settings_from(cls: type[S], name: str, given: Mapping[str, Any] | None) -> S:
    """A dataclass of settings from its defaults and what is given."""
    return cls(**merged(name, vars(cls()), given))
