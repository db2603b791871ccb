"""Values of the configuration against the annotations of what takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import pytest

from trace_bench.system.annotations import annotations_of, fits, in_words

if TYPE_CHECKING:
    from nowhere import Nothing


class Base:
    def __init__(self, *, a: float, b: Nothing) -> None: ...


class Mine(Base):
    def __init__(self, c: int | None, **more: Any) -> None: ...


def test_annotations_come_from_all_base_classes_but_not_from_type_checkers():
    found = annotations_of(Mine)
    assert found["a"] is float
    assert found["c"] == int | None
    assert "b" not in found


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        (float, [1, 1.5, float("inf")], ["a", None, True, [1], float("nan")]),
        (int, [1, 1e4], [1.5, "1", True, None, float("nan")]),
        (bool, [True], [1, "true"]),
        (str, ["a"], [1, None]),
        (float | None, [None, 2], ["a"]),
        (float | Sequence[float], [1, [1, 2.5]], ["ab", ["a"], None]),
        (Mapping[str, float], [{"a": 1}], [{"a": "b"}, [1]]),
        (tuple[int, int], [[1, 2]], [1, "ab"]),
        (Literal["x"], ["x", "y"], []),
        (Any, [object()], []),
    ],
)
def test_what_fits(annotation, good, bad):
    assert all(fits(value, annotation) for value in good)
    assert not any(fits(value, annotation) for value in bad)


def test_in_words():
    assert in_words(float | Sequence[float] | None) == "a number, a list of numbers or null"
