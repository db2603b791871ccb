"""The runs planned by a command."""

from __future__ import annotations

import pytest
from composed import plan, toy_scale

from trace_bench.settings.typed_text import readable_overrides
from trace_bench.sweeps import planning, sweep
from trace_bench.sweeps.planning import Fixed, _expand, make_plan
from trace_bench.system.errors import TraceBenchError


def names(runs):
    return [(r.identity.method, int(r.identity.prompt_id), r.identity.guidance_scale) for r in runs]


def test_a_sweep_goes_through_the_whole_set_by_every_method(model):
    found = names(plan(model, "method=sds,vsd,trace"))
    assert found[:3] == [(name, 0, toy_scale(name)) for name in ("sds", "vsd", "trace")]
    assert len(set(found)) == 24


def test_without_m_there_is_one_run(model):
    assert names(plan(model, "method=sds", multirun=False)) == [("sds", 0, toy_scale("sds"))]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prompt", "ids"),
    [
        ("prompt=3", [3]),
        ("prompt=0,3", [0, 3]),
        ("prompt=[0,3]", [0, 3]),
        ("prompt=0-2", [0, 1, 2]),
        ("prompt=0-1,4-5", [0, 1, 4, 5]),
        ("prompt=range(2,5)", [2, 3, 4]),
        ("prompt=a red cube,a duck", [0, 4]),
        ("prompt=choice(1,2)", [1, 2]),
    ],
)
def test_prompt_on_the_command_line_replaces_the_sets_sweep(model, prompt, ids):
    assert [i for _, i, _ in names(plan(model, "method=sds", prompt))] == ids


def _expanded(overrides):
    return _expand(overrides, True, Fixed(overrides))


def test_a_command_composes_once_for_each_method_and_once_for_what_they_share(monkeypatch, tmp_path):
    """Also for many prompts and seeds, and for the launcher."""
    composed = []

    def compose(overrides, config_dir=None):
        composed.append(overrides)
        return compose_config(overrides, config_dir)

    def stop(*args):
        raise TraceBenchError("enough")

    compose_config = planning.compose_config
    monkeypatch.setattr(planning, "compose_config", compose)
    monkeypatch.setattr(sweep, "preflight", stop)
    swept = ["method=sds,vsd", "seed=0,1,2", "prompt=0-7", f"output_root={tmp_path}"]
    assert sweep.main(["-m", *swept]) == sweep.EXIT_MISTAKE
    assert len(composed) == 2 + 1


@pytest.mark.parametrize(("per_job", "jobs"), [(3, 3), (100, 1)])
def test_prompts_per_job(model, per_job, jobs):
    overrides = [f"prior.repo={model}", "method=sds", f"prompts_per_job={per_job}"]
    assert len(_expanded(overrides)) == jobs
    assert [i for _, i, _ in names(plan(model, "method=sds", f"prompts_per_job={per_job}"))] == list(range(8))


def test_gpteval3d_is_planned_as_110_prompts(monkeypatch, tmp_path):
    """The jobs follow from the YAML; only their texts need the file."""
    found = _expanded(["method=sds,trace", "prompt_set=gpteval3d", "prompts_per_job=10"])
    prompts = [item for items in found for item in items if item.startswith("prompt=")]
    assert prompts[:2] == ["prompt=0-9", "prompt=0-9"]
    assert prompts[-1] == "prompt=100-109"
    assert len(found) == 22


def test_two_prompt_sets_are_not_swept_with_the_prompts_of_one(model):
    with pytest.raises(TraceBenchError, match="one prompt set"):
        plan(model, "prompt_set=toy,paper")


def test_the_same_run_twice_is_one_run(model):
    assert len(plan(model, "guidance_scale=10,10.0", "prompt=0,a red cube")) == 1


@pytest.mark.parametrize(
    ("typed", "multirun", "texts"),
    [
        ("prompt=a red cube", False, ["a red cube"]),
        ("prompt=a crab, low poly", False, ["a crab, low poly"]),
        ("prompt='a crab, low poly'", False, ["a crab, low poly"]),
        ("prompt=a lion's mane", False, ["a lion's mane"]),
        ('prompt=a "big" (red) cube: {1}', False, ['a "big" (red) cube: {1}']),
        ("prompt=a lion's mane,a duck", True, ["a lion's mane", "a duck"]),
        ("prompt=a red cube,a duck", True, ["a red cube", "a duck"]),
        ("prompt='a crab, low poly',a duck", True, ["a crab, low poly", "a duck"]),
    ],
)
def test_prompts_as_people_type_them(model, typed, multirun, texts):
    overrides = readable_overrides([f"prior.repo={model}", "method=sds", typed], multirun)
    assert [run.prompt.text for run in make_plan(overrides, multirun)] == texts
