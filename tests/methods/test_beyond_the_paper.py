"""NFSD, BSD, ASD, SCTD and SDS-Bridge: values computed by hand in double precision, and identities."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from exact import SHAPE, cameras, exact_prior, exact_text
from linear_prior import EPS, LINES, ByName, LinearPrior, Z, at, drawing, gradient

from trace_bench.diffusion.inversion import Interval, ddim_hop, level
from trace_bench.diffusion.schedules import add_noise, alpha_sigma, scaled_linear_alphas_cumprod, velocity
from trace_bench.methods.bsd import BSD, shortest_between
from trace_bench.methods.csd import CSD
from trace_bench.methods.ism import ISM
from trace_bench.methods.nfsd import NFSD
from trace_bench.methods.sctd import SCTD, Segment
from trace_bench.methods.sds import SDS
from trace_bench.methods.sds_bridge import SDSBridge
from trace_bench.methods.vsd import VSD
from trace_bench.progress import Progress
from trace_bench.seeding import Rng
from trace_bench.system.errors import TraceBenchError

ABAR = scaled_linear_alphas_cumprod()
LATE = Progress(9, 10)
TEXTS = {"source": " source", "target": ""}


def exactly(value: float) -> Any:
    """Equal to the printed digits."""
    return pytest.approx(value, rel=1e-11, abs=0)


@pytest.fixture
def latents() -> torch.Tensor:
    return torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_the_setting_of_the_check_values() -> None:
    for t, x, predictions in (
        (100, 0.5643738234016669, (0.438624294041, 0.025749529361, 0.282186911701)),
        (500, 0.11276557293248113, (0.167659343759, -0.154893770827, 0.056382786466)),
    ):
        a, s = level(ABAR, t)
        assert (a * Z + s * EPS).item() == exactly(x)
        assert [gain * x + shift for gain, shift in LINES.values()] == pytest.approx(predictions, abs=1e-12)


# --- NFSD -----------------------------------------------------------------------------------------------


def nfsd(prior: Any, t: int, scale: float = 7.5, **settings: Any) -> NFSD:
    return NFSD(prior, guidance_scale=scale, negative_prompt="negative", **at(t), **settings)


@pytest.mark.parametrize(("t", "value"), [(100, 0.15395426728583744), (500, 0.7568479959612054)])
def test_nfsd(t: int, value: float) -> None:
    assert gradient(nfsd(LinearPrior(), t)) == exactly(value)


@pytest.mark.parametrize(("t", "value"), [(100, -0.5820360131965492), (500, -3.0616564746218717)])
def test_nfsd_on_gaussian_data(t: int, value: float) -> None:
    """Predictions are affine in the noise, so the two noises +e and -e have the expected gradient as mean."""
    assert gaussian_mean(nfsd(ByName(), t), t) == exactly(value)


def gaussian_mean(method: Any, t: int, z: float = 0.3, progress: Progress | None = None) -> float:
    """The gradient at x_t = a_t z: the latents' part of the fixed noise is taken out."""
    a, s = level(ABAR, t)
    return gradient(method, z - (s / a).item() * EPS, progress)


def test_nfsd_below_the_threshold_is_sds_without_its_noise() -> None:
    """And above: guidance less the negative prediction; with scale 1 this is CSD's two-branch form."""
    prior = LinearPrior()
    sds = SDS(prior, guidance_scale=7.5, **at(100))
    s2 = (level(ABAR, 100)[1] ** 2).item()
    assert gradient(nfsd(prior, 100)) == exactly(gradient(sds) + s2 * EPS)
    csd = CSD(prior, two_branch=True, negative_prompt="negative", **at(500))
    assert gradient(nfsd(prior, 500, scale=1.0)) == exactly(gradient(csd))
    without = NFSD(prior, guidance_scale=7.5, **at(500))  # the negative text is the empty one
    csd = CSD(prior, two_branch=True, **at(500))
    assert gradient(without) == exactly(7.5 * gradient(csd))


