"""Densification and pruning, and gsplat's own strategies on the CPU rasteriser."""

from __future__ import annotations

import pytest
import torch

from trace_bench.progress import Progress
from trace_bench.representations.gaussians.densify import Densifier, DensifySettings
from trace_bench.representations.splat_cpu import rasterization
from trace_bench.seeding import StepRng
from trace_bench.system.errors import TraceBenchError


def parts(n=6):
    """Small, opaque Gaussians with their optimiser after one step."""
    rng = torch.Generator().manual_seed(0)
    values = {
        "means": torch.rand(n, 3, generator=rng) - 0.5,
        "quats": torch.randn(n, 4, generator=rng),
        "scales": torch.full((n, 3), 0.02).log(),
        "opacities": torch.full((n,), 0.5).logit(),
        "sh0": torch.zeros(n, 1, 3),
    }
    params = {name: torch.nn.Parameter(value) for name, value in values.items()}
    groups = [{"params": [param], "name": name} for name, param in params.items()]
    return params, stepped(torch.optim.Adam(groups, lr=1e-3, fused=True))


def stepped(optimizer):
    for group in optimizer.param_groups:
        group["params"][0].grad = torch.ones_like(group["params"][0])
    optimizer.step()
    return optimizer


def densifier(reference_steps=None, seed=0, **settings):
    settings = DensifySettings(**{"threshold": 1.0, "max_growth": None, **settings})
    return Densifier(settings, reference_steps, (4, 8, 16), seed)


def with_stats(densifier, grads):
    grads = torch.tensor(grads)
    densifier.stats = {"grad2d": 2.0 * grads, "count": torch.full_like(grads, 2.0)}
    return densifier


def info_of(grad, radii):
    means2d = torch.zeros_like(grad)
    means2d.grad = grad
    return {"means2d": means2d, "radii": radii, "width": 64, "height": 32, "n_cameras": len(grad)}


def events(n, reference_steps=1700, **settings):
    d = densifier(reference_steps, **settings)
    found = {k: d.event(Progress(k, n)) for k in range(n)}
    return {k: r for k, r in found.items() if r is not None}


def test_events_are_those_of_the_reference_run_scaled():
    """GaussianDreamer and TraCe: k in {400, 500, 600, 700, 800}."""
    absolute = {400: 400, 500: 500, 600: 600, 700: 700, 800: 800}
    assert events(1700) == absolute
    assert events(5000, reference_steps=None) == absolute
    assert events(300) == {71: 400, 88: 500, 106: 600, 124: 700, 141: 800}
    assert set(events(1700, prune_until=1200)) == {400, 500, 600, 700, 800, 900, 1000, 1100}
    assert events(1700, mode="off", prune_until=1200) == {}
    assert set(events(6)) <= set(range(6))


def test_views_are_summed_before_the_norm():
    d = densifier(mode="raw")
    grad = torch.tensor([[[3.0, 0.0], [1.0, 0.0]], [[1.0, 8.0], [-1.0, 0.0]]])  # 2 views, 2 Gaussians
    radii = torch.tensor([[[1, 1], [1, 1]], [[1, 1], [0, 0]]])
    d.observe(info_of(grad, radii), Progress(0, 1700), torch.tensor(5.0))
    expected = ((4.0 * 32) ** 2 + (8.0 * 16) ** 2) ** 0.5  # half the width, half the height
    torch.testing.assert_close(d.stats["grad2d"], torch.tensor([expected, 0.0]))
    assert d.stats["count"].tolist() == [1.0, 1.0]  # once a step, in however many views


