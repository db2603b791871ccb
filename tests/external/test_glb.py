"""Colours of .glb files: vertices x factor x texture in linear light; the rest is refused by name."""

from __future__ import annotations

import io

import numpy as np
import pytest
from mesh_files import RED, glb, texture
from PIL import Image

from trace_bench.external.mesh import load_mesh
from trace_bench.external.mesh_part import GREY
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.srgb import to_linear, to_srgb

TEXTURED = {"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}


def color(path):
    """The only colour of a mesh, in [0, 1]."""
    _, colors = load_mesh(path).sample(50, np.random.default_rng(0))
    assert np.ptp(colors, axis=0).max() < 1e-6
    return colors[0]


def png(color=RED, mode="RGB"):
    stream = io.BytesIO()
    Image.new(mode, (4, 4), color).save(stream, "PNG")
    return stream.getvalue()


def of_all(*channels, dtype=np.uint8):
    return np.tile(np.array(channels, dtype), (8, 1))


def test_colours_of_vertices_with_and_without_a_material(tmp_path):
    red = of_all(255, 0, 0, 255)
    plain = {"pbrMetallicRoughness": {"metallicFactor": 0.0}}
    np.testing.assert_allclose(color(glb(tmp_path / "a.glb", plain, red)), [1, 0, 0])
    np.testing.assert_allclose(color(glb(tmp_path / "b.glb", None, red)), [1, 0, 0])
    np.testing.assert_allclose(color(glb(tmp_path / "c.glb")), [GREY] * 3)
    np.testing.assert_allclose(color(glb(tmp_path / "d.glb", plain)), [1, 1, 1])


@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1)])
@pytest.mark.parametrize("material", [None, {}])
def test_colours_of_vertices_of_every_type_are_linear(tmp_path, dtype, top, material):
    stored = of_all(top, top // 5 if top > 1 else 0.2, 0, top, dtype=dtype)
    expected = [1.0, to_srgb(np.array(0.2)), 0.0]
    np.testing.assert_allclose(color(glb(tmp_path / "x.glb", material, stored)), expected, atol=1e-4)
    by_trimesh = glb(tmp_path / "y.glb", material, stored, generator="https://github.com/mikedh/trimesh")
    np.testing.assert_allclose(color(by_trimesh), [1.0, 0.2, 0.0], atol=1e-4)


def test_a_factor_is_linear(tmp_path):
    half = {"pbrMetallicRoughness": {"baseColorFactor": [0.5, 0.001, 0.0, 1.0]}}
    expected = to_srgb(np.array([0.5, 0.001, 0.0]))
    assert expected[0] == pytest.approx(0.7354, abs=1e-4)
    np.testing.assert_allclose(color(glb(tmp_path / "x.glb", half)), expected, atol=1e-6)


def test_colour_times_factor_times_texture(tmp_path):
    material = {
        "pbrMetallicRoughness": {"baseColorFactor": [0.5, 1, 1, 1], **TEXTURED["pbrMetallicRoughness"]}
    }
    stored = of_all(0.5, 1.0, 0.25, dtype=np.float32)
    path = glb(tmp_path / "x.glb", material, stored, uv=True, image=png((200, 100, 255)))
    linear = to_linear(np.array([200, 100, 255]) / 255.0) * [0.25, 1.0, 0.25]
    np.testing.assert_allclose(color(path), to_srgb(linear), atol=1e-5)
    alone = glb(tmp_path / "y.glb", TEXTURED, uv=True, image=png())
    np.testing.assert_array_equal(color(alone), np.float32(RED) / np.float32(255.0))


def test_specular_glossiness_shows_its_diffuse_colour(tmp_path):
    def material(**values):
        return {"extensions": {"KHR_materials_pbrSpecularGlossiness": values}}

    red = glb(tmp_path / "x.glb", material(diffuseFactor=[1, 0, 0, 1]))
    np.testing.assert_allclose(color(red), [1, 0, 0])
    textured = glb(tmp_path / "y.glb", material(diffuseTexture={"index": 0}), uv=True, image=png())
    np.testing.assert_allclose(color(textured), np.array(RED) / 255.0, atol=1e-6)


def test_alpha_modes_without_an_effect_are_taken(tmp_path):
    for mode in ("MASK", "BLEND", "OPAQUE"):
        opaque = glb(
            tmp_path / "x.glb", {**TEXTURED, "alphaMode": mode}, uv=True, image=png((*RED, 255), "RGBA")
        )
        np.testing.assert_allclose(color(opaque), np.array(RED) / 255.0, atol=1e-6)
    hidden = glb(tmp_path / "y.glb", TEXTURED, uv=True, image=png((*RED, 0), "RGBA"))  # OPAQUE ignores alpha
    np.testing.assert_allclose(color(hidden), np.array(RED) / 255.0, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (
            {"material": {**TEXTURED, "alphaMode": "MASK"}, "image": png((*RED, 0), "RGBA")},
            "alphaMode MASK and trans",
        ),
        (
            {"material": {**TEXTURED, "alphaMode": "BLEND"}, "image": png((*RED, 99), "RGBA")},
            "alphaMode BLEND",
        ),
        (
            {"material": {"alphaMode": "BLEND", "pbrMetallicRoughness": {"baseColorFactor": [1, 1, 1, 0.5]}}},
            "alphaMode BLEND",
        ),
        ({"material": {"alphaMode": "BLEND"}, "colors": of_all(255, 0, 0, 128)}, "alphaMode BLEND"),
        ({"material": TEXTURED, "image": b"no picture"}, "has a texture that cannot be read"),
        ({"material": TEXTURED, "image": png()[:-30]}, "cannot be read"),
        ({"material": TEXTURED, "image": png(), "uv": False}, "has a texture that cannot be read"),
        ({"material": TEXTURED, "image": "gone.png"}, r"needs gone\.png, which does not exist"),
        (
            {
                "material": {"pbrMetallicRoughness": {"baseColorTexture": {"index": 0, "texCoord": 1}}},
                "image": png(),
            },
            "second set of texture coordinates",
        ),
        (
            {
                "material": {
                    "pbrMetallicRoughness": {
                        "baseColorTexture": {
                            "index": 0,
                            "extensions": {"KHR_texture_transform": {"scale": [2, 2]}},
                        }
                    }
                },
                "image": png(),
            },
            "KHR_texture_transform",
        ),
        ({"extensionsRequired": ["KHR_draco_mesh_compression"]}, "needs KHR_draco_mesh_compression"),
        ({"extensionsRequired": ["EXT_meshopt_compression"]}, "needs EXT_meshopt_compression"),
    ],
)
def test_what_cannot_be_shown_is_refused_by_name(tmp_path, options, word):
    with pytest.raises(TraceBenchError, match=word) as refusal:
        load_mesh(glb(tmp_path / "x.glb", **{"uv": True, **options}))
    assert "x.glb" in str(refusal.value)


def test_an_image_beside_the_file(tmp_path):
    texture(tmp_path / "Red Tex.png")
    for uri in ("Red Tex.png", "Red%20Tex.png", "red tex.png", "./Red%20Tex.png"):
        path = glb(tmp_path / "x.glb", TEXTURED, uv=True, image=uri)
        np.testing.assert_allclose(color(path), np.array(RED) / 255.0, atol=1e-6)


def test_damaged_files_are_one_sentence(tmp_path):
    good = glb(tmp_path / "x.glb").read_bytes()
    for i, bad in enumerate(
        (b"", good[:10], good[:200], b"glTF" + b"\0" * 16, good.replace(b'"meshes"', b'"mexhes"'))
    ):
        path = tmp_path / f"{i}.glb"
        path.write_bytes(bad)
        with pytest.raises(TraceBenchError, match=rf"{i}\.glb (cannot be read|has no triangles)") as refusal:
            load_mesh(path)
        assert "\n" not in str(refusal.value)
