"""The core: counted cost, resume, stopping, non-finite values, backgrounds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sd_checkpoint import make_checkpoint

from trace_bench.cameras import CameraRange
from trace_bench.distill import DistillResult, FiniteMonitor, NonFiniteError, background_colour, distill
from trace_bench.methods.base import Method
from trace_bench.methods.cfd import CFD
from trace_bench.methods.sds import SDS
from trace_bench.methods.trace import TraCe
from trace_bench.methods.vsd import VSD
from trace_bench.priors.base import Work
from trace_bench.priors.stable_diffusion import StableDiffusionPrior
from trace_bench.priors.text import embed_prompt
from trace_bench.progress import Progress
from trace_bench.representations.base import Representation
from trace_bench.representations.gaussians.gaussians import Gaussians
from trace_bench.representations.image import Image
from trace_bench.representations.points import PointCloud
from trace_bench.seeding import Rng

RANGE = CameraRange(distance=(2.5, 2.8), fovy_deg=(40.0, 45.0), elevation_deg=(-10.0, 60.0))
METHODS: dict[str, tuple[type[Method], dict[str, Any]]] = {
    "sds": (SDS, {}),
    "vsd": (VSD, {"lora_lr": 1e-3}),
    "trace": (TraCe, {"lora_lr": 1e-3}),
    "trace_official": (TraCe, {"grad_form": "released", "train_lora": False}),
    "trace_official_trained": (TraCe, {"grad_form": "released", "lora_target": "released_velocity"}),
}
#: Images are slow tests.
KINDS = ["gaussians", *(pytest.param(name, marks=pytest.mark.slow) for name in ("latent", "rgb"))]


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> StableDiffusionPrior:
    """SD 2.1's classes and config keys at toy size, with a v-prediction model as adapter base."""
    folder = tmp_path_factory.mktemp("sd")
    v = make_checkpoint(folder / "v", "v_prediction", seed=1)
    return StableDiffusionPrior(str(make_checkpoint(folder / "base")), resolution=16, adapter_repo=str(v))


def make_method(name: str, prior: StableDiffusionPrior) -> Method:
    cls, settings = METHODS[name]
    return cls(prior, guidance_scale=7.5, seed=0, **settings)


def make_representation(name: str, prior: StableDiffusionPrior) -> Representation:
    generator = torch.Generator().manual_seed(0)
    points = PointCloud(torch.rand(40, 3, generator=generator) - 0.5, torch.rand(40, 3, generator=generator))
    if name == "gaussians":
        return Gaussians(points, 16, prior.latent_shape, 0, "cpu")
    return Image(None, 16, prior.latent_shape, 0, "cpu", mode=name)


def run(
    prior: StableDiffusionPrior,
    method: Method,
    representation: Representation,
    steps: int = 8,
    **options: Any,
) -> DistillResult:
    return distill(
        prior,
        method,
        representation,
        embed_prompt(prior, "a red cube"),
        RANGE,
        steps=steps,
        views_per_step=2,
        resolution=16,
        background="random",
        rng=Rng(0),
        **options,
    )


def tensors(state: Any) -> list[torch.Tensor]:
    if isinstance(state, torch.Tensor):
        return [state]
    if isinstance(state, dict):
        return [t for key in sorted(state, key=str) for t in tensors(state[key])]
    if isinstance(state, list | tuple):
        return [t for item in state for t in tensors(item)]
    return []