def test_the_last_view_alone_where_asked():
    d = densifier(mode="raw", views="last")
    grad = torch.tensor([[[3.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [-1.0, 0.0]]])
    radii = torch.tensor([[[1, 1], [1, 1]], [[1, 1], [0, 0]]])
    d.observe(info_of(grad, radii), Progress(0, 1700), torch.tensor(1.0))
    assert d.stats["grad2d"].tolist() == [32.0, 0.0]  # the second Gaussian is not in the last view
    assert d.stats["count"].tolist() == [1.0, 0.0]
    with pytest.raises(TraceBenchError, match="views='first' is not one of all, last"):
        densifier(views="first")


def test_opacities_are_lowered_now_and_then():
    """LucidDreamer: during densification every 300 of 5000 steps, to 0.01, and Adam's state is reset."""
    d = densifier(5000, opacity_reset_every=300, stop=1000)
    assert [k for k in range(5000) if d.resets(Progress(k, 5000))] == [300, 600, 900]
    assert [k for k in range(500) if d.resets(Progress(k, 500))] == [30, 60, 90]
    assert not any(densifier(5000).resets(Progress(k, 5000)) for k in range(5000))
    params, optimizer = parts()
    params["opacities"].data[0] = -9.0
    d.reset_opacity(params, optimizer)
    opacities = params["opacities"].sigmoid()
    assert float(opacities[0]) == pytest.approx(0.0001234, rel=1e-2)  # already below
    assert opacities[1:].tolist() == pytest.approx([0.01] * 5, rel=1e-4)
    assert not optimizer.state[params["opacities"]]["exp_avg"].any()
    assert optimizer.state[params["means"]]["exp_avg"].any()


def test_unseen_gaussians_are_not_counted_and_statistics_end():
    d = densifier(mode="raw")
    grad = torch.ones(1, 2, 2)
    radii = torch.tensor([[[2, 2], [0, 0]]])
    for k in (0, 1, 899, 900, 1000):
        d.observe(info_of(grad, radii), Progress(k, 1700), torch.tensor(1.0))
    assert d.stats["count"].tolist() == [3.0, 0.0]  # steps 0, 1 and 899


def test_normalised_is_blind_to_the_scale_of_the_gradient_and_raw_is_not():
    grad, radii = torch.rand(1, 5, 2), torch.ones(1, 5, 2, dtype=torch.int32)
    for mode, equal in (("normalised", True), ("raw", False)):
        small, large = densifier(mode=mode), densifier(mode=mode)
        small.observe(info_of(grad, radii), Progress(0, 1700), torch.tensor(0.5))
        large.observe(info_of(1000 * grad, radii), Progress(0, 1700), torch.tensor(500.0))
        assert torch.allclose(small.stats["grad2d"], large.stats["grad2d"]) == equal


def test_normalised_is_per_latent_cell_and_rms():
    d = densifier()  # latents of 8 rows and 16 columns for 32 x 64 pixels: 4 pixels a cell
    d.observe(
        info_of(torch.tensor([[[3.0, 4.0]]]), torch.ones(1, 1, 2)), Progress(0, 1700), torch.tensor(2.0)
    )
    torch.testing.assert_close(d.stats["grad2d"], torch.tensor([5.0 * 4.0 / 2.0]))


def test_prune_mode_removes_and_never_grows():
    params, optimizer = parts(4)
    with torch.no_grad():
        params["opacities"][0] = torch.tensor(0.04).logit()
    d = densifier(mode="prune")
    d.observe(info_of(torch.ones(1, 4, 2), torch.ones(1, 4, 2)), Progress(0, 1700), torch.tensor(1.0))
    assert d.stats == {}
    d.run(params, optimizer, event=400, step=400)
    assert len(params["means"]) == 3


def test_late_events_prune_and_never_grow():
    params, optimizer = parts(4)
    with torch.no_grad():
        params["opacities"][0] = torch.tensor(0.04).logit()
    d = with_stats(densifier(mode="raw", prune_until=1600), [2.0, 2.0, 2.0, 2.0])
    d.run(params, optimizer, event=900, step=900)
    assert len(params["means"]) == 3
    assert d.stats == {}
    with pytest.raises(TraceBenchError, match="prune_until must be at least stop=900, but is 800"):
        densifier(prune_until=800)


def test_small_ones_are_cloned_and_large_ones_split():
    params, optimizer = parts(4)
    with torch.no_grad():
        params["scales"][1] = torch.tensor([0.01, 0.2, 0.01]).log()  # long along y
        params["quats"][1] = torch.tensor([1.0, 0.0, 0.0, 0.0])
        params["scales"][3] = torch.log(torch.tensor(0.1))
    old = {name: value.detach().clone() for name, value in params.items()}
    d = with_stats(densifier(mode="raw"), [2.0, 2.0, 0.5, 0.5])
    d.run(params, optimizer, event=400, step=400)
    assert len(params["means"]) == 6  # 4 + a clone + (2 halves for 1)
    survivors = params["means"][:3]  # 0, 2, 3: neither split nor moved
    assert torch.equal(survivors, old["means"][[0, 2, 3]])
    assert torch.equal(params["means"][3], old["means"][0])  # the clone
    halves = params["means"][4:] - old["means"][1]
    assert halves[:, 1].abs().max() > 0.01
    assert halves[:, [0, 2]].abs().max() < 0.05
    assert halves[0].ne(halves[1]).all()
    torch.testing.assert_close(params["scales"][4:].exp(), (old["scales"][1].exp() / 1.6).expand(2, 3))
    assert d.stats == {}
    for group in optimizer.param_groups:
        name = group["name"]
        assert group["params"][0] is params[name]
        moment = optimizer.state[params[name]]["exp_avg"]
        assert moment.shape == params[name].shape
        assert (moment[3:] == 0).all()
        assert (moment[:3] != 0).any()


def test_split_offsets_depend_on_seed_and_step_alone():
    def halves(seed, step, disturb):
        params, optimizer = parts(3)
        with torch.no_grad():
            params["scales"][:] = torch.log(torch.tensor(0.1))
        torch.manual_seed(disturb)
        with_stats(densifier(mode="raw", seed=seed), [2.0, 2.0, 2.0]).run(params, optimizer, 400, step)
        return params["means"].detach(), torch.rand(1)

    first, after = halves(0, 400, disturb=1)
    second, after_too = halves(0, 400, disturb=2)
    assert torch.equal(first, second)
    torch.manual_seed(1)
    assert torch.equal(after, torch.rand(1))  # the global generator was left alone
    assert not torch.equal(after, after_too)
    assert not torch.equal(first, halves(0, 500, disturb=1)[0])
    assert not torch.equal(first, halves(1, 400, disturb=1)[0])


def test_faint_ones_go_and_huge_ones_later():
    for event, kept in ((500, 3), (600, 2)):
        params, optimizer = parts(4)
        with torch.no_grad():
            params["opacities"][0] = torch.tensor(0.04).logit()
            params["scales"][1] = torch.log(torch.tensor(0.5))
        with_stats(densifier(mode="raw"), [0.0] * 4).run(params, optimizer, event, event)
        assert len(params["means"]) == kept


def test_pruning_everything_is_an_error_that_says_so():
    params, optimizer = parts(4)
    with torch.no_grad():
        params["opacities"][:] = -9.0
    with pytest.raises(TraceBenchError, match="Every Gaussian would be pruned at step 7"):
        with_stats(densifier(mode="raw"), [0.0] * 4).run(params, optimizer, 400, 7)


@pytest.mark.parametrize("limit", [{"max_gaussians": 6}, {"max_growth": 0.5}])
def test_the_strongest_grow_where_there_is_no_room_for_all(limit):
    params, optimizer = parts(4)
    old = params["means"].detach().clone()
    with_stats(densifier(mode="raw", **limit), [2.0, 5.0, 3.0, 4.0]).run(params, optimizer, 400, 400)
    assert len(params["means"]) == 6
    assert torch.equal(params["means"][4:], old[[1, 3]])


def test_events_equal_those_of_gsplats_operations():
    """To the bit, moments and statistics included, though the order of events is ours."""
    from gsplat.strategy import ops

    ours, optimizer = parts(5)
    with torch.no_grad():
        ours["scales"][1] = torch.tensor([0.01, 0.2, 0.05]).log()
        ours["scales"][4] = torch.log(torch.tensor(0.1))
        ours["opacities"][2] = -9.0
    theirs = {name: torch.nn.Parameter(param.detach().clone()) for name, param in ours.items()}
    optimizers = {name: torch.optim.Adam([param], lr=1e-3) for name, param in theirs.items()}
    for name, each in optimizers.items():
        each.state[theirs[name]] = {k: v.clone() for k, v in optimizer.state[ours[name]].items()}
    with_stats(densifier(mode="raw", seed=3), [2.0, 2.0, 0.5, 0.5, 3.0]).run(ours, optimizer, 400, 7)
    with torch.random.fork_rng():
        ops.duplicate(theirs, optimizers, {}, torch.tensor([True, False, False, False, False]))
        torch.manual_seed(StepRng(3, 7).generator("densify_split").initial_seed())
        ops.split(theirs, optimizers, {}, torch.tensor([False, True, False, False, True, False]))
    ops.remove(theirs, optimizers, {}, theirs["opacities"] < -8.0)
    for name, param in theirs.items():
        assert torch.equal(ours[name], param)
        for key, moment in optimizers[name].state[param].items():
            assert torch.equal(optimizer.state[ours[name]][key], moment), (name, key)


def scene(n=40):
    params, _ = parts(n)
    optimizers = {name: stepped(torch.optim.Adam([{"params": [p]}], lr=1e-3)) for name, p in params.items()}
    with torch.no_grad():
        params["scales"] += 1.0
    view = torch.eye(4)[None].clone()
    view[0, 2, 3] = 2.0
    K = torch.tensor([[[30.0, 0.0, 16.0], [0.0, 30.0, 16.0], [0.0, 0.0, 1.0]]])
    return params, optimizers, view, K


def render(params, view, K, **options):
    return rasterization(
        params["means"], params["quats"], params["scales"].exp(), params["opacities"].sigmoid(),
        params["sh0"][:, 0] + 0.5, view, K, 32, 32, **options,
    )  # fmt: skip


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("absgrad", [True, False])
def test_gsplats_default_strategy_runs(packed, absgrad):
    from gsplat.strategy import DefaultStrategy

    params, optimizers, view, K = scene()
    strategy = DefaultStrategy(
        refine_start_iter=2, refine_every=3, grow_grad2d=1e-4, refine_scale2d_stop_iter=100, absgrad=absgrad
    )
    strategy.check_sanity(params, optimizers)
    state = strategy.initialize_state()
    counts = []
    for step in range(8):
        image, _, info = render(params, view, K, packed=packed, absgrad=absgrad)
        strategy.step_pre_backward(params, optimizers, state, step, info)
        ((image - 0.9) ** 2).mean().backward()
        strategy.step_post_backward(params, optimizers, state, step, info, packed=packed)
        for optimizer in optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
        counts.append(len(params["means"]))
    assert counts[2] == 40
    assert counts[3] > 40


def test_gsplats_mcmc_strategy_runs(monkeypatch):
    """Two of gsplat's operations have CUDA kernels only; their formulae stand in."""
    from gsplat.cuda._torch_impl import _quat_scale_to_covar_preci
    from gsplat.strategy import MCMCStrategy, ops

    def relocation(opacities, scales, ratios, binoms):  # the first case of equation 9 of 3DGS-MCMC
        return 1 - (1 - opacities) ** (1 / ratios), scales / ratios[:, None].sqrt()

    monkeypatch.setattr(ops, "compute_relocation", relocation)
    monkeypatch.setattr(ops, "quat_scale_to_covar_preci", _quat_scale_to_covar_preci)
    params, optimizers, view, K = scene()
    with torch.no_grad():
        params["opacities"][:5] = -9.0
    strategy = MCMCStrategy(refine_start_iter=0, refine_every=2, cap_max=100)
    state = strategy.initialize_state()
    for step in range(3):
        image, _, info = render(params, view, K)
        ((image - 0.9) ** 2).mean().backward()
        for optimizer in optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
        strategy.step_post_backward(params, optimizers, state, step, info, lr=1e-3)
    assert len(params["means"]) == 42  # 5 % more
    assert (params["opacities"] > -8.0).all()  # the dead have moved
