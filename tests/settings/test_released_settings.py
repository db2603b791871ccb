"""The settings of the paper's protocol against the published codes, each with its source.

The repositories on GitHub: hustvl/GaussianDreamer, emmaleee789/TraCe, EnVision-Research/LucidDreamer,
xingy038/Dreamer-XL, CVMI-Lab/Classifier-Score-Distillation, sail-sg/Consistent3D and
threestudio-project/threestudio.
"""

from __future__ import annotations

import pytest
from composed import job

from trace_bench.progress import Progress, scheduled
from trace_bench.representations.gaussians.densify import Densifier, DensifySettings
from trace_bench.representations.nerf.schedule import LevelSchedule
from trace_bench.representations.nerf.shading import ShadingSettings
from trace_bench.settings.fractions import with_numbers

pytestmark = pytest.mark.slow


def densifier(made):
    representation = with_numbers("representation", made.representation)
    settings = DensifySettings(**representation["densify"])
    return Densifier(settings, representation["reference_steps"], (4, 64, 64), 0)


def events(made):
    """(step, whether large Gaussians are pruned too) of each event."""
    found = densifier(made)
    due = [(k, found.event(Progress(k, made.steps))) for k in range(made.steps)]
    return [(k, event > found.settings.prune_scale_after) for k, event in due if event is not None]


# --- 3D Gaussians: the steps of densification -----------------------------------------------------------

# threestudio/systems/{GaussianDreamer,trace}.py, on_before_optimizer_step: statistics while step < 900;
# densify and prune at step > 300 and step % 100 == 0; large ones are pruned at step > 500. max_steps 1200
# and 1700.
GAUSSIAN_DREAMER = [(400, False), (500, False), (600, True), (700, True), (800, True)]
# The TraCe paper runs CSD, VSD, SDI and Consistent3D on 3D Gaussians, but no such code is published.
LIKE_SDS = ("csd", "vsd", "sdi", "consistent3d")


@pytest.mark.parametrize(
    ("method", "steps"),
    [("sds", 1200), ("gaussiandreamer", 1200), *((name, 1200) for name in LIKE_SDS)]
    + [(name, 1700) for name in ("trace", "trace_official", "trace_official_trained")],
)
def test_densification_is_at_the_released_steps(method, steps):
    made = job(f"method={method}", "prior=sd21")
    assert made.steps == steps
    assert events(made) == GAUSSIAN_DREAMER
    found = densifier(made)
    assert found._scaled(found.settings.stop, steps) == 900


# LucidDreamer, train.py and arguments/__init__.py: densify_from_iter 100, densify_until_iter 3000 (Dreamer
# XL, in configs/bagel.yaml: 1500), densification_interval 100; large ones at iteration >
# opacity_reset_interval = 300; opacities are reset at multiples of 300 before densify_until_iter.
# iterations 5000 (2500).
@pytest.mark.parametrize(
    ("method", "representation", "steps", "stop"),
    [
        ("ism", "gaussians_lucid_dreamer", 5000, 3000),
        ("dreamer_xl", "gaussians_dreamer_xl", 2500, 1500),
    ],
)
def test_ism_and_dreamer_xl_densify_at_the_steps_of_their_own_codes(method, representation, steps, stop):
    made = job(f"method={method}", "prior=sd21", f"representation={representation}")
    assert made.steps == steps
    assert events(made) == [(k, k > 300) for k in range(200, stop, 100)]
    found = densifier(made)
    assert found._scaled(found.settings.stop, steps) == stop
    resets = [k for k in range(steps) if found.resets(Progress(k, steps))]
    assert resets == list(range(300, stop, 300))


@pytest.mark.parametrize("method", ["ism", "dreamer_xl"])
def test_on_the_shared_gaussians_they_densify_in_the_same_share_of_the_run_as_trace(method):
    made = job(f"method={method}", "prior=sd21")
    assert [k for k, _ in events(made)] == [round(k * made.steps / 1700) for k, _ in GAUSSIAN_DREAMER]


# --- cameras --------------------------------------------------------------------------------------------


# threestudio/data/uncond.py and configs of each code: the elevation's formula is the old one everywhere but
# in threestudio's head. tests/test_cameras.py tests what the names mean.
@pytest.mark.parametrize(
    ("method", "representation", "distribution", "elevation"),
    [
        *(
            (name, "gaussians", "released", [-10, 60])
            for name in ("sds", "gaussiandreamer", "trace", "ism", *LIKE_SDS)
        ),
        *((name, "nerf", "threestudio", [-10, 45]) for name in ("sds", "vsd", "sdi")),
        ("consistent3d", "nerf", "released", [-10, 45]),
    ],
)
def test_elevations_are_drawn_as_released(method, representation, distribution, elevation):
    cameras = job(f"method={method}", "prior=sd21", f"representation={representation}").cameras
    assert (cameras["distribution"], cameras["elevation_deg"]) == (distribution, elevation)


def test_the_toy_world_draws_elevations_as_before():
    assert job().cameras["distribution"] == "per_view"


