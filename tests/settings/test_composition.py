"""Every combination composes, and choices imply others."""

from __future__ import annotations

import pytest
from composed import EXTERNAL, FILE_SETS, NEEDED, job, options, toy_scale

from trace_bench.settings.config import check_settings


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", [name for name in options("method") if name not in ("external", "control")]
)
def test_every_method_with_every_protocol(method):
    for prior, representation in (("tiny", "gaussians"), ("sd21", "image")):
        made = job(f"method={method}", f"prior={prior}", f"representation={representation}")
        assert made.choices["method"] == method
        assert made.choices["prior"] == prior
        assert made.steps >= 1
        assert prior != "tiny" or made.method["negative_prompt"] == ""  # it has no words for what is ugly
        check_settings("method", made.method)


@pytest.mark.parametrize("prior", ["tiny", "sd21"])
def test_what_is_made_elsewhere_has_no_budget_and_no_start(prior):
    made = job("method=external", f"prior={prior}", *EXTERNAL)
    assert (made.steps, made.views_per_step, made.scale, made.choices["init"]) == (0, 0, None, "none")
    assert not made.distils
    check_settings("method", made.method)


@pytest.mark.slow
@pytest.mark.parametrize("prompt_set", options("prompt_set"))
def test_every_prompt_set(prompt_set):
    more = ["prompt_set.file=mine.txt"] if prompt_set in FILE_SETS else []
    assert job(f"prompt_set={prompt_set}", *more).choices["prompt_set"] == prompt_set


@pytest.mark.slow
@pytest.mark.parametrize("protocol", options("protocol"))
def test_settings_of_every_yaml_are_taken_by_its_class(protocol):
    for group in ("representation", "init", "prior"):
        for option in options(group):
            more = NEEDED.get(option, [])
            made = job(f"protocol={protocol}", f"{group}={option}", *more)
            check_settings(group, getattr(made, group))


@pytest.mark.parametrize(
    ("overrides", "prior", "protocol"),
    [
        ([], "tiny", "toy"),
        (["prompt_set=toy"], "tiny", "toy"),
        (["prompt_set=gpteval3d"], "sd21", "paper"),
        (["prompt_set=paper"], "sd21", "paper"),
        (["prompt_set=coco", "prompt_set.file=x.json"], "sd21", "paper"),
        (["prompt_set=file", "prompt_set.file=x.txt"], "tiny", "toy"),
        (["prompt_set=gpteval3d", "prior=tiny"], "tiny", "toy"),
        (["prior=tiny", "prompt_set=gpteval3d"], "tiny", "toy"),
        (["prompt_set=toy", "prior=sd15"], "sd15", "paper"),
        (["prompt_set=gpteval3d", "protocol=toy"], "sd21", "toy"),
    ],
)
def test_a_prompt_set_brings_its_prior_and_a_prior_its_protocol(overrides, prior, protocol):
    made = job(*overrides)
    assert (made.choices["prior"], made.choices["protocol"]) == (prior, protocol)


def test_toy_protocol():
    made = job("method=sds")
    assert (made.steps, made.views_per_step, made.resolution, made.background) == (240, 1, 64, "random")
    assert made.cameras["distance"] == [2.5, 2.8]
    assert made.rig == {
        "n_views": 120,
        "elevation_deg": 15,
        "distance": 2.65,
        "fovy_deg": 42.5,
        "resolution": 128,
    }


@pytest.mark.parametrize("method", ["sds", "trace", "vsd"])
def test_paper_protocol_takes_each_methods_own_budget(method):
    made = job(f"method={method}", "prior=sd21")
    reference = made.method["reference"]
    assert (made.steps, made.views_per_step) == (reference["steps"], reference["views_per_step"])
    assert (made.resolution, made.background) == (1024, "black")
    assert made.cameras == {
        "distance": [1.5, 4.0],
        "fovy_deg": [40.0, 70.0],
        "elevation_deg": [-10.0, 60.0],
        "distribution": "released",
        "azimuth_strata": None,
    }
    assert (made.rig["n_views"], made.rig["elevation_deg"], made.rig["fovy_deg"]) == (120, 15.0, 70.0)


def test_what_the_toy_protocol_changes_in_a_method_stays_in_the_toy_protocol():
    assert job("method=sds").scale == toy_scale("sds") != 101
    assert job("method=trace_official").scale == job("method=trace").scale == toy_scale("trace")
    assert job("method=sds", "prior=sd21").scale == 101
    assert job("method=sds", "guidance_scale=3").scale == 3
    assert job("method=sds", "guidance_scale=null").scale == toy_scale("sds")
    toy, paper = job(), job("prior=sd21")
    assert toy.representation["lr"]["means"] > paper.representation["lr"]["means"]
