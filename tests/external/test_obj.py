"""Colours of .obj files: textures wherever they lie, vertices, materials; the rest is refused by name."""

from __future__ import annotations

import numpy as np
import pytest
from mesh_files import RED, obj, texture, textured_obj
from PIL import Image

from trace_bench.external.mesh import load_mesh
from trace_bench.external.mesh_part import GREY
from trace_bench.system.errors import TraceBenchError

MATERIAL = "newmtl mat\nKd 1 1 1\nmap_Kd {}\n"


def color(path):
    """The only colour of a mesh, 0 to 255."""
    _, colors = load_mesh(path).sample(50, np.random.default_rng(0))
    assert np.ptp(colors, axis=0).max() < 1e-6
    return tuple(np.round(255.0 * colors[0]).astype(int).tolist())


@pytest.mark.parametrize(
    ("named", "lies"),
    [
        ("tex.png", "tex.png"),
        ("textures\\tex.png", "textures/tex.png"),
        ("./Textures/TEX.PNG", "textures/tex.png"),
        ("TEX.PNG", "tex.png"),
        ("C:\\Users\\me\\tex.png", "tex.png"),
        ("\\\\server\\share\\tex.png", "tex.png"),
        ("/home/nobody/tex.png", "tex.png"),
        ("my tex.png", "my tex.png"),
        ('"tex.png"', "tex.png"),
        ("-s 1 1 1 tex.png", "tex.png"),
        ("-blendu on -o 0 0 -mm 0 1 -clamp off -bm 0.3 my tex.png", "my tex.png"),
    ],
)
def test_a_texture_is_found_where_it_lies(tmp_path, named, lies):
    assert color(textured_obj(tmp_path, MATERIAL.format(named), lies)) == RED


def test_materials_are_read_whatever_the_blanks(tmp_path):
    tabs = "newmtl\tmat\n\tKd\t1 1 1\n\tmap_Kd\ttex.png\n"
    assert color(textured_obj(tmp_path / "tabs", tabs)) == RED
    assert color(textured_obj(tmp_path / "blank", mtllib="my model.mtl")) == RED
    two = textured_obj(tmp_path / "two")
    (tmp_path / "two" / "other.mtl").write_text("newmtl other\nKd 0 0 1\n")
    two.write_text(two.read_text().replace("mtllib model.mtl", "mtllib other.mtl model.mtl"))
    assert color(two) == RED
    crlf = textured_obj(tmp_path / "crlf", MATERIAL.format("tex.png").replace("\n", "\r\n"))
    crlf.write_bytes(crlf.read_bytes().replace(b"\n", b"\r\n").replace(b"usemtl mat", b"usemtl\tmat "))
    assert color(crlf) == RED


def test_a_library_in_a_folder_names_textures_beside_itself_or_the_mesh(tmp_path):
    (tmp_path / "materials").mkdir()
    for name, lies in (("a.png", "materials/a.png"), ("b.png", "b.png"), ("../c.png", "c.png")):
        path = textured_obj(tmp_path, MATERIAL.format(name), lies, mtllib="materials/m.mtl")
        assert color(path) == RED


@pytest.mark.parametrize(
    ("material", "word"),
    [
        (MATERIAL.format("gone.png"), "material mat needs the texture gone.png, which does not exist"),
        (MATERIAL.format("textures\\gone.png"), r"needs the texture textures\\gone.png"),
        (MATERIAL.format("-s 2 2 2 tex.png"), "has `-s 2 2 2` in map_Kd of model.mtl"),
        (MATERIAL.format("-clamp on tex.png"), "has `-clamp on`"),
        (MATERIAL.format("tex.png") + "d 0.5\n", "mat has d 0.5; transparent materials"),
        (MATERIAL.format("tex.png") + "Tr 0.25\n", "has Tr 0.25"),
        (MATERIAL.format("tex.png") + "map_d tex.png\n", "has a map_d"),
        ("newmtl other\nKd 1 0 0\n", "uses the material mat, which model.mtl does not define"),
    ],
)
def test_what_cannot_be_shown_is_refused_by_name(tmp_path, material, word):
    with pytest.raises(TraceBenchError, match=word):
        load_mesh(textured_obj(tmp_path, material))