# --- timesteps, clamps and negative prompts ---------------------------------------------------------------


def of(method, representation, *more):
    return with_numbers(
        "method", job(f"method={method}", "prior=sd21", f"representation={representation}", *more).method
    )


def t_range(spec, fraction):
    return tuple(
        int(1000 * scheduled(spec[name], fraction)) for name in ("min_step_percent", "max_step_percent")
    )


@pytest.mark.parametrize("method", ["sds", "gaussiandreamer"])
def test_sds_on_gaussians_is_gaussian_dreamers(method):
    """configs/gaussiandreamer-sd.yaml; systems/GaussianDreamer.py: at most 0.55 from step 501 on."""
    spec = of(method, "gaussians")
    assert [t_range(spec, k / 1200) for k in (0, 500, 501, 1199)] == [(20, 980)] * 2 + [(20, 550)] * 2
    assert [scheduled(spec["grad_clamp"], k / 1200) for k in (0, 500, 1000)] == pytest.approx([1.5, 1.75, 2])
    assert spec["negative_prompt"].startswith("ugly, bad anatomy, blurry, pixelated obscure")


@pytest.mark.parametrize("method", ["sds", "gaussiandreamer"])
@pytest.mark.parametrize("representation", ["nerf", "image"])
def test_sds_elsewhere_is_threestudios(method, representation):
    """threestudio, configs/dreamfusion-sd.yaml and 2dplayground.ipynb."""
    spec = of(method, representation)
    assert {t_range(spec, k / 10000) for k in range(0, 10000, 500)} == {(20, 980)}
    assert (spec["grad_clamp"], spec["negative_prompt"], spec["guidance_scale"]) == (None, "", 101)
    assert spec["view_thresholds"] == {"front": 45, "back": 45, "overhead": 60}


@pytest.mark.parametrize("method", ["trace", "trace_official", "trace_official_trained"])
def test_the_estimate_of_traces_target_has_the_released_range(method):
    """models/guidance/trace_guidance.py: t' from 20 to 699, in stage two to 499."""
    spec = of(method, "gaussians")
    assert spec["x0_steps"] == [20, 700, 500]
    assert 699 / 1700 < spec["x0_switch"] <= 701 / 1700


# --- NeRF -------------------------------------------------------------------------------------------------


def nerf(method):
    made = job(f"method={method}", "prior=sd21", "representation=nerf")
    return made, with_numbers("method", made.method), with_numbers("representation", made.representation)


def test_csd_on_a_nerf():
    """CSD, configs/csd-if-object.yaml and threestudio/models/guidance/deep_floyd_simple_guidance.py."""
    made, method, field = nerf("csd")
    assert (made.steps, made.views_per_step) == (10000, 4)
    assert (made.cameras["elevation_deg"], made.cameras["distribution"]) == ([-10, 90], "released")
    assert method["view_thresholds"] == {"front": 30, "back": 30, "overhead": 60}
    ramp = [scheduled(method["negative_coefficient"], k / 10000) for k in (0, 2500, 5000, 9999)]
    assert ramp == pytest.approx([0, -0.5, -1, -1])  # uncond_scale; null_scale is -1 less this
    assert (method["weighting"], method["grad_normalize"]) == ("one", True)
    assert [t_range(method, k / 10000) for k in (0, 5000, 5001)] == [(20, 980), (20, 980), (20, 500)]
    orientation = [scheduled(field["losses"]["orientation"], k / 10000) for k in (0, 5000, 5001, 9999)]
    assert orientation == [1, 1, 20, 20]
    assert (field["losses"]["sparsity"], field["losses"]["opaque"]) == (1, 0)
    shading = field["shading"]
    assert (shading["diffuse"], shading["textureless"], shading["textureless_shows"]) == (0.5, 1, "normals")
    assert shading["ambient_until"] == 2001 / 10000
    assert (field["background"], field["background_augment"], made.background) == ("learned", 0.5, "random")
    assert set(field["lr"].values()) == {1e-3}
    assert field["betas"] == [0.9, 0.999]


def test_consistent3d_on_a_nerf():
    """Consistent3D, configs/consistency-coarse.yaml (seed and evaluation aside)."""
    made, method, field = nerf("consistent3d")
    assert (made.steps, made.views_per_step) == (3000, 8)
    assert made.cameras["azimuth_strata"] == 4
    assert (field["losses"]["sparsity"], field["losses"]["opaque"]) == (0, 0)
    ramp = [scheduled(field["losses"]["orientation"], k / 3000) for k in (0, 1000, 2000, 2999)]
    assert ramp == pytest.approx([10, 505, 1000, 1000], abs=0.01)
    shading = ShadingSettings(**field["shading"])
    assert not any(k / 3000 < shading.ambient_until for k in range(1000, 3000))
    assert all(k / 3000 < shading.ambient_until for k in range(1000))
    assert (shading.diffuse, shading.textureless, shading.textureless_shows) == (0.75, 0.5, "light")
    assert (shading.ambient_light, shading.diffuse_light) == (1, 0)
    assert (field["background"], field["background_augment"], made.background) == ("learned", 0.5, "random")
    levels = LevelSchedule(**field["levels"])
    assert [levels.active(k / 3000, 16) for k in (0, 249, 251, 1000, 2001)] == [8, 8, 9, 12, 16]
    assert [scheduled(method["grad_clamp"], k / 3000) for k in (0, 1500, 3000)] == [2, 5, 8]
    assert method["guidance_schedule"] == [0, 101, 51, 1]  # 100 -> 50 in threestudio's convention
    assert method["negative_prompt"] == ""


