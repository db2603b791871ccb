"""Each check of a representation, and of a pair in the core, fails for one that needs it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from analytic_prior import LATENT_SHAPE
from analytic_prior import make as make_prior
from small_method import Good, WrongCost

from trace_bench.representations.check import CHECKS, Subject
from trace_bench.representations.image import Image
from trace_bench.representations.points import PointCloud
from trace_bench.runs import check as pairs

POINTS = PointCloud(torch.zeros(1, 3), torch.zeros(1, 3))


class Asks(Image):
    initial_points = "needed"


class Odd(Image):
    initial_points = "sometimes"


class Bright(Image):
    def render(self, *args: Any, **options: Any) -> Any:
        render = super().render(*args, **options)
        render.rgb = render.rgb + 1.0
        return render


class Flat(Image):
    def render(self, *args: Any, **options: Any) -> Any:
        render = super().render(*args, **options)
        render.normal = render.alpha
        return render


class SaysLatent(Image):
    @classmethod
    def is_latent(cls, settings: Any) -> bool:
        return True


class Lazy(Image):
    def post_backward(self, *args: Any) -> None:
        self.canvas.grad = None


class Global(Image):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.canvas.data += 0.01 * torch.rand_like(self.canvas)


class Forgetful(Image):
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.canvas.data.copy_(state["canvas"])


class Lends(Image):
    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "canvas": self.canvas.detach()}


class Compares(Image):
    def render(self, cameras: Any, *args: Any, **options: Any) -> Any:
        render = super().render(cameras, *args, **options)
        render.rgb = render.rgb / len(cameras)
        return render


class Hides(Image):
    def export(self, folder: Any) -> list[Any]:
        return super().export(folder)[:1]


class Nowhere(Image):
    def export(self, folder: Any) -> list[Any]:
        return []


def subject(cls: type[Image]) -> Subject:
    def make(points: PointCloud | None) -> Image:
        return cls(points, 8, LATENT_SHAPE, 0, "cpu", mode="rgb")

    return Subject(make, cls, POINTS, {"mode": "rgb"}, LATENT_SHAPE, 8)


def failed(cls: type[Image]) -> dict[str, str]:
    checked = subject(cls)
    return {result.name: result.reason for check in CHECKS if not (result := check(checked)).ok}


def test_a_good_representation_passes() -> None:
    assert failed(Image) == {}


CASES: list[tuple[type[Image], str, str]] = [
    (Asks, "initial points", "it is made without points too"),
    (Odd, "initial points", "initial_points is 'sometimes'"),
    (Bright, "render", "rgb leaves [0, 1]"),
    (Flat, "render", "normal is [2, 8, 8, 1]"),
    (SaysLatent, "is_latent", "is_latent is True, but render gives rgb"),
    (Lazy, "learning", "change nothing in the picture"),
    (Global, "one seed, one run", "two runs of one seed differ"),
    (Forgetful, "resume", "a resumed run ends elsewhere"),
    (Lends, "state_dict is a copy", "gives the tensors that train"),
    (Compares, "views are independent", "looks different in a batch of 2"),
    (Hides, "export", "not returned: asset.png"),
    (Nowhere, "export", "export returns no path"),
]


@pytest.mark.parametrize(("cls", "name", "says"), CASES, ids=[case[0].__name__ for case in CASES])
def test_a_broken_representation_fails(cls: type[Image], name: str, says: str) -> None:
    assert says in failed(cls)[name]


def test_every_check_has_a_representation_that_fails_it() -> None:
    assert {name for _, name, _ in CASES} == {check.name for check in CHECKS}


class Explodes(Image):
    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "canvas": torch.full_like(self.canvas, torch.nan)}


@pytest.mark.parametrize(
    ("method", "representation", "name", "says"),
    [
        (WrongCost, Image, "cost", "declares 6 UNet items, but used 2 at step 0 (2 views)"),
        (Good, SaysLatent, "cost", "with the encoder, declares 0 VAE encoder items"),
        (Good, Explodes, "finite", "representation.canvas is NaN or infinite"),
        (Good, Forgetful, "resume", "a resumed run ends elsewhere"),
        (Good, Image, "", ""),
    ],
)
def test_a_broken_pair_fails_in_the_core(method: Any, representation: Any, name: str, says: str) -> None:
    prior = make_prior()
    checked = pairs.Subject(
        lambda: (
            method(prior, guidance_scale=None),
            representation(None, 8, LATENT_SHAPE, 0, "cpu", mode="rgb"),
        ),
        prior,
        {"mode": "rgb"},
        "a duck",
        8,
    )
    found = {result.name: result.reason for check in pairs.CHECKS if not (result := check(checked)).ok}
    assert any(name in check and says in reason for check, reason in found.items()) if name else not found
