"""What a class of trace_bench declares, read from its source: importing it would load torch.

The source answers only where it leaves no doubt. For a class from elsewhere, and for one that is made in a
way which is not understood here, the answer is None, and the caller imports the class.
"""

from __future__ import annotations

import ast
import collections.abc
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from trace_bench.system.annotations import fits

_PACKAGE = Path(__file__).resolve().parents[1]
_ROOT = _PACKAGE.name
_TYPES: dict[str, Any] = {
    "bool": bool, "int": int, "float": float, "str": str, "list": list, "tuple": tuple, "dict": dict,
    "Sequence": collections.abc.Sequence, "Mapping": collections.abc.Mapping,
}  # fmt: skip
_BARE = ("ABC", "Protocol", "Generic", "object")  # base classes that declare nothing
_ANYTHING = object  # an annotation that says nothing about numbers, texts, lists and the like
_Function = ast.FunctionDef | ast.AsyncFunctionDef


class _UnsureError(Exception):
    """The source does not tell."""


@dataclass(frozen=True)
class Declaration:
    """The settings and constants of a class."""

    parameters: frozenset[str]
    annotations: Mapping[str, Any]  # without those that the source leaves open
    unsure: frozenset[str]  # parameters whose annotation the source leaves open
    attributes: Mapping[str, Any]  # class attributes with a constant value, inherited ones too
    names: frozenset[str]  # of all class attributes and methods

    def takes(self, settings: Mapping[str, Any]) -> bool:
        """Whether the class takes these settings for sure."""
        return all(
            key in self.parameters
            and key not in self.unsure
            and (key not in self.annotations or fits(value, self.annotations[key]))
            for key, value in settings.items()
        )

    def constant(self, name: str, default: Any) -> Any:
        """The value of a class attribute; `default` without one.

        Raises:
            LookupError: there is one, but its value is not in the source.
        """
        if name not in self.names:
            return default
        return self.attributes[name]


@cache
def declaration(target: str) -> Declaration | None:
    """What a class such as trace_bench.methods.sds.SDS declares; None if its source does not tell."""
    module, _, name = target.rpartition(".")
    try:
        return _declaration(_lineage(module, name))
    except (_UnsureError, OSError, SyntaxError, ValueError, RecursionError):
        return None


@dataclass(frozen=True)
class _Class:
    module: str
    node: ast.ClassDef

    @property
    def is_dataclass(self) -> bool:
        return any(_called(item) == "dataclass" for item in self.node.decorator_list)

    def functions(self) -> dict[str, _Function]:
        return {item.name: item for item in self.node.body if isinstance(item, _Function)}

    def constants(self) -> Iterator[tuple[str, ast.expr | None]]:
        """The assigned names of the body with their values, without the fields of a dataclass."""
        for item in self.node.body:
            if isinstance(item, ast.Assign):
                yield from ((t.id, item.value) for t in item.targets if isinstance(t, ast.Name))
            elif isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and item.value:
                yield item.target.id, item.value

    def fields(self) -> Iterator[tuple[str, ast.expr]]:
        """The fields of a dataclass that its constructor takes, with their annotations."""
        for item in self.node.body:
            if not isinstance(item, ast.AnnAssign) or not isinstance(item.target, ast.Name):
                continue
            kind = _called(item.annotation)
            if kind == "InitVar" or isinstance(item.annotation, ast.Constant):
                raise _UnsureError
            given = item.value.keywords if isinstance(item.value, ast.Call) else []
            if kind != "ClassVar" and not any(word.arg == "init" for word in given):
                yield item.target.id, item.annotation
            elif kind != "ClassVar":
                raise _UnsureError


@dataclass(frozen=True)
class _Alias:
    module: str
    meaning: ast.expr


def _called(node: ast.expr) -> str:
    """The last name of `name`, `package.name`, `name(...)` or `name[...]`; empty for anything else."""
    if isinstance(node, (ast.Call, ast.Subscript)):
        return _called(node.func if isinstance(node, ast.Call) else node.value)
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _lineage(module: str, name: str) -> list[_Class]:
    """The class and its base classes, in the order in which Python looks for attributes."""
    found = _find(module, name)
    if not isinstance(found, _Class):
        raise _UnsureError
    node = found.node
    if node.keywords or any(_called(item) != "dataclass" for item in node.decorator_list):
        raise _UnsureError
    for item in node.decorator_list:
        words = item.keywords if isinstance(item, ast.Call) else []
        if any(word.arg == "init" for word in words):
            raise _UnsureError
    known = (_Function, ast.Assign, ast.AnnAssign, ast.Expr, ast.Pass)
    if not all(isinstance(item, known) for item in node.body):
        raise _UnsureError
    bases = [base for base in node.bases if _called(base) not in _BARE]
    if not all(isinstance(base, (ast.Name, ast.Subscript)) for base in bases):
        raise _UnsureError
    lineages = [_lineage(found.module, _called(base)) for base in bases]
    return [found, *_merged([*lineages, [lineage[0] for lineage in lineages]])]