def test_nfsd_has_its_threshold_for_each_sample(latents: torch.Tensor) -> None:
    prior = exact_prior()
    text, rng, view = exact_text(prior), Rng(0).at(3), cameras(4)
    method = NFSD(prior, guidance_scale=7.5, min_step_percent=0.1, max_step_percent=0.3)
    t, noisy = method.timesteps(4, LATE, rng)
    assert 0 < len(noisy) < 4
    assert noisy.tolist() == [i for i in range(4) if t[i] >= 200]
    whole = method.step(latents, text, view, LATE, rng).grad
    alone = method.step(latents[:1], text, cameras(1), LATE, rng).grad
    assert torch.allclose(whole[:1], alone, atol=1e-12)
    assert method.cost(LATE, 4, rng).unet_fwd == 8 + len(noisy)


def test_nfsd_needs_2_8_items_on_average() -> None:
    method = NFSD(exact_prior(), guidance_scale=7.5)
    items = [method.cost(LATE, 1, Rng(0).at(k)).unet_fwd for k in range(4000)]
    assert np.mean(items) == pytest.approx(2.8125, abs=0.02)


# --- BSD ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("d", "c", "g"),
    [
        ((1.0, 0.5), (-0.5, 1.0), (0.25, 0.75)),
        ((1.0, 0.0), (3.0, 0.0), (1.0, 0.0)),
        ((3.0, 0.0), (1.0, 0.0), (1.0, 0.0)),
        ((2.0, 1.0), (2.0, 1.0), (2.0, 1.0)),
        ((0.0, 0.0), (2.0, 1.0), (0.0, 0.0)),
        ((2.0, 1.0), (0.0, 0.0), (0.0, 0.0)),
    ],
)
def test_bsd_shortest_vector(d: tuple[float, ...], c: tuple[float, ...], g: tuple[float, ...]) -> None:
    both = (torch.tensor([each], dtype=torch.float64) for each in (c, d))
    assert shortest_between(*both)[0].tolist() == pytest.approx(g, abs=1e-15)