def test_a_material_that_no_face_uses_does_not_matter(tmp_path):
    assert (
        color(textured_obj(tmp_path, MATERIAL.format("tex.png") + "newmtl x\nd 0.1\nmap_Kd gone.png\n"))
        == RED
    )


def test_two_files_that_differ_in_case_only_are_not_chosen_from(tmp_path):
    path = textured_obj(tmp_path, MATERIAL.format("TEX.png"))
    texture(tmp_path / "Tex.png", (0, 0, 255))
    with pytest.raises(TraceBenchError, match=r"needs the texture TEX\.png"):
        load_mesh(path)


def test_a_missing_material_file_is_refused_if_faces_use_it(tmp_path):
    with pytest.raises(TraceBenchError, match=r"names the material file model\.mtl, which does not exist"):
        load_mesh(obj(tmp_path / "a.obj"))
    grey = round(255 * GREY)
    assert color(obj(tmp_path / "b.obj", usemtl=None)) == (grey,) * 3
    assert color(obj(tmp_path / "c.obj", mtllib=None)) == (grey,) * 3


def test_a_file_that_is_no_picture_is_refused(tmp_path):
    path = textured_obj(tmp_path)
    (tmp_path / "tex.png").write_text("no picture")
    with pytest.raises(TraceBenchError, match=r"tex\.png is not a readable image"):
        load_mesh(path)


def test_colours_of_vertices_and_materials(tmp_path):
    plain = "newmtl mat\nKd 0.2 0.4 1\n"
    assert color(textured_obj(tmp_path / "kd", plain)) == (51, 102, 255)
    for uv in (True, False):  # a material without a texture must not turn the vertices grey
        assert color(textured_obj(tmp_path / f"v{uv}", plain, colors=(1, 0, 0), uv=uv)) == (255, 0, 0)
    assert color(textured_obj(tmp_path / "both", colors=(0, 1, 0))) == RED
    assert color(obj(tmp_path / "x.obj", None, None, (0, 0, 1))) == (0, 0, 255)
    with pytest.raises(TraceBenchError, match=r"has vertex colours up to 255; store them from 0 to 1"):
        load_mesh(obj(tmp_path / "y.obj", None, None, (255, 0, 0)))
    some = obj(tmp_path / "z.obj", None, None, (1, 0, 0))
    some.write_text(some.read_text().replace("v 0.5 0.5 0.5 1 0 0", "v 0.5 0.5 0.5"))
    with pytest.raises(TraceBenchError, match="colours at some of its vertices only"):
        load_mesh(some)
    mixed = textured_obj(
        tmp_path / "mixed", MATERIAL.format("tex.png") + "newmtl b\nKd 1 0 0\n", colors=(1, 0, 0)
    )
    mixed.write_text(mixed.read_text() + "usemtl b\nf 1/1 2/2 3/3\n")
    with pytest.raises(TraceBenchError, match="mixes vertex colours, textures and materials without"):
        load_mesh(mixed)


def test_the_alpha_of_a_texture_is_ignored(tmp_path):
    path = textured_obj(tmp_path)
    Image.new("RGBA", (4, 4), (*RED, 0)).save(tmp_path / "tex.png")
    assert color(path) == RED


def test_quads_and_negative_indices(tmp_path):
    corners = "v 0 0 0\nv 2 0 0\nv 2 1 0\nv 0 1 0\n"
    for i, faces in enumerate(("f 1 2 3 4\n", "f -4 -3 -2\nf -4 -2 -1\n")):
        path = tmp_path / f"{i}.obj"
        path.write_text(corners + faces)
        assert load_mesh(path).areas().sum() == pytest.approx(2.0)


def test_vertices_without_three_coordinates_are_refused(tmp_path):
    (tmp_path / "x.obj").write_text("v 0 0\nv 1 0\nv 0 1\nf 1 2 3\n")
    with pytest.raises(TraceBenchError, match="has vertices without three coordinates"):
        load_mesh(tmp_path / "x.obj")