def _merged(lineages: list[list[_Class]]) -> list[_Class]:
    """Python's order (C3): a class comes before its bases, and bases in the order of the class statement."""
    waiting = [[(item.module, item.node.name) for item in lineage] for lineage in lineages]
    classes = {(item.module, item.node.name): item for lineage in lineages for item in lineage}
    order: list[_Class] = []
    while waiting := [names for names in waiting if names]:
        free = [names[0] for names in waiting if not any(names[0] in other[1:] for other in waiting)]
        if not free:
            raise _UnsureError
        order.append(classes[free[0]])
        waiting = [[name for name in names if name != free[0]] for names in waiting]
    return order


def _declaration(lineage: list[_Class]) -> Declaration:
    names: set[str] = set()
    attributes: dict[str, Any] = {}
    for cls in lineage:
        own = cls.functions()
        for name, function in own.items():
            if name not in names and any(_called(d) == "abstractmethod" for d in function.decorator_list):
                raise _UnsureError  # abstract: the caller names what is missing
        for key, value in cls.constants():
            if key not in names and isinstance(value, ast.Constant):
                attributes[key] = value.value
        names |= {*own, *(key for key, _ in cls.constants())}
    taken = _taken(lineage)
    annotations: dict[str, Any] = {}
    unsure = set()
    for key, (module, annotation) in taken.items():
        try:
            if annotation is not None:
                annotations[key] = _evaluated(module, annotation)
        except _UnsureError:
            unsure.add(key)
    return Declaration(frozenset(taken), annotations, frozenset(unsure), attributes, frozenset(names))


def _taken(lineage: list[_Class]) -> dict[str, tuple[str, ast.expr | None]]:
    """What the constructor takes, through **kwargs into the base classes: name -> module and annotation."""
    taken: dict[str, tuple[str, ast.expr | None]] = {}
    own_names: dict[str, tuple[str, ast.expr | None]]
    for place, cls in enumerate(lineage):
        maker = cls.functions().get("__init__")
        if maker is None and not cls.is_dataclass:
            continue
        if maker is None:
            own_names = {
                key: (base.module, annotation)
                for base in reversed(lineage[place:])
                if base.is_dataclass
                for key, annotation in base.fields()
            }
        else:
            if maker.decorator_list:
                raise _UnsureError
            args = [*maker.args.posonlyargs, *maker.args.args][1:] + maker.args.kwonlyargs
            own_names = {arg.arg: (cls.module, arg.annotation) for arg in args}
        taken = own_names | taken
        if maker is None or maker.args.kwarg is None:
            break
    return taken


def _evaluated(module: str, node: ast.expr) -> Any:
    """The type that an annotation means, as far as `fits` judges it."""
    if isinstance(node, ast.Constant):
        if node.value is None:
            return None.__class__
        if isinstance(node.value, str):
            return _evaluated(module, ast.parse(node.value, mode="eval").body)
        raise _UnsureError
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        left, right = _evaluated(module, node.left), _evaluated(module, node.right)
        return left | right
    if isinstance(node, ast.Attribute):
        return _ANYTHING
    if isinstance(node, ast.Subscript):
        of = _evaluated(module, node.value)
        if of is _ANYTHING or of is tuple:
            return of
        items = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        arguments = tuple(_evaluated(module, item) for item in items)
        return of[arguments if len(arguments) > 1 else arguments[0]]
    if not isinstance(node, ast.Name):
        raise _UnsureError
    found = _find(module, node.id)
    if isinstance(found, _Alias):
        return _evaluated(found.module, found.meaning)
    if found is None and node.id not in _TYPES:
        raise _UnsureError
    return _ANYTHING if isinstance(found, _Class) else _TYPES.get(node.id, _ANYTHING)


def _find(module: str, name: str) -> _Class | _Alias | str | None:
    """What a name of a module means: a class of ours, another name for a type, the package it comes from,
    or nothing."""
    found = _bound(module).get(name)
    if isinstance(found, ast.ClassDef):
        return _Class(module, found)
    if isinstance(found, tuple):
        origin, original = found
        return _find(origin, original) if origin.partition(".")[0] == _ROOT else origin
    return None if found is None else _Alias(module, found)


@cache
def _bound(module: str) -> dict[str, ast.ClassDef | ast.expr | tuple[str, str] | None]:
    """The names of a module: classes, expressions, and (module, name) of what it imports."""
    found: dict[str, Any] = {}
    for item in _statements(_source(module).body):
        new: dict[str, Any] = {}
        if isinstance(item, ast.ClassDef):
            new = {item.name: item}
        elif isinstance(item, ast.ImportFrom):
            if item.level or item.module is None:
                raise _UnsureError
            new = {alias.asname or alias.name: (item.module, alias.name) for alias in item.names}
        elif isinstance(item, (ast.Assign, ast.AnnAssign)) and item.value is not None:
            targets = item.targets if isinstance(item, ast.Assign) else [item.target]
            new = {target.id: item.value for target in targets if isinstance(target, ast.Name)}
        for name, meaning in new.items():
            if name in found:
                raise _UnsureError
            found[name] = meaning
    return found


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a module, with those for type checkers only."""
    for item in body:
        if isinstance(item, ast.If) and _called(item.test) == "TYPE_CHECKING":
            yield from item.body
        else:
            yield item


@cache
def _source(module: str) -> ast.Module:
    first, *rest = module.split(".")
    if first != _ROOT or not rest:
        raise _UnsureError
    path = _PACKAGE.joinpath(*rest)
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_bytes())
