"""The checks of priors: the built-in ones pass, and each check fails for a prior that needs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from analytic_prior import make
from sd_checkpoint import make_flow_checkpoint, make_sd3_checkpoint, make_sdxl_checkpoint
from torch import Tensor

from trace_bench.priors.base import TextEmbedding
from trace_bench.priors.check import CHECKS, Subject
from trace_bench.priors.flow import FlowUNetPrior
from trace_bench.priors.sd3 import StableDiffusion3Prior
from trace_bench.priors.sdxl import StableDiffusionXLPrior
from trace_bench.priors.stable_diffusion import StableDiffusionPrior
from trace_bench.system.checks import Check

PROMPT = "a red cube"


@pytest.fixture(scope="session")
def xl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sdxl_checkpoint(tmp_path_factory.mktemp("xl") / "xl")


@pytest.fixture(scope="session")
def flows(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """SD 3's transformer, and a UNet."""
    folder = tmp_path_factory.mktemp("flows")
    return make_sd3_checkpoint(folder / "sd3"), make_flow_checkpoint(folder / "flow")


#: The large ones are slow tests.
KINDS = [
    *("stable diffusion", "flow", "analytic"),
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("sdxl", "sd3")),
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
@pytest.mark.parametrize("kind", KINDS)
def test_the_priors_pass(
    kind: str, check: Check[Subject], prior: StableDiffusionPrior, xl: Path, flows: tuple[Path, Path]
) -> None:
    priors: dict[str, Any] = {
        "stable diffusion": lambda: prior,
        "sdxl": lambda: StableDiffusionXLPrior(str(xl), resolution=16),
        "sd3": lambda: StableDiffusion3Prior(str(flows[0]), resolution=64),
        "flow": lambda: FlowUNetPrior(str(flows[1]), resolution=16),
        "analytic": make,
    }
    result = check(Subject(priors[kind](), PROMPT))
    assert result.ok, result.reason


def rising(prior: Any) -> None:
    prior.alphas_cumprod = prior.alphas_cumprod.flip(0)


def deaf(prior: Any) -> None:
    prior.embed = lambda texts: TextEmbedding(torch.zeros(len(texts), 77, 16))


def whole(prior: Any) -> None:
    prior.fit = lambda text, ending="": text


def detached(prior: Any) -> None:
    encode = prior.encode
    prior.encode = lambda rgb, noise: encode(rgb, noise).detach()


def dark(prior: Any) -> None:
    decode = prior.decode
    prior.decode = lambda latents: decode(latents) - 2.0


def uncounted(prior: Any) -> None:
    eps = prior.eps

    def free(latents: Tensor, t: Tensor, text: TextEmbedding) -> Tensor:
        found = eps(latents, t, text)
        prior.counter.unet_fwd -= len(latents)
        return found

    prior.eps = free


def threestudio(prior: Any) -> None:
    eps_cfg = prior.eps_cfg
    prior.eps_cfg = lambda x, t, cond, uncond, scale: eps_cfg(x, t, cond, uncond, scale + 1.0)


def wrong_target(prior: Any) -> None:
    adapter = prior.adapter

    def made(rank: int, seed: int) -> Any:
        found = adapter(rank, seed)
        found.target = lambda x0, eps, t: x0
        return found

    prior.adapter = made


def forgetful(prior: Any) -> None:
    adapter = prior.adapter

    def made(rank: int, seed: int) -> Any:
        found = adapter(rank, seed)
        found.load_state_dict = lambda state: None
        return found

    prior.adapter = made


def thawed(prior: Any) -> None:
    prior._denoiser.unet.requires_grad_(True)


BREAKS = {
    "noise schedule": (rising, "does not fall"),
    "embed": (deaf, "are the same"),
    "fit: long prompts": (whole, "loses its view phrase"),
    "encode": (detached, "no gradient"),
    "decode": (dark, "leaves [0, 1]"),
    "eps": (uncounted, "counted nothing, not unet_fwd 2"),
    "eps_cfg: the guidance formula": (threestudio, "is not uncond + s (cond - uncond)"),
    "adapter: predict, to_eps, target": (wrong_target, "is not eps"),
    "adapter: training and state": (forgetful, "does not put back"),
    "prior stays frozen": (thawed, "freeze them"),
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_each_check_fails_where_it_should(check: Check[Subject], checkpoints: tuple[Path, Path]) -> None:
    broken, says = BREAKS[check.name]
    base, v = checkpoints
    prior = StableDiffusionPrior(str(base), resolution=16, adapter_repo=str(v))
    broken(prior)
    result = check(Subject(prior, PROMPT))
    assert not result.ok
    assert says in result.reason
