"""Whether a setting fits the annotation of the parameter that takes it: numbers, texts, flags, lists, dicts.

What an annotation says beyond these is not judged, so a class of your own may annotate what it likes.
"""

from __future__ import annotations

import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_SAYS: dict[Any, str] = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "a text",
    type(None): "null",
    Sequence: "a list",
    list: "a list",
    tuple: "a list",
    Mapping: "a mapping",
    dict: "a mapping",
}
_PLURAL = {int: "integers", float: "numbers", str: "texts"}


def annotations_of(target: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of what `target` takes, by name; of a class, with those of its base classes.

    Names that exist only for type checkers are left out.
    """
    makers = [target]
    if inspect.isclass(target):
        makers = [
            vars(cls)["__init__"] for cls in target.__mro__ if cls is not object and "__init__" in vars(cls)
        ]
    found: dict[str, Any] = {}
    for maker in makers:
        for name, annotation in getattr(maker, "__annotations__", {}).items():
            holder = types.SimpleNamespace(__annotations__={name: annotation})
            try:
                hint = typing.get_type_hints(holder, getattr(maker, "__globals__", {}))
            except (NameError, TypeError, AttributeError, SyntaxError):
                continue
            found.setdefault(name, hint[name])
    return found


def fits(value: Any, annotation: Any) -> bool:
    """Whether a value of the configuration fits an annotation; True if that says nothing about it."""
    origin = typing.get_origin(annotation) or annotation
    inner = typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, item) for item in inner)
    if origin not in _SAYS:
        return True
    if origin in (int, float):
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return is_number and not math.isnan(value) and (origin is float or float(value).is_integer())
    if origin in (Sequence, list, tuple):
        is_list = isinstance(value, (list, tuple))
        return is_list and (origin is tuple or not inner or all(fits(item, inner[0]) for item in value))
    if origin in (Mapping, dict):
        is_mapping = isinstance(value, Mapping)
        return is_mapping and (len(inner) < 2 or all(fits(item, inner[1]) for item in value.values()))
    return isinstance(value, origin)


def in_words(annotation: Any) -> str:
    """What fits an annotation, such as "a number, a list of numbers or null"."""
    origin = typing.get_origin(annotation) or annotation
    inner = typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        *first, last = [in_words(item) for item in inner]
        return f"{', '.join(first)} or {last}"
    if origin in (Sequence, list) and inner and inner[0] in _PLURAL:
        return f"a list of {_PLURAL[inner[0]]}"
    return _SAYS.get(origin, "something else")
