"""Random orders that depend only on a key, not on a random generator that a library may change."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")


def digest(key: str, *parts: object) -> str:
    """64 hexadecimal digits for `parts` under `key`."""
    return hashlib.sha256("\n".join([key, *map(str, parts)]).encode()).hexdigest()


def coin(key: str, *parts: object) -> int:
    """0 or 1."""
    return int(digest(key, *parts), 16) % 2


def shuffled(items: Iterable[T], key: str, *purpose: object) -> list[T]:
    """The items in an order that looks random without the key."""
    listed = list(items)
    order = sorted(range(len(listed)), key=lambda i: digest(key, *purpose, i))
    return [listed[i] for i in order]
