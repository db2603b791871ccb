"""Properties of every method in conf/method; discovered by its YAML, built as in a run."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from configured import CONF, NAMES, composed, configured
from sd_checkpoint import make_checkpoint

from trace_bench.methods.check import CHECKS, Subject, declared_cost, gradient, views_apart
from trace_bench.priors.stable_diffusion import StableDiffusionPrior
from trace_bench.priors.text import embed_prompt
from trace_bench.system.checks import Check

DESCRIBES = {"_target_", "display_name", "citation", "reference", "paper", "defaults", "negative_prompt"}
SUMS_OVER_THE_BATCH = {"ism", "dreamer_xl", "bsd", "sctd"}


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> StableDiffusionPrior:
    folder = tmp_path_factory.mktemp("conformance")
    base = make_checkpoint(folder / "base", text_length=160)
    v = make_checkpoint(folder / "v", "v_prediction", seed=1)
    return StableDiffusionPrior(str(base), resolution=16, adapter_repo=str(v))


@cache
def subject_of(prior: StableDiffusionPrior, name: str, world: str = "sd21") -> Subject:
    spec = composed(name, world)
    text = embed_prompt(prior, "a red cube", "ugly", spec.get("prompt_suffixes"))
    return Subject(lambda: configured(name, prior, world), prior, text, spec)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
@pytest.mark.parametrize("name", NAMES)
def test_every_method_passes_every_check(
    prior: StableDiffusionPrior, name: str, check: Check[Subject]
) -> None:
    result = check(subject_of(prior, name))
    assert result.ok, result.reason


@pytest.mark.parametrize("name", NAMES)
def test_which_methods_sum_over_the_batch(prior: StableDiffusionPrior, name: str) -> None:
    reason = views_apart(subject_of(prior, name))
    assert ("a sum over the batch" in reason) == (name in SUMS_OVER_THE_BATCH)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_toy_world_s_settings_fit(prior: StableDiffusionPrior, name: str) -> None:
    """The tiny prior has few words: no negative prompt; and the settings are taken by the method."""
    spec = composed(name, "tiny")
    assert (CONF / "protocol" / "method" / "toy" / f"{name}.yaml").is_file()
    assert spec["negative_prompt"] == ""
    result = Check("gradient", gradient)(subject_of(prior, name, "tiny"))
    assert result.ok, result.reason


@pytest.mark.parametrize("name", NAMES)
def test_config_states_what_it_must(name: str) -> None:
    spec = composed(name, "sd21")
    assert spec["citation"]
    assert spec["display_name"]
    assert {"steps", "views_per_step"} <= set(spec["reference"]) <= {"steps", "views_per_step", "nerf"}
    assert "paper" not in spec or spec["paper"]["minutes"]  # of the methods that TraCe's tables have
    assert spec["guidance_scale"] is None or spec["guidance_scale"] > 0


@pytest.mark.parametrize("path", sorted((CONF / "method").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_hyper_parameter_names_its_source(path: Path) -> None:
    lines = path.read_text().splitlines()
    if any(line.startswith("defaults:") for line in lines):
        return  # a variant of another file
    settings = [line for line in lines if re.match(r"(  )?[a-z_]\w*: \S", line)]
    settings = [line for line in settings if line.split(":")[0].strip() not in DESCRIBES]
    assert settings
    assert [line for line in settings if "#" not in line and not shares_its_source(line)] == []


def shares_its_source(line: str) -> bool:
    """t_max comes after t_min, which names the source of both; the paper's numbers name it above."""
    return line.strip().startswith(("t_max: 500", "minutes:", "elo:", "image_reward:"))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("sdi", {"perp_neg": True, "skip_first_hop": True}),
        ("ism", {"perp_neg": True}),
        ("ism", {"plain_sds": True}),
        ("dreamer_xl", {"perp_neg": True}),
        ("csd", {"two_branch": True}),
        ("sds", {"t_schedule": "sqrt"}),
        ("csd", {"t_schedule": "sqrt"}),
        ("vsd", {"t_schedule": "sqrt"}),
        ("trace", {"camera_dropout": 1.0}),
        ("bsd", {"form": "standard"}),
        ("vsd", {"gamma": -0.5, "discriminator_target": "released"}),
        ("asd", {"gamma": 0.0}),
    ],
)
def test_switches_cost_what_they_say(prior: StableDiffusionPrior, name: str, changes: dict[str, Any]) -> None:
    text = embed_prompt(prior, "a red cube", "ugly")
    subject = Subject(lambda: configured(name, prior, **changes), prior, text, composed(name, "sd21"))
    result = Check("cost", declared_cost)(subject)
    assert result.ok, result.reason
