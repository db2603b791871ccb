"""Fractions such as 700/1700 in YAML and on the command line."""

from __future__ import annotations

import re

import pytest
from composed import CONF, base_job, changed, first_prompt, job

from trace_bench.runs.identity import RunSpec
from trace_bench.settings.config import settings_of
from trace_bench.settings.fractions import with_numbers
from trace_bench.system.errors import TraceBenchError


def test_a_fraction_is_its_number():
    assert with_numbers("x", "700/1700") == 700 / 1700
    nested = {"every": "250/3000", "ramp": ["500/1200", 0.98, 0.55, "500/1200"]}
    expected = {"every": 250 / 3000, "ramp": [500 / 1200, 0.98, 0.55, 500 / 1200]}
    assert with_numbers("x", nested) == expected


@pytest.mark.parametrize("value", ["a/b", "1/2/3", "-1/2", "1.5/2", "a 1/2 scale model", "7", 7, None, True])
def test_other_values_stay(value):
    assert with_numbers("x", value) is value


def test_division_by_zero_is_named():
    with pytest.raises(TraceBenchError, match=r"levels\.every=1/0 divides by zero"):
        with_numbers("levels", {"every": "1/0"})


def test_methods_get_numbers():
    assert settings_of(job("method=trace").method)["x0_switch"] == 700 / 1700
    sds = settings_of(job("method=sds").method)
    assert sds["max_step_percent"] == [500 / 1200, 0.98, 0.55, 500 / 1200]
    assert sds["grad_clamp"] == [0.0, 1.5, 2.0, 1000 / 1200]


def test_representations_get_numbers():
    nerf = settings_of(job("method=consistent3d", "prior=sd21", "representation=nerf").representation)
    assert nerf["levels"]["every"] == 250 / 3000
    assert nerf["losses"]["orientation"] == [0.0, 10.0, 1000.0, 2000 / 3000]


def test_a_fraction_on_the_command_line():
    made = job("method=sds", "method.grad_clamp=[1/3,1.5,2.0,2/3]", "method.min_step_percent=1/50")
    assert settings_of(made.method)["grad_clamp"] == [1 / 3, 1.5, 2.0, 2 / 3]
    assert settings_of(made.method)["min_step_percent"] == 0.02


def test_a_fraction_is_the_same_run_as_its_number(model):
    base = changed(base_job(), "prior.repo", str(model))
    prints = [
        RunSpec(made, *first_prompt(base)).fingerprint
        for made in (base, *(changed(base, "method.x0_switch", v) for v in (700 / 1700, "7/17", 0.411765)))
    ]
    assert prints[0] == prints[1] == prints[2] != prints[3]


@pytest.mark.parametrize("group", ["method", "protocol", "representation"])
def test_no_share_of_a_run_is_rounded(group):
    """A long decimal is a rounded fraction, but for the growth of a hash grid, which is a root."""
    lines = [line for path in (CONF / group).rglob("*.yaml") for line in path.read_text().splitlines()]
    assert [line for line in lines if re.search(r"\.\d{5}", line) and "growth" not in line] == []
