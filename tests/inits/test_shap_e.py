"""The Shap-E init, on a random checkpoint of the same classes."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch
from shap_e_checkpoint import make_shap_e, transformer

from trace_bench.inits import shap_e
from trace_bench.inits.cache import cached
from trace_bench.inits.growth import grow
from trace_bench.inits.shap_e import ShapE
from trace_bench.inits.shap_e_weights import from_openai, load_into
from trace_bench.seeding import Rng
from trace_bench.system.errors import TraceBenchError

RNG = Rng(0).at(-1)
SMALL = {"steps": 3, "grid": 24, "candidates": 20_000, "reach": 0.05}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(make_shap_e(tmp_path_factory.mktemp("shap_e")))


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACE_BENCH_CACHE", str(tmp_path / "cache"))


def test_growth_is_the_released_loop():
    """The released code's loop over single points, with the same random numbers."""
    vertices = np.random.default_rng(0).normal(size=(50, 3))
    colors = np.random.default_rng(1).random((50, 3))
    random = np.random.RandomState(0)  # what np.random.seed(0) gives
    points = random.uniform(vertices.min(axis=0), vertices.max(axis=0), size=(3000, 3))
    wanted, painted = [], []
    for point in points:
        distances = np.linalg.norm(vertices - point, axis=1)
        nearest = int(distances.argmin())
        if distances[nearest] < 0.3:
            wanted.append(point)
            painted.append(colors[nearest] + 0.2 * random.random_sample(3))
    positions, found = grow(vertices, colors, 3000, 0.3, 0.2)
    assert 20 < len(wanted) < 2900
    np.testing.assert_array_equal(positions, np.concatenate([wanted, vertices]))
    np.testing.assert_array_equal(found, np.concatenate([painted, colors]))


def test_the_cloud_lies_around_the_zero_crossings_of_the_field(model):
    init = ShapE(model, **SMALL, turn_deg=0.0)
    cloud = init(RNG, "cpu", "a red cube")
    made = init._generate(RNG, torch.device("cpu"), "a red cube")
    vertices = torch.from_numpy(made["vertices"])
    assert vertices.abs().max() <= 1.05
    assert len(cloud) > len(vertices)
    torch.testing.assert_close(cloud.positions[-len(vertices) :], 1.6 * vertices)
    nearest = torch.cdist(cloud.positions, 1.6 * vertices).min(dim=-1).values
    assert nearest.max() < 1.6 * 0.05 + 1e-6
    assert 0.0 <= cloud.colors.min() <= cloud.colors.max() < 1.2


def test_vertices_are_where_the_signed_distance_changes_its_sign(model):
    """Exactly one vertex per lattice edge with a sign change."""
    init = ShapE(model, **SMALL)
    pipe = init._pipeline(shap_e.Path(model), torch.device("cpu"))
    latents = pipe(
        "x", num_inference_steps=2, guidance_scale=15.0, generator=RNG.generator("x"), output_type="latent"
    )
    with torch.no_grad():
        mesh = pipe.shap_e_renderer.decode_to_mesh(latents.images[:1], "cpu", grid_size=12)
        ticks = torch.linspace(-1.0, 1.0, 12)
        points = torch.cartesian_prod(ticks, ticks, ticks)[None]
        field = pipe.shap_e_renderer.mlp(
            position=points, direction=None, ts=None, nerf_level="fine", rendering_mode="stf"
        ).signed_distance.reshape(12, 12, 12)
    inside = torch.nn.functional.pad(field, (1,) * 6, value=-1.0) > 0
    crossings = sum(int((inside.int().diff(dim=axis) != 0).sum()) for axis in range(3))
    assert len(mesh.verts) == crossings > 100


def test_methods_of_a_sweep_share_the_mesh(model, monkeypatch):
    first = ShapE(model, **SMALL)(RNG, "cpu", "a red cube")
    assert first.seconds == 0.0

    def never(*_):
        pytest.fail("the mesh was made again")

    monkeypatch.setattr(ShapE, "_generate", never)
    second = ShapE(model, **SMALL | {"reach": 0.04})(RNG, "cpu", "a red cube")  # later steps may differ
    assert second.seconds > 0.0
    assert len(second) < len(first)
    monkeypatch.undo()