def test_bsd_descends_in_both_parts() -> None:
    c, d = torch.randn(2, 500, 3, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    g = shortest_between(c, d).flatten(1)
    length2 = g.square().sum(1)
    for part in (c, d):
        assert ((g * part.flatten(1)).sum(1) >= length2 - 1e-12).all()
    same = d * (c.flatten(1).norm(dim=1) / d.flatten(1).norm(dim=1)).view(-1, 1, 1, 1)
    assert torch.allclose(shortest_between(c, same), (c + same) / 2, atol=1e-12)


@pytest.mark.parametrize("form", ["auto", "standard"])
def test_bsd_step(form: Any) -> None:
    """One dimension: the shortest vector is the shorter part, or 0 if the signs differ."""
    method = BSD(LinearPrior(), form=form, negative_prompt="negative")
    t = 501
    a, s = (value.item() for value in level(ABAR, t))
    x = a * Z + s * EPS
    p, n = 0.6 * x + 0.1, 0.4 * x - 0.2
    if form == "auto":
        c, d, w = p - n, 1.25 * (n - EPS), abs(n - EPS) * s / 50
        assert min(c, d) > 0
        assert gradient(method, rng=drawing(t=t - 1)) == exactly(0.1 * w * min(c, d))
    else:
        assert 15 * (p - n) > 0 > n
        assert gradient(method, rng=drawing(t=t - 1)) == 0.0
        assert gradient(method, z=5.0, rng=drawing(t=t - 1)) != 0.0


def test_bsd_has_no_scale() -> None:
    with pytest.raises(TraceBenchError, match="BSD has no guidance scale"):
        BSD(exact_prior(), guidance_scale=7.5)  # type: ignore[arg-type]


# --- ASD ------------------------------------------------------------------------------------------------


def discriminator(t: int, gamma: float, target: str, eps: float = EPS) -> float:
    """The best answer of the adapter at x_t, from the two targets that the method trains it on."""
    a, s = (value.item() for value in level(ABAR, t))
    x = a * Z + s * EPS
    prediction = 0.6 * x + 0.1
    seen = prediction if target == "consistent" else s**2 * eps + a**2 * prediction
    return (eps + gamma * seen) / (1 + gamma)


def asd(t: int, target: Any, best: float, gamma: float = -0.75, scale: float = 7.5) -> VSD:
    method = VSD(
        LinearPrior(), guidance_scale=scale, gamma=gamma, discriminator_target=target, lora_lr=0.0, **at(t)
    )
    method.adapter.predict = lambda x, t, text, camera: torch.full_like(x, best)  # type: ignore[method-assign,misc]
    method.train_adapter = lambda *args: torch.zeros(())  # type: ignore[method-assign]
    return method


ASD_VALUES = [
    (100, "consistent", -2.5158728821230003, 0.42007455159108836),
    (500, "consistent", -1.7029780312784661, 1.877145977938008),
    (100, "released", -2.2814855545417823, 0.3952818751817672),
    (500, "released", -0.6876886847278517, 1.1424142613765988),
]


@pytest.mark.parametrize(("t", "target", "best", "value"), ASD_VALUES)
def test_asd(t: int, target: str, best: float, value: float) -> None:
    assert discriminator(t, -0.75, target) == exactly(best)
    assert gradient(asd(t, target, best)) == exactly(value)


@pytest.mark.parametrize("t", [100, 500])
def test_asd_is_four_times_vsd_at_scale_2_625(t: int) -> None:
    ours = gradient(asd(t, "consistent", discriminator(t, -0.75, "consistent")))
    assert ours == exactly(4 * gradient(asd(t, "consistent", EPS, gamma=0.0, scale=2.625)))


def velocity_target(x0: torch.Tensor, eps: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """That of an adapter that predicts v."""
    return velocity(x0, eps, *alpha_sigma(ABAR, t))


@pytest.mark.parametrize("target", ["consistent", "released"])
@pytest.mark.parametrize("is_v", [False, True])
def test_asd_loss_is_lowest_at_the_best_answer(target: Any, is_v: bool) -> None:
    """The gradient of the loss vanishes there, for an adapter that predicts noise and one that predicts v."""
    for t, named, best, _ in ASD_VALUES:
        if named != target:
            continue
        method = VSD(
            LinearPrior(), guidance_scale=7.5, gamma=-0.75, discriminator_target=target, lora_lr=0.0, **at(t)
        )
        a, s = (value.item() for value in level(ABAR, t))
        x = a * Z + s * EPS
        raw = torch.full((1, 1, 1, 1), (best - s * x) / a if is_v else best, dtype=torch.float64)
        raw.requires_grad_()

        def train(x_t: Any, t: Any, text: Any, camera: Any, loss: Any, raw: Any = raw) -> Any:
            loss(raw).backward()
            return raw.detach(), raw.detach().sum()

        method.adapter.train = train  # type: ignore[method-assign]
        if is_v:
            method.adapter.target = velocity_target  # type: ignore[method-assign]
        latents = torch.full((1, 1, 1, 1), Z, dtype=torch.float64)
        text = method.embed("y")
        method.train_adapter(latents, text.plain, text.plain, torch.zeros(1, 16), drawing(lora_t=t))
        assert raw.grad is not None
        assert abs(raw.grad.item()) < 1e-9


def test_without_gamma_asd_is_vsd(latents: torch.Tensor) -> None:
    prior = exact_prior()
    text, rng, view = exact_text(prior), Rng(0).at(3), cameras(4)
    one = VSD(prior, guidance_scale=7.5).step(latents, text, view, LATE, rng)
    other = VSD(prior, guidance_scale=7.5, gamma=0.0, discriminator_target="released")
    assert torch.equal(one.log["lora_loss"], other.step(latents, text, view, LATE, rng).log["lora_loss"])


@pytest.mark.parametrize("gamma", [-1.0, -1.5])
def test_a_loss_without_minimum_is_refused(gamma: float) -> None:
    with pytest.raises(TraceBenchError, match=rf"method\.gamma={gamma} must be above -1"):
        VSD(exact_prior(), guidance_scale=7.5, gamma=gamma)


# --- SCTD -----------------------------------------------------------------------------------------------


def sctd(prior: Any, scale: float = 7.5, **settings: Any) -> SCTD:
    method = SCTD(prior, guidance_scale=scale, **settings)
    method.noise = torch.full_like(method.noise, EPS)
    return method


@pytest.mark.parametrize(
    ("e", "s", "t", "value"), [(212, 300, 400, 1.1776132190565503), (20, 80, 120, 0.2393427211296796)]
)
def test_sctd(e: int, s: int, t: int, value: float) -> None:
    method = sctd(LinearPrior(), negative_prompt="negative")
    found = drawing(t=t - 1, s=s)
    assert method.draw(LATE, found) == Segment(e, s, t, is_two_hops=t >= 150)
    assert gradient(method, progress=LATE, rng=found) == exactly(value)


def test_sctd_segments() -> None:
    assert SCTD(exact_prior(), guidance_scale=7.5).edges == [20, 212, 404, 596, 788]
    assert SCTD(exact_prior(), guidance_scale=7.5, segments=4).edges == [20, 260, 500, 740]
    method = SCTD(exact_prior(), guidance_scale=7.5)
    for progress, low, high in ((Progress(0, 5000), 500, 980), (Progress(4000, 5000), 20, 500)):
        drawn = [method.draw(progress, Rng(0).at(k)) for k in range(3000)]
        assert min(each.t for each in drawn) >= low
        assert max(each.t for each in drawn) <= high
        assert all(each.t - each.e >= 80 for each in drawn)
        assert all(each.e + 10 <= each.s < each.t - 10 for each in drawn)
        assert all(each.is_two_hops == (each.t >= 150) for each in drawn)


def test_sctd_one_hop_from_x_e_holds_isms_difference() -> None:
    """x_e - x_e'' = a_e (r_t - r_e) (e_cfg(x_t) - e(x_e)): ISM's with the interval (e, t)."""
    prior = LinearPrior()
    e, t = 20, 120
    (a_e, s_e), (a_t, s_t) = level(ABAR, e), level(ABAR, t)
    x_e = (a_e * Z + s_e * EPS).view(1, 1, 1, 1)
    empty = torch.tensor(0.5) * x_e
    x_t = ddim_hop(x_e, empty, (a_e, s_e), (a_t, s_t))
    cond, negative = 0.6 * x_t + 0.1, 0.4 * x_t - 0.2
    guided = negative + 7.5 * (cond - negative)
    difference = (x_e - ddim_hop(x_t, guided, (a_t, s_t), (a_e, s_e))).item()
    ism = ISM(prior, guidance_scale=7.5, negative_prompt="negative", noise_offset=0.0, gradient_scale=1.0)
    ism.interval = type("", (), {"draw": lambda *args, **kw: Interval(e, t)})()  # type: ignore[assignment]
    ism.invert = lambda z, noise, between, text: (x_e, empty)  # type: ignore[method-assign]
    isms = gradient(ism) / (s_t / a_t).item()
    assert difference == pytest.approx(0.7540581920830426, rel=1e-11)
    assert difference == exactly((a_e * (s_t / a_t - s_e / a_e)).item() * isms)


def test_sctd_vanishes_where_both_ways_lie_on_one_path() -> None:
    """A prediction that depends neither on the text nor on the state has straight paths."""
    prior = exact_prior()
    method = SCTD(prior, guidance_scale=7.5)
    prior.eps = lambda latents, t, text: torch.full_like(latents, 0.3)  # type: ignore[method-assign]
    latents = torch.randn(2, *SHAPE, dtype=torch.float64)
    grad = method.step(latents, exact_text(prior), cameras(2), LATE, Rng(0).at(0)).grad
    assert grad.abs().max() < 1e-12


# --- SDS-Bridge -----------------------------------------------------------------------------------------


def bridge(prior: Any, t: int, **settings: Any) -> SDSBridge:
    return SDSBridge(prior, **{"guidance_scale": 40.0, "prompt_suffixes": TEXTS} | at(t) | settings)


@pytest.mark.parametrize(
    ("t", "first", "second", "nerf"),
    [
        (100, 0.7234777980905197, 1.7468982720061317, 0.41287476468033335),
        (500, 3.4789908774066696, 9.336845870294013, 0.32255311458649627),
    ],
)
def test_sds_bridge(t: int, first: float, second: float, nerf: float) -> None:
    method = bridge(LinearPrior(), t)
    assert gradient(method) == exactly(first)
    assert gradient(method, progress=Progress(4, 10)) == exactly(first)
    assert gradient(method, progress=Progress(5, 10)) == exactly(second)
    as_nerf = bridge(LinearPrior(), t, bridge_scale=1.0, bridge_weighting="one")
    assert gradient(as_nerf, progress=LATE) == exactly(nerf)


@pytest.mark.parametrize(
    ("t", "value", "root"),
    [(100, -4.301102291372967, 2.416494955871671), (500, -22.92955190372391, 12.033947533616114)],
)
def test_sds_bridge_on_gaussian_data(t: int, value: float, root: float) -> None:
    """The mean gradient vanishes far outside the data: like CSD, the second stage has no pull to them."""
    method = bridge(ByName(), t)
    assert gaussian_mean(method, t, progress=LATE) == exactly(value)
    assert gaussian_mean(method, t, root, progress=LATE) == pytest.approx(0.0, abs=1e-10)


def test_sds_bridge_stages_are_sds_and_csd(latents: torch.Tensor) -> None:
    prior = exact_prior()
    rng, view = Rng(0).at(3), cameras(4)
    method = bridge(prior, 300, bridge_scale=1.0, prompt_suffixes={"source": None, "target": ""})
    text = method.embed("y")
    sds = SDS(prior, guidance_scale=40.0, **at(300))
    csd = CSD(prior, two_branch=True, **at(300))
    for progress, same in ((Progress(0, 10), sds), (LATE, csd)):
        ours = method.step(latents, text, view, progress, rng).grad
        assert torch.allclose(ours, same.step(latents, text, view, progress, rng).grad, atol=1e-12)
    alike = bridge(prior, 300, prompt_suffixes={"source": ", .", "target": ", ."})
    assert not alike.step(latents, alike.embed("y"), view, LATE, rng).grad.any()


def test_sds_bridge_s_second_stage_is_guidance_without_end() -> None:
    """e_cfg / s for large s, with the source text as the negative one; the noise is not in it."""
    prior = LinearPrior()
    second = gradient(bridge(prior, 500, bridge_scale=1.0), progress=LATE)
    guided = SDS(prior, guidance_scale=1e9, negative_prompt="negative", **at(500))
    assert gradient(guided) / 1e9 == pytest.approx(second, rel=1e-8)
    a, s = level(ABAR, 500)
    noise = torch.tensor(EPS, dtype=torch.float64)
    x_t = add_noise(torch.tensor(Z, dtype=torch.float64), noise, a, s)
    assert second == exactly((s**2 * (0.2 * x_t + 0.3)).item())


def test_sds_bridge_needs_both_texts() -> None:
    with pytest.raises(TraceBenchError, match=r"method\.prompt_suffixes has no target"):
        bridge(exact_prior(), 300, prompt_suffixes={"source": ", blurry"})
