"""Each check of a method fails for a method that needs it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from analytic_prior import make
from small_method import Good, WrongCost

from trace_bench.methods.base import Distilled, Method
from trace_bench.methods.check import CHECKS, Subject
from trace_bench.priors.text import embed_prompt
from trace_bench.system.checks import Check

SETTINGS = {
    "display_name": "Good",
    "citation": "You, this year",
    "reference": {"steps": 9, "views_per_step": 1},
}


class WithGraph(Good):
    def step(self, *args: Any) -> Distilled:
        return Distilled(super().step(*args).grad.requires_grad_())


class Bare(Good):
    def step(self, latents: torch.Tensor, *args: Any) -> Any:
        return super().step(latents, *args).grad


class Zero(Good):
    def step(self, *args: Any) -> Distilled:
        return Distilled(0.0 * super().step(*args).grad)


class NaN(Good):
    def step(self, *args: Any) -> Distilled:
        return Distilled(torch.nan * super().step(*args).grad)


class Mean(Good):
    def step(self, *args: Any) -> Distilled:
        return Distilled(super().step(*args).grad.mean(0))


class Single(Good):
    def step(self, *args: Any) -> Distilled:
        return Distilled(super().step(*args).grad.float())


class LogsVectors(Good):
    def step(self, *args: Any) -> Distilled:
        return Distilled(super().step(*args).grad, {"seen": torch.zeros(2)})


class SmallTarget(Good):
    def step(self, *args: Any) -> Distilled:
        return Distilled(super().step(*args).grad, target=torch.zeros(1))


class SingleT(Good):
    def step(self, *args: Any) -> Distilled:
        return Distilled(super().step(*args).grad, t=torch.tensor(500))


class InPlace(Good):
    def step(self, latents: Any, *args: Any) -> Distilled:
        answer = super().step(latents, *args)
        latents += 1.0
        return answer


class Global(Good):
    def step(self, latents: Any, *args: Any) -> Distilled:
        return Distilled(super().step(latents, *args).grad + torch.randn_like(latents))


class Forgetful(Good):
    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class Normalised(Good):
    def step(self, *args: Any) -> Distilled:
        grad = super().step(*args).grad
        return Distilled(grad / grad.norm())


class Thaws(Good):
    def step(self, *args: Any) -> Distilled:
        self.prior.network.requires_grad_(True)
        return super().step(*args)


class Crashes(Good):
    def step(self, *args: Any) -> Distilled:
        raise IndexError("out of range")


def subject(cls: type[Method], **settings: Any) -> Subject:
    prior = make()
    prior.network = torch.nn.Linear(1, 1).requires_grad_(False)  # type: ignore[attr-defined]
    return Subject(
        lambda: cls(prior, guidance_scale=None), prior, embed_prompt(prior, "a duck"), SETTINGS | settings
    )


def failed(checked: Subject) -> dict[str, str]:
    return {result.name: result.reason for check in CHECKS if not (result := check(checked)).ok}


def test_a_good_method_passes() -> None:
    assert failed(subject(Good)) == {}


CASES: list[tuple[type[Method], str, str]] = [
    (WrongCost, "declared cost = counted cost", "declares 3 UNet items, but used 1 (step 0, 1 view)"),
    (WithGraph, "gradient", "it has a graph"),
    (Bare, "gradient", "step() must return Distilled, but returned Tensor"),
    (Zero, "gradient", "zero at step 0"),
    (NaN, "gradient", "NaN or infinite at step 0"),
    (Mean, "gradient", "shape [3, 8, 8], latents [2, 3, 8, 8]"),
    (Single, "gradient", "torch.float32, latents torch.float64"),
    (LogsVectors, "log and target", "log['seen'] is no scalar tensor"),
    (SmallTarget, "log and target", "does not have the latents' shape"),
    (SingleT, "log and target", "one timestep per latent"),
    (InPlace, "latents left alone", "changes the latents in place"),
    (Global, "one seed, one run", "draw from `rng`, by name"),
    (Forgetful, "resume", "a resumed run differs at step 1"),
    (Normalised, "views are independent", "depends on the other views"),
    (Thaws, "prior stays frozen", "require a gradient"),
    (Crashes, "gradient", "IndexError: out of range"),
]


@pytest.mark.parametrize(("cls", "name", "says"), CASES, ids=[case[0].__name__ for case in CASES])
def test_a_broken_method_fails(cls: type[Method], name: str, says: str) -> None:
    assert says in failed(subject(cls))[name]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"citation": ""}, "the YAML has no citation"),
        ({"reference": {"steps": 1, "views": 2}}, "reference has views"),
        ({"guidance_scale": 0}, "guidance_scale is 0"),
    ],
)
def test_a_poor_yaml_fails(settings: dict[str, Any], says: str) -> None:
    assert says in failed(subject(Good, **settings))["YAML: name, citation, budget"]


def test_every_check_has_a_method_that_fails_it() -> None:
    named = {name for _, name, _ in CASES} | {"YAML: name, citation, budget"}
    assert named == {check.name for check in CHECKS}


def test_a_check_that_is_ok_and_one_that_is_not_are_a_line_each() -> None:
    fine: Check[None] = Check("this", lambda _: "tried")
    assert str(fine(None)) == f"ok    {'this':<44}tried"
