"""The source of a class says the same of it as the imported class, or nothing at all."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from trace_bench.system import declarations
from trace_bench.system.annotations import annotations_of, fits
from trace_bench.system.declarations import declaration
from trace_bench.system.targets import parameters

CONF = Path(__file__).resolve().parents[2] / "conf"
PARTS = ("method", "representation", "prior", "init")
TARGETS = sorted(
    {
        target
        for group in PARTS
        for file in (CONF / group).glob("*.yaml")
        for target in re.findall(r"^_target_: (\S+)", file.read_text(), re.MULTILINE)
    }
)
VALUES = (None, True, 0, 1.5, "text", [1, 2], ["a"], {"a": 1}, {"a": "b"})


@pytest.mark.parametrize("target", TARGETS)
def test_the_source_says_what_the_class_says(target):
    module, _, name = target.rpartition(".")
    cls, found = getattr(importlib.import_module(module), name), declaration(target)
    assert found is not None
    assert found.parameters == set(parameters(cls))
    assert not found.unsure
    annotations = annotations_of(cls)
    for key in found.parameters:
        for value in VALUES:
            judged = key not in annotations or fits(value, annotations[key])
            assert found.takes({key: value}) == judged, (key, value)
    assert not found.takes({"nothing_of_this_name": 1})
    for key in ("initial_points", "gives_points"):
        assert found.constant(key, "none") == getattr(cls, key, "none")


@pytest.fixture
def source(tmp_path, monkeypatch):
    """Declares a class of a module with this text."""
    monkeypatch.setattr(declarations, "_PACKAGE", tmp_path)
    for cached in (declarations.declaration, declarations._source, declarations._bound):
        cached.cache_clear()
    yield lambda text: (tmp_path / "mine.py").write_text(text) and declaration("trace_bench.mine.Mine")
    for cached in (declarations.declaration, declarations._source, declarations._bound):
        cached.cache_clear()


@pytest.mark.parametrize(
    "text",
    [
        "Mine = 3",
        "def Mine(a: int): ...",
        "class Mine(:",
        "@decorated\nclass Mine: ...",
        "class Mine(metaclass=Other): ...",
        "class Mine(One, Two): ...",
        "from elsewhere import Base\nclass Mine(Base): ...",
        "class Mine:\n    if True:\n        a = 1",
        "class Mine: ...\nclass Mine:\n    a = 1",
        "class Mine:\n    @abstractmethod\n    def step(self): ...",
        "@dataclass(init=False)\nclass Mine:\n    a: int = 1",
        "@dataclass\nclass Mine:\n    a: int = field(init=False)",
        "class Mine:\n    @wrapped\n    def __init__(self, a: int): ...",
    ],
)
def test_what_the_source_leaves_open_has_no_answer(source, text):
    assert source(text) is None


def test_an_annotation_that_the_source_leaves_open_is_not_judged(source):
    found = source("class Mine:\n    def __init__(self, a: made(), b: int): ...")
    assert found.takes({"b": 1})
    assert not found.takes({"a": 1})


def test_a_constant_that_is_computed_has_no_value(source):
    found = source("class Mine:\n    a = made()")
    assert found.constant("b", "none") == "none"
    with pytest.raises(LookupError):
        found.constant("a", "none")


def test_other_packages_have_no_answer():
    assert declaration("evaluation.metrics.clip_score.ClipScore") is None
    assert declaration("no_dots") is None
    assert declaration("") is None