@pytest.mark.parametrize("other", [{"prompt": "a duck"}, {"seed": 1}, {"guidance_scale": 3.0}, {"steps": 4}])
def test_another_prompt_seed_or_sampler_is_another_mesh(model, other):
    first = ShapE(model, **SMALL)(RNG, "cpu", "a red cube")
    settings = {key: value for key, value in other.items() if key not in ("prompt", "seed")}
    init = ShapE(model, **SMALL | settings)
    cloud = init(Rng(other.get("seed", 0)).at(-1), "cpu", other.get("prompt", "a red cube"))
    assert cloud.seconds == 0.0
    assert len(cloud) != len(first) or not torch.equal(cloud.positions, first.positions)


def test_the_sampler_has_the_papers_noise_levels(model):
    pipe = ShapE(model)._pipeline(shap_e.Path(model), torch.device("cpu"))
    pipe.scheduler.set_timesteps(64)
    sigmas = pipe.scheduler.sigmas
    ramp = torch.linspace(0, 1, 64, dtype=torch.float64)
    wanted = (160.0 ** (1 / 7) + ramp * (1e-3 ** (1 / 7) - 160.0 ** (1 / 7))) ** 7
    torch.testing.assert_close(sigmas[:1].double(), wanted[:1])
    torch.testing.assert_close(sigmas[1:-1:2].double(), wanted[1:], rtol=1e-5, atol=0)
    assert sigmas[-1] == 0.0


def test_colours_in_linear_light_or_as_one_sees_them(model):
    linear = ShapE(model, **SMALL, brighten=0.0)(RNG, "cpu", "a red cube").colors
    srgb = ShapE(model, **SMALL, brighten=0.0, colors="srgb")(RNG, "cpu", "a red cube").colors
    back = torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    torch.testing.assert_close(back, linear, atol=1e-5, rtol=1e-4)
    assert len(ShapE(model, **SMALL, max_points=50)(RNG, "cpu", "a red cube")) == 50


def to_openai(state, heads):
    """The transformer's weights under OpenAI's names: an independent inverse of the tested mapping."""
    names = {
        "time_embedding.linear_1": "time_embed.c_fc", "time_embedding.linear_2": "time_embed.c_proj",
        "proj_in": "input_proj", "embedding_proj": "clip_embed", "norm_in": "ln_pre", "norm_out": "ln_post",
        "proj_to_clip_embeddings": "output_proj", "attn1.to_out.0": "attn.c_proj",
        "ff.net.0.proj": "mlp.c_fc", "ff.net.2": "mlp.c_proj", "norm1": "ln_1", "norm3": "ln_2",
    }  # fmt: skip
    found = {"wrapped.pos_emb": state["positional_embedding"][0]}
    for key, value in state.items():
        stem, _, kind = key.rpartition(".")
        if stem in names:
            found[f"wrapped.{names[stem]}.{kind}"] = value
        elif stem.startswith("transformer_blocks."):
            _, i, rest = stem.split(".", 2)
            block = f"wrapped.backbone.resblocks.{i}"
            if rest in names:
                found[f"{block}.{names[rest]}.{kind}"] = value
            elif rest == "attn1.to_q":
                rows = []
                parts = [state[f"transformer_blocks.{i}.attn1.to_{name}.{kind}"] for name in "qkv"]
                size = len(value) // heads
                for head in range(heads):
                    rows += [part[head * size : (head + 1) * size] for part in parts]
                found[f"{block}.attn.c_qkv.{kind}"] = torch.cat(rows)
    return found


