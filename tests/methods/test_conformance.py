"""Properties of every method in conf/method; discovered by its YAML, built as in a run."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from configured import CONF, NAMES, composed, configured
from sd_checkpoint import make_checkpoint
from torch import Tensor

from trace_bench.cameras import make_cameras
from trace_bench.methods.base import Method
from trace_bench.priors.base import Work
from trace_bench.priors.stable_diffusion import StableDiffusionPrior
from trace_bench.priors.text import PromptText, embed_prompt
from trace_bench.progress import Progress
from trace_bench.seeding import Rng

STEPS = 3
DESCRIBES = {"_target_", "display_name", "citation", "reference", "paper", "defaults", "negative_prompt"}
SUMS_OVER_THE_BATCH = {"ism", "dreamer_xl"}


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> StableDiffusionPrior:
    folder = tmp_path_factory.mktemp("conformance")
    base, v = make_checkpoint(folder / "base"), make_checkpoint(folder / "v", "v_prediction", seed=1)
    return StableDiffusionPrior(str(base), resolution=16, adapter_repo=str(v))


@pytest.fixture(scope="module")
def text(prior: StableDiffusionPrior) -> PromptText:
    return embed_prompt(prior, "a red cube", "ugly")


def latents_at(k: int, n: int = 2) -> Tensor:
    return torch.randn(n, 4, 8, 8, generator=torch.Generator().manual_seed(k))


def take(method: Method, text: PromptText, k: int, n: int = 2) -> Tensor:
    """Take step `k` and check its declared cost; returns the gradient."""
    azimuth = torch.tensor([-100.0, 20.0])[:n]
    full = torch.ones(n)
    view = make_cameras(10.0 * full, azimuth, 2.0 * full, 45.0 * full, 8, 8)
    progress, rng = Progress(k, STEPS), Rng(11).at(k)
    counter = method.prior.counter
    before = counter + Work()
    answer = method.step(latents_at(k)[:n], text, view, progress, rng)
    assert counter - before == method.cost(progress, n, rng)
    assert all(value.dim() == 0 and not value.requires_grad for value in answer.log.values())
    return answer.grad


@pytest.mark.parametrize("name", NAMES)
def test_every_method_keeps_the_contract(prior: StableDiffusionPrior, text: PromptText, name: str) -> None:
    """Declared cost equals counted cost at every step, gradients are finite and detached, a seed determines
    the run, resuming is bitwise exact, and the frozen networks stay frozen."""
    method, checkpoint = configured(name, prior), io.BytesIO()
    grads = []
    for k in range(STEPS):
        if k == 1:
            torch.save(method.state_dict(), checkpoint)
        grads.append(take(method, text, k))
    assert all(torch.isfinite(grad).all() and not grad.requires_grad for grad in grads)
    assert all(grad.abs().max() > 0 for grad in grads)
    assert all(grad.shape == (2, 4, 8, 8) and grad.dtype == torch.float32 for grad in grads)

    resumed = configured(name, prior)
    assert torch.equal(take(resumed, text, 0), grads[0])
    checkpoint.seek(0)
    resumed.load_state_dict(torch.load(checkpoint))
    for k in range(1, STEPS):
        assert torch.equal(take(resumed, text, k), grads[k])

    frozen = [*prior._denoiser.unet.parameters(), *prior._vae.parameters()]
    assert all(p.grad is None and not p.requires_grad for p in frozen)


@pytest.mark.parametrize("name", NAMES)
def test_items_do_not_look_at_each_other(prior: StableDiffusionPrior, text: PromptText, name: str) -> None:
    whole = take(configured(name, prior), text, 0)
    alone = take(configured(name, prior), text, 0, n=1)
    factor = 2.0 if name in SUMS_OVER_THE_BATCH else 1.0
    assert torch.allclose(whole[:1], factor * alone, rtol=1e-3, atol=1e-3 * float(whole.abs().max()))


@pytest.mark.parametrize("name", NAMES)
def test_the_toy_world_s_settings_fit(prior: StableDiffusionPrior, text: PromptText, name: str) -> None:
    """No negative prompt, because the tiny prior has few words; and the method accepts the settings."""
    spec = composed(name, "tiny")
    assert (CONF / "protocol" / "method" / "toy" / f"{name}.yaml").is_file()
    assert spec["negative_prompt"] == ""
    assert torch.isfinite(take(configured(name, prior, "tiny"), text, 1)).all()


@pytest.mark.parametrize("name", NAMES)
def test_config_states_what_it_must(name: str) -> None:
    spec = composed(name, "sd21")
    assert spec["citation"]
    assert spec["display_name"]
    assert {"steps", "views_per_step"} <= set(spec["reference"]) <= {"steps", "views_per_step", "nerf"}
    assert spec["paper"]["minutes"]
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
    ],
)
def test_switches_cost_what_they_say(
    prior: StableDiffusionPrior, text: PromptText, name: str, changes: dict[str, Any]
) -> None:
    take(configured(name, prior, **changes), text, STEPS - 1)
