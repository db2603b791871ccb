"""The class behind a `_target_`: found by its name, and compared with its settings.

Every mistake is one sentence that names the key, the class or the module; nothing is built here.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from trace_bench.system.annotations import annotations_of, fits, in_words
from trace_bench.system.declarations import declaration
from trace_bench.system.errors import TraceBenchError

#: Arguments that the run gives, by config group; they are no settings.
GIVEN: dict[str, tuple[str, ...]] = {
    "method": ("prior", "seed"),
    "representation": ("points", "resolution", "latent_shape", "seed", "device"),
    "prior": ("device",),
}


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """End of a sentence about an unknown `word`: a similar known word if there is one, else a full stop."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else "."


def locate(group: str, spec: Mapping[str, Any]) -> Callable[..., Any]:
    """The class or function that a group's `_target_` names.

    Raises:
        TraceBenchError: there is no `_target_`, no such module or nothing of that name in it.
    """
    name = str(spec.get("_target_") or "")
    if not name:
        raise TraceBenchError(f"The {group} has no _target_, the class that makes it; add one to its YAML.")
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:
        raise TraceBenchError(
            f"{group}._target_={name} cannot be imported: {_why(error, module, attribute)}"
        ) from error


def _why(error: Exception, module: str, attribute: str) -> str:
    """The end of a sentence about a failed import."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        if f"{module}.".startswith(f"{error.name}."):
            return f"there is no module {error.name!r} in this folder or on PYTHONPATH."
        return f"it needs the module {error.name!r}, which is not installed."
    if isinstance(error, AttributeError) and f"has no attribute {attribute!r}" in str(error):
        return f"the module {module!r} has no {attribute!r}."
    if not module:
        return "write it as module.Class."
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


def parameters(target: Callable[..., Any]) -> list[str] | None:
    """Names that `target` takes, through `**kwargs` into its base classes; None if it takes any name."""
    if not inspect.isclass(target):
        found = inspect.signature(target).parameters.values()
        return None if any(p.kind is p.VAR_KEYWORD for p in found) else [p.name for p in found]
    names: list[str] = []
    for cls in target.__mro__:
        if "__init__" not in vars(cls) or cls is object:
            continue
        found = inspect.signature(vars(cls)["__init__"]).parameters.values()
        names += [
            p.name for p in found if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) and p.name != "self"
        ]
        if not any(p.kind is p.VAR_KEYWORD for p in found):
            return names
    return names


def check_target(group: str, spec: Mapping[str, Any], settings: Mapping[str, Any]) -> Callable[..., Any]:
    """A group's `_target_`, after making sure that it is complete and takes these settings.

    Raises:
        TraceBenchError: as `locate`; an abstract method is not defined; a setting is not taken, or its value
            does not fit the annotation.
    """
    target = locate(group, spec)
    missing = sorted(getattr(target, "__abstractmethods__", ()))
    if missing:
        base = next(cls for cls in getattr(target, "__mro__", ()) if missing[0] in vars(cls))
        raise TraceBenchError(
            f"{spec['_target_']} does not define {' and '.join(missing)}, which {base.__name__} requires."
        )
    known = parameters(target)
    annotations = annotations_of(target)
    for key, value in settings.items():
        if known is not None and key not in known:
            taken = [name for name in known if name not in GIVEN.get(group, ())]
            raise TraceBenchError(
                f"{group}.{key} is not a setting of {spec['_target_']}{did_you_mean(key, taken)}"
            )
        if key in annotations and not fits(value, annotations[key]):
            raise TraceBenchError(f"{group}.{key} must be {in_words(annotations[key])}, but is {value!r}.")
    return target


def check_declared(group: str, spec: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """`check_target` of a class that is not imported if its source tells that it takes the settings.

    Raises:
        TraceBenchError: as `check_target`.
    """
    declared = declaration(str(spec.get("_target_") or ""))
    if declared is None or not declared.takes(settings):
        check_target(group, spec, settings)


def constant_of(group: str, spec: Mapping[str, Any], name: str, default: Any) -> Any:
    """A class attribute of a group's `_target_`, or `default`; read from the source where it tells.

    Raises:
        TraceBenchError: as `locate`.
    """
    declared = declaration(str(spec.get("_target_") or ""))
    if declared is not None:
        with contextlib.suppress(LookupError):
            return declared.constant(name, default)
    return getattr(locate(group, spec), name, default)