def test_weights_in_openais_format(tmp_path):
    torch.manual_seed(1)
    trained, blank = transformer(), transformer()
    theirs = to_openai(trained.state_dict(), heads=2)
    assert set(from_openai(theirs, 2, 2)) == set(trained.state_dict()) - {"clip_mean", "clip_std"}
    for content in (theirs, {"model_state_dict": theirs, "epoch": 3}):
        torch.save(content, tmp_path / "x.pth")
        load_into(blank, tmp_path / "x.pth")
        for name, value in trained.state_dict().items():
            if name not in ("clip_mean", "clip_std"):
                assert torch.equal(blank.state_dict()[name], value), name
        blank = transformer()


def test_finetuned_weights_change_the_start(model, tmp_path):
    torch.manual_seed(5)
    torch.save({"model_state_dict": to_openai(transformer().state_dict(), heads=2)}, tmp_path / "tuned.pth")
    first = ShapE(model, **SMALL)(RNG, "cpu", "a red cube")
    tuned = ShapE(model, **SMALL, weights=str(tmp_path / "tuned.pth"))(RNG, "cpu", "a red cube")
    assert len(tuned) != len(first) or not torch.equal(tuned.positions, first.positions)


def test_what_cannot_be_loaded_is_one_sentence(model, tmp_path):
    (tmp_path / "text.pth").write_text("no weights")
    torch.save({"model_state_dict": {"a": torch.zeros(1)}}, tmp_path / "other.pth")
    (tmp_path / "empty" / "prior").mkdir(parents=True)
    (tmp_path / "empty" / "prior" / "config.json").write_text("{}")
    for settings, word in (
        ({"repo": model, "weights": str(tmp_path / "none.pth")}, "does not exist"),
        (
            {"repo": model, "weights": str(tmp_path / "text.pth")},
            "contains no weights of Shap-E's text model",
        ),
        (
            {"repo": model, "weights": str(tmp_path / "other.pth")},
            "contains no weights of Shap-E's text model",
        ),
        ({"repo": str(tmp_path / "empty")}, "cannot be loaded as a ShapEPipeline"),
        ({"repo": str(tmp_path / "nowhere")}, "There is no model folder"),
        ({"repo": "openai/shap-e"}, "not in the local cache and could not be downloaded"),
    ):
        with pytest.raises(TraceBenchError, match=word) as refusal:
            ShapE(**SMALL | settings)(RNG, "cpu", "a red cube")
        assert "\n" not in str(refusal.value)
    for wrong, word in (
        ({"colors": "warm"}, "colors"),
        ({"dtype": "int8"}, "dtype"),
        ({"steps": 0}, "steps"),
    ):
        with pytest.raises(TraceBenchError, match=word):
            ShapE(**wrong)


def test_waiting_for_another_process_is_not_charged_twice():
    """Both have waited about as long as it took, the second without making it."""
    found, spent = {}, {}

    def make():
        time.sleep(0.6)
        return {"a": np.arange(3)}

    def ask(name):
        began = time.monotonic()
        found[name] = cached("x", {"k": 9}, make)[1]
        spent[name] = time.monotonic() - began + found[name]

    threads = [threading.Thread(target=ask, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(0.55 < seconds < 1.1 for seconds in spent.values()), spent


def test_a_damaged_cache_is_made_again(tmp_path):
    calls = []

    def make():
        calls.append(1)
        return {"a": np.arange(3)}

    assert cached("x", {"k": 1}, make)[1] == 0.0
    assert cached("x", {"k": 1}, make)[0]["a"].tolist() == [0, 1, 2]
    assert len(calls) == 1
    (file,) = (path for path in (tmp_path / "cache" / "inits").iterdir() if path.suffix != ".lock")
    file.write_bytes(file.read_bytes()[:40])
    assert cached("x", {"k": 1}, make)[0]["a"].tolist() == [0, 1, 2]
    assert cached("x", {"k": 2}, make)[1] == 0.0
    assert len(calls) == 3


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TRACE_BENCH_CACHE", str(tmp_path / "file"))
    assert cached("x", {}, lambda: {"a": np.ones(1)})[1] == 0.0
