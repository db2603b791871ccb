"""What a user types is data: prompts with commas, quotes, brackets and `${...}` arrive as they were typed."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from trace_bench.settings.composing import parse_overrides
from trace_bench.settings.prompts import load_prompt_set
from trace_bench.settings.typed_text import as_data, as_overrides, readable_overrides
from trace_bench.sweeps.planning import compose_run, make_plan

pytestmark = pytest.mark.slow

ODD = [
    "a crab, low poly",
    "price ${5",
    "${oc.env:HOME}",
    "a ${steps} ${nowhere}",
    r"a \${steps}",
    "日本の犬",
    "'tis a crab",
    '"big" cube, red',
    "a cat (red,blue)",
    "1,000 coins, gold",
    "a=b",
    "=",
    "[low poly] crab",
    "{a: b}",
    "a # b",
    "a\\",
    "null",
    "glob(s*)",
    "a lion's mane",
    "🦆",
    "~x",
    "a duck,",
]


def texts(typed, multirun, *more):
    overrides = readable_overrides(["method=sds", *more, f"prompt={typed}"], multirun)
    return [run.prompt.text for run in make_plan(overrides, multirun)]


@pytest.mark.parametrize("multirun", [False, True])
@pytest.mark.parametrize("text", ODD)
def test_one_shell_argument_is_one_prompt(text, multirun):
    assert texts(text, multirun) == [text]


def test_the_papers_prompts_can_be_typed():
    spec = OmegaConf.to_container(compose_run(["prompt_set=paper"]).prompt_set)
    typed = [prompt.text for prompt in load_prompt_set("paper", spec).prompts]
    assert len(typed) == 23
    for text in typed:
        (override,) = readable_overrides([f"prompt={text}"], multirun=True)
        assert parse_overrides([override])[0].value() == text


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("a crab,a duck", ["a crab", "a duck"]),
        ("a crab, low poly,a duck", ["a crab, low poly", "a duck"]),
        ('"a crab, low poly","a duck"', ["a crab, low poly", "a duck"]),
        ("'a crab, low poly',a duck", ["a crab, low poly", "a duck"]),
        ('["a crab,a duck","${x}"]', ["a crab,a duck", "${x}"]),
        ("日本,中国", ["日本", "中国"]),
        ("choice(a crab,a duck)", ["a crab", "a duck"]),
        ('"a ${x} b"', ["a ${x} b"]),
    ],
)
def test_several_prompts(typed, expected):
    assert texts(typed, True) == expected


@pytest.mark.parametrize("text", ["ugly, price ${5", "${steps}", "a, b: {c}", r"\${x}", "[a", "'a", "日本"])
@pytest.mark.parametrize("key", ["method.negative_prompt", "method.display_name"])
def test_other_texts_are_data_too(key, text):
    for multirun in (False, True):
        overrides = readable_overrides(["method=sds", f"{key}={text}"], multirun)
        assert make_plan(overrides, multirun)[0].job.method[key.partition(".")[2]] == text


def test_suffixes_of_the_prompt_are_data_too():
    text = ", foggy, price ${5"
    typed = ["method=sds_bridge", f"method.prompt_suffixes.source={text}"]
    (run,) = make_plan(readable_overrides(typed, False), multirun=False)
    assert run.job.method["prompt_suffixes"]["source"] == text


@pytest.mark.parametrize("text", ODD)
def test_from_python(text):
    given = as_overrides({"method": "sds", "prompt": text, "method.negative_prompt": text})
    (run,) = make_plan(given, multirun=False)
    assert (run.prompt.text, run.job.method["negative_prompt"]) == (text, text)


def test_other_settings_still_interpolate():
    assert as_data("steps=${seed}") == "steps=${seed}"
    assert make_plan(["seed=7", "steps=${seed}"], multirun=False)[0].job.steps == 7


def test_prompts_of_a_file_are_data(tmp_path):
    (tmp_path / "mine.txt").write_text("price ${5\n${oc.env:HOME}\na crab, low poly\n")
    plan = make_plan(["prompt_set=file", f"prompt_set.file={tmp_path / 'mine.txt'}"], multirun=True)
    assert [run.prompt.text for run in plan] == ["price ${5", "${oc.env:HOME}", "a crab, low poly"]
