"""The methods give the gradients that the published codes give (docs/agreement.md)."""

from __future__ import annotations

from itertools import islice

import pytest
import torch
from agreement_page import PAGE, WHY, listed
from published import CASES, INDEX, inputs_of, largest, replay

from trace_bench.cameras import make_cameras

ROWS = listed(PAGE.read_text(encoding="utf-8"))
DIFFERING = [name for name, case in CASES.items() if "differs_by" in case]
#: Below this, errors are rounding, which depends on the processor.
ROUNDING = 1e-14


def problems(steps):
    return {step.step: step.problems for step in steps if step.problems}


@pytest.mark.parametrize("name", CASES)
def test_every_case(name):
    """Gradients, adapters and ranges of draws at every step; and the page says what is measured."""
    steps = list(replay(CASES[name]))
    assert problems(steps) == {}
    found, tolerance = largest(steps), CASES[name]["tolerance"]
    assert found.keys() == tolerance.keys()
    for quantity, error in found.items():
        assert error <= tolerance[quantity], quantity
        error_listed, tolerance_listed = ROWS[name, quantity]
        assert tolerance_listed == tolerance[quantity]
        assert 0.1 < max(error, ROUNDING) / max(error_listed, ROUNDING) < 10.0, "run `make agreement`"


def test_the_page_lists_what_is_tested():
    assert set(ROWS) == {(name, quantity) for name, case in CASES.items() for quantity in case["tolerance"]}
    page = PAGE.read_text(encoding="utf-8")
    assert all(reason in page for reason in WHY.values())
    for peer in INDEX["peers"].values():
        assert f"{peer['repository']}/blob/{peer['commit']}/{peer['file']}" in page


@pytest.mark.parametrize("name", DIFFERING)
def test_known_differences(name):
    """`test_every_case` undoes the difference. As they are, these cases differ (two steps suffice)."""
    steps = list(islice(replay(CASES[name], as_published=False), 2))
    assert problems(steps) == {}
    assert all(0.05 < step.errors["grad"] < 1.0 for step in steps)


def test_which_cases_differ():
    methods = {CASES[name]["method"]: CASES[name]["differs_by"] for name in DIFFERING}
    v = "take_v_as_epsilon"
    assert methods == {"SDS": v, "CSD": v, "CDS": v, "TSM": "alternate_pooled"}
    assert {name for name, case in CASES.items() if case["prior"] == "v"} - set(DIFFERING) == {
        "sdi-v", "sdi-v-perp_neg",
    }  # fmt: skip


def test_a_rounded_share_is_found_by_the_ranges_alone():
    """0.411765 for 700/1700: recorded draws give the right gradients, but step 700 asks for another range."""
    case = CASES["trace-released_trained"]
    steps = list(replay(case, x0_switch=0.411765))
    assert largest(steps)["grad"] <= case["tolerance"]["grad"]
    assert problems(steps) == {700: ["x0_t is drawn from [20, 700], not from [20, 500]"]}


def test_the_gradient_of_trace_does_not_depend_on_training():
    """`trace_official`, whose adapter is frozen: the recorded adapter is put back before each step."""
    case = CASES["trace-released_trained"]
    steps = list(replay(case, config="trace_official"))
    assert largest(steps) == {"grad": pytest.approx(0.0, abs=case["tolerance"]["grad"])}
    assert all(found == ["camera_dropout is not drawn"] for found in problems(steps).values())


@pytest.mark.parametrize("name", ["eps", "sdxl"])
def test_cameras_are_those_that_the_codes_were_given(name):
    given = inputs_of(name, "float32")[2]
    made = make_cameras(given.elevation_deg, given.azimuth_deg, given.distance, given.fovy_deg, 64, 64)
    torch.testing.assert_close(made.c2w, given.c2w, rtol=0.0, atol=1e-6)
