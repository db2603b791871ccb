"""Every method on a tiny random checkpoint in SD 3's format."""

from __future__ import annotations

from functools import cache

import pytest
from configured import FLOW, NAMES, composed, configured
from sd_checkpoint import make_sd3_checkpoint

from trace_bench.methods.check import CHECKS, Subject, declared_cost
from trace_bench.priors.sd3 import StableDiffusion3Prior
from trace_bench.priors.text import embed_prompt
from trace_bench.system.checks import Check


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> StableDiffusion3Prior:
    folder = make_sd3_checkpoint(tmp_path_factory.mktemp("sd3") / "sd3", text_length=160)
    return StableDiffusion3Prior(str(folder), resolution=64)


@cache
def subject_of(prior: StableDiffusion3Prior, name: str) -> Subject:
    spec = composed(name, "sd3")
    text = embed_prompt(prior, "a red cube", "ugly", spec.get("prompt_suffixes"))
    return Subject(lambda: configured(name, prior, "sd3"), prior, text, spec)


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
@pytest.mark.parametrize("name", [*NAMES, *FLOW])
def test_every_method_passes_every_check(
    prior: StableDiffusion3Prior, name: str, check: Check[Subject]
) -> None:
    result = check(subject_of(prior, name))
    assert result.ok, result.reason


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
@pytest.mark.parametrize("name", FLOW)
def test_the_flow_methods_pass_every_check(
    prior: StableDiffusion3Prior, name: str, check: Check[Subject]
) -> None:
    result = check(subject_of(prior, name))
    assert result.ok, result.reason


@pytest.mark.parametrize("name", ["vsd", "trace"])
def test_an_adapter_costs_what_its_method_says(prior: StableDiffusion3Prior, name: str) -> None:
    result = Check("cost", declared_cost)(subject_of(prior, name))
    assert result.ok, result.reason