@pytest.mark.parametrize("representation", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_counted_cost_is_declared_cost_and_no_decode(
    prior: StableDiffusionPrior, method: str, representation: str
) -> None:
    made = make_method(method, prior)
    canvas = make_representation(representation, prior)
    seen = [prior.counter + Work()]
    steps = 12
    run(prior, made, canvas, steps, on_step=lambda k, log: seen.append(prior.counter + Work()))
    encoder = Work() if representation == "latent" else Work(vae_enc_fwd=2, vae_enc_bwd=2)
    for k in range(steps):
        declared = made.cost(Progress(k, steps), 2, Rng(0).at(k)) + encoder
        assert seen[k + 1] - seen[k] == declared, k
    assert (seen[-1] - seen[0]).vae_dec == 0


@pytest.mark.parametrize("representation", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_stopped_and_resumed_is_bit_equal(
    prior: StableDiffusionPrior, method: str, representation: str
) -> None:
    whole = make_method(method, prior), make_representation(representation, prior)
    assert run(prior, *whole) == DistillResult(8, stopped=False)
    expected = [t.clone() for part in whole for t in tensors(part.state_dict())]

    first = make_method(method, prior), make_representation(representation, prior)
    asked = iter([False, False, False, True])
    assert run(prior, *first, should_stop=lambda: next(asked)) == DistillResult(3, stopped=True)
    states = [part.state_dict() for part in first]
    second = make_method(method, prior), make_representation(representation, prior)
    for part, state in zip(second, states, strict=True):
        part.load_state_dict(state)
    run(prior, *second, first_step=3)
    got = [t for part in second for t in tensors(part.state_dict())]
    assert len(got) == len(expected) > 0
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


@pytest.mark.parametrize("method", METHODS)
def test_every_parameter_moves_and_the_prior_does_not(prior: StableDiffusionPrior, method: str) -> None:
    made, canvas = make_method(method, prior), make_representation("gaussians", prior)
    frozen = {n: p.clone() for n, p in prior._denoiser.unet.state_dict().items()}
    before = [t.clone() for t in tensors(canvas.state_dict())]
    run(prior, made, canvas, 3)
    after = tensors(canvas.state_dict())
    assert sum(not torch.equal(a, b) for a, b in zip(after, before, strict=False)) >= 5
    assert all(torch.equal(p, frozen[n]) for n, p in prior._denoiser.unet.state_dict().items())


def test_non_finite_values_stop_the_run_and_are_named(
    prior: StableDiffusionPrior, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = make_method("sds", prior)
    step = method.step

    def bad(latents: torch.Tensor, text: Any, view: Any, progress: Progress, rng: Any) -> Any:
        out = step(latents, text, view, progress, rng)
        return type(out)(out.grad * float("nan")) if progress.k == 2 else out

    monkeypatch.setattr(method, "step", bad)
    logged: list[int] = []
    with pytest.raises(NonFiniteError, match="latent gradient became non-finite at step 2"):
        run(prior, method, make_representation("rgb", prior), on_step=lambda k, log: logged.append(k))
    assert logged == [0, 1]


def test_a_stop_checks_what_was_not_checked_yet(
    prior: StableDiffusionPrior, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU, values are read only for a row of the log."""
    checked: list[int] = []
    steps = iter(range(10))
    monkeypatch.setattr(FiniteMonitor, "check", lambda monitor: checked.append(len(checked)))
    run(
        prior,
        make_method("sds", prior),
        make_representation("rgb", prior),
        should_stop=lambda: next(steps) == 3,
    )
    assert len(checked) == 3 + 1  # on the CPU also after each step


def test_log_comes_at_its_interval_and_at_the_end(prior: StableDiffusionPrior) -> None:
    logs: dict[int, dict[str, float]] = {}
    method, canvas = make_method("vsd", prior), make_representation("rgb", prior)
    run(prior, method, canvas, 8, log_every=3, on_step=logs.__setitem__)
    assert [k for k, log in logs.items() if log] == [2, 5, 7]
    assert {"grad_rms", "lora_loss", "n_primitives"} <= logs[7].keys()


@pytest.mark.parametrize("name", ["sds", "trace"])
def test_the_log_has_mean_and_range_of_the_timesteps_of_its_step(
    prior: StableDiffusionPrior, name: str
) -> None:
    logs: dict[int, dict[str, float]] = {}
    drawn: list[torch.Tensor] = []
    run(
        prior,
        make_method(name, prior),
        make_representation("rgb", prior),
        8,
        log_every=3,
        on_step=logs.__setitem__,
        observe=lambda seen: drawn.append(seen.distilled.t),
    )
    for step in (2, 5, 7):
        t = drawn[step].double()
        found = [logs[step][key] for key in ("t", "t_min", "t_max")]
        assert found == pytest.approx([t.mean().item(), t.min().item(), t.max().item()])
    assert logs[2]["t"] != logs[5]["t"]


def test_views_together_are_views_apart(prior: StableDiffusionPrior) -> None:
    """The gradient of four views is the mean of the gradients of each."""
    from trace_bench.cameras import sample_cameras
    from trace_bench.distill import encode

    method, canvas = make_method("sds", prior), make_representation("gaussians", prior)
    text, rng = embed_prompt(prior, "a red cube"), Rng(0).at(0)
    view = sample_cameras(4, rng, RANGE, 16, 16)
    colours = background_colour("random", 4, rng, prior.device)
    latents = encode(prior, canvas.render(view, colours), rng).latents
    grad = method.step(latents.detach(), text, view, Progress(0, 8), rng).grad
    apart = [encode(prior, canvas.render(view[i : i + 1], colours[i : i + 1]), rng).latents for i in range(4)]
    assert torch.allclose(apart[0], latents[:1], atol=1e-5)
    assert grad.shape == latents.shape


def test_backgrounds() -> None:
    rng = Rng(0).at(0)
    assert background_colour("black", 2, rng, torch.device("cpu")).sum() == 0
    assert background_colour("white", 2, rng, torch.device("cpu")).sum() == 6
    random = background_colour("random", 2, rng, torch.device("cpu"))
    assert random.shape == (2, 3)
    assert not torch.equal(random[0], random[1])


@pytest.mark.parametrize(
    ("name", "step", "untouched", "advice"),
    [
        ("render", 0, True, "the init itself cannot be rendered"),
        ("latents", 0, True, "look at the prior"),
        ("render", 3, False, "lower the learning rate"),
        ("representation.params.scales", 0, False, "lower the learning rate"),
    ],
)
def test_the_advice_fits_what_went_wrong(name: str, step: int, untouched: bool, advice: str) -> None:
    said = str(NonFiniteError(step, name, untouched))
    assert said.startswith(f"The {name} became non-finite at step {step}; ")
    assert advice in said
    assert ("learning rate" in said) is not untouched


def test_a_start_that_cannot_be_rendered_is_blamed(prior: StableDiffusionPrior) -> None:
    canvas = make_representation("rgb", prior)
    canvas.canvas.data[..., 0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match="render became non-finite at step 0; the init itself"):
        run(prior, make_method("sds", prior), canvas)


class Sees(SDS):
    """SDS that notes the geometry that it is given."""

    uses_geometry = True

    def step(self, latents, text, view, progress, rng, geometry=None):
        self.seen = geometry
        return super().step(latents, text, view, progress, rng)


def test_a_method_that_declares_it_sees_the_shape_of_the_render(prior: StableDiffusionPrior) -> None:
    method = Sees(prior, guidance_scale=7.5)
    renders: list[Any] = []
    run(
        prior,
        method,
        make_representation("gaussians", prior),
        steps=1,
        observe=lambda made: renders.append(made.render),
    )
    (render,) = renders
    for name in ("depth", "alpha"):
        seen = getattr(method.seen, name)
        assert torch.equal(seen, getattr(render, name))
        assert not seen.requires_grad
    method.uses_geometry = False
    del method.seen
    run(prior, method, make_representation("gaussians", prior), steps=1)
    assert method.seen is None


def test_cfd_with_noise_on_the_surface_resumes_bit_for_bit(prior: StableDiffusionPrior) -> None:
    """Nothing is stored: a new method finds the noise of the old one."""
    whole = make_representation("gaussians", prior)
    run(prior, CFD(prior, guidance_scale=7.5, map_size=32), whole)
    stopped = make_representation("gaussians", prior)
    stops = iter([False] * 3 + [True])
    run(prior, CFD(prior, guidance_scale=7.5, map_size=32), stopped, should_stop=lambda: next(stops))
    resumed = make_representation("gaussians", prior)
    resumed.load_state_dict(stopped.state_dict())
    run(prior, CFD(prior, guidance_scale=7.5, map_size=32), resumed, first_step=3)
    pairs = zip(tensors(whole.state_dict()), tensors(resumed.state_dict()), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