def test_sds_on_a_nerf():
    """threestudio, configs/dreamfusion-sd.yaml."""
    made, _, field = nerf("sds")
    assert (made.steps, made.views_per_step, made.resolution) == (10000, 1, 64)
    assert (made.cameras["distance"], made.cameras["fovy_deg"]) == ([1.5, 2], [40, 70])
    ramp = [scheduled(field["losses"]["orientation"], k / 10000) for k in (0, 2500, 5000)]
    assert ramp == [10, 505, 1000]
    assert (field["losses"]["sparsity"], field["losses"]["opaque"]) == (1, 0)
    shading = field["shading"]
    assert (shading["diffuse"], shading["textureless"], shading["ambient_until"]) == (0.75, 0.5, 2001 / 10000)
    assert (shading["textureless_shows"], shading["ambient_light"], shading["diffuse_light"]) == (
        "light",
        0.1,
        0.9,
    )
    levels = LevelSchedule(**field["levels"])
    assert [levels.active(k / 10000, 16) for k in (0, 2000, 2500, 6000)] == [8, 8, 9, 16]
    assert (field["background"], field["background_augment"]) == ("learned", 0)
    assert (field["lr"], field["betas"]) == (
        {"grid": 0.01, "networks": 0.01, "background": 0.001},
        [0.9, 0.99],
    )


@pytest.mark.parametrize("name", ["vsd", "trace"])
def test_vsd_on_a_nerf(name):
    """threestudio, configs/prolificdreamer.yaml; TraCe's NeRF is not published and takes the same."""
    made, _, field = nerf(name)
    assert (made.steps, made.views_per_step, made.resolution) == (25000, 1, 512)
    assert (made.cameras["distance"], field["field"]["radius"]) == ([1, 1.5], 1)
    assert field["resolution_schedule"] == [[0, 64], [5000 / 25000, 512]]
    assert (field["background"], field["background_augment"], made.background) == ("learned", 0.5, "random")
    opaque = [scheduled(field["losses"]["opaque"], k / 25000) for k in (0, 10000, 10001)]
    assert (opaque, field["losses"]["sparsity"], field["losses"]["orientation"]) == ([0, 0, 1000], 10, 0)
    assert (field["shading"]["diffuse"], field["levels"]["start"], field["weight_decay"]) == (0, None, 0.01)
    assert field["lr"] == {"grid": 0.01, "networks": 0.001, "background": 0.001}


def test_sdi_on_a_nerf():
    """threestudio, configs/sdi.yaml."""
    made, method, field = nerf("sdi")
    assert (made.steps, made.views_per_step, made.resolution) == (10000, 1, 512)
    assert (method["perp_neg"], method["reduction"], method["guidance_scale"]) == (True, "mean", 7.5)
    losses = {
        name: [scheduled(value, k / 10000) for k in (0, 3000, 4000)]
        for name, value in field["losses"].items()
    }
    assert losses["sparsity"] == [0.15, 0, 0]
    assert losses["convexity"] == pytest.approx([1, 0.325, 0.1])
    assert (losses["orientation"], losses["opaque"], losses["z_variance"]) == ([0.1] * 3, [0.1] * 3, [1] * 3)
    shading = field["shading"]
    assert (shading["diffuse"], shading["textureless"], shading["ambient_until"]) == (0.3, 0.75, 0.1)


# --- size of the renders, colours -------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["sds", "gaussiandreamer", "trace", "ism", "dreamer_xl", *LIKE_SDS])
def test_gaussians_are_rendered_at_1024_pixels(method):
    """configs/gaussiandreamer-sd.yaml, configs/trace.yaml: height and width; the encoder resizes to 512."""
    made = job(f"method={method}", "prior=sd21")
    assert (made.resolution, made.prior["resolution"], made.rig["resolution"]) == (1024, 512, 512)
    assert job(f"method={method}", "prior=sd21", "resolution=512").resolution == 512


@pytest.mark.parametrize("name", ["gaussians", "gaussians_lucid_dreamer", "gaussians_dreamer_xl"])
def test_colours_of_gaussians_are_clamped_as_released(name):
    """submodules/diff-gaussian-rasterization/cuda_rasterizer/forward.cu and backward.cu of each code."""
    assert job("prior=sd21", f"representation={name}").representation["colors"] == "released"
    assert job(f"representation={name}").representation["colors"] == "bounded"
