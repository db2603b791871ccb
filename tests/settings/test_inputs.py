"""Input files of a run: found per prompt, identified by content."""

from __future__ import annotations

import shutil

import pytest
from mesh_files import glb, texture, textured_obj

from trace_bench.run_folder.pictures import pictures_in
from trace_bench.settings.inputs import contents, located
from trace_bench.system.errors import TraceBenchError

VALUES = {"prompt_id": "4", "slug": "a-duck", "seed": 2}


def spec(kind="file", **settings):
    return {"inputs": dict.fromkeys(settings, kind), **settings}


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_path_for_each_prompt():
    found = located("init", spec(path="out/{prompt_id}-{slug}-{seed}.ply"), VALUES)
    assert found["path"] == "out/4-a-duck-2.ply"


def test_a_pattern_has_to_match_one_path(tmp_path):
    for name in ("4-x.ply", "4-y.ply", "5-x.ply"):
        write(tmp_path / name, name)
    assert located("init", spec(path=f"{tmp_path}/5-*.ply"), VALUES)["path"] == str(tmp_path / "5-x.ply")
    with pytest.raises(TraceBenchError, match=r"init\.path=.* match one path, but matches 2, the first two"):
        located("init", spec(path=f"{tmp_path}/{{prompt_id}}-*.ply"), VALUES)
    with pytest.raises(TraceBenchError, match="matches 0"):
        located("init", spec(path=f"{tmp_path}/9-*.ply"), VALUES)


def test_braces_that_mean_nothing():
    for path in ("{promptid}.ply", "{0}.ply", "{prompt_id.ply"):
        with pytest.raises(TraceBenchError, match=r"use \{prompt_id\}, \{slug\}, \{seed\}"):
            located("init", spec(path=path), VALUES)


def test_what_is_no_input_stays_as_it_is():
    assert located("init", {"n": 3, "text": "{x}"}, VALUES) == {"n": 3, "text": "{x}"}
    assert contents("init", {"n": 3}) == {}
    assert contents("init", spec(path=None)) == {}
    with pytest.raises(TraceBenchError, match=r"init\.inputs\.path='files' is not one of file, asset, run"):
        contents("init", spec("files", path="x"))


def test_a_file_is_its_content_not_its_place(tmp_path):
    first = contents("init", spec(path=str(write(tmp_path / "a" / "x.ply", "one"))))
    assert contents("init", spec(path=str(write(tmp_path / "b" / "y.ply", "one")))) == first
    assert contents("init", spec(path=str(write(tmp_path / "b" / "z.ply", "two")))) != first


def test_an_obj_is_its_materials_too(tmp_path):
    folder = tmp_path / "a"
    path = write(folder / "x.obj", "mtllib x.mtl\nv 0 0 0\n")
    write(folder / "x.mtl", "newmtl m\nmap_Kd x.png\n")
    write(folder / "x.png", "red")
    write(folder / "unrelated.png", "red")
    first = contents("method", spec(asset=str(path)))
    shutil.copytree(folder, tmp_path / "b")
    assert contents("method", spec(asset=str(tmp_path / "b" / "x.obj"))) == first
    write(folder / "unrelated.png", "blue")
    assert contents("method", spec(asset=str(path))) == first
    write(folder / "x.png", "blue")
    assert contents("method", spec(asset=str(path))) != first


def test_a_folder_of_pictures_is_the_pictures_in_order(tmp_path):
    for name in ("rgb_10.png", "rgb_9.png", "normal_9.png", "notes.txt", "depth_3.png"):
        write(tmp_path / name, name)
    assert [path.name for path in pictures_in(tmp_path)] == ["rgb_9.png", "rgb_10.png"]
    first = contents("method", spec("asset", asset=str(tmp_path)))
    write(tmp_path / "notes.txt", "other")
    assert contents("method", spec("asset", asset=str(tmp_path))) == first
    write(tmp_path / "normal_9.png", "other")
    second = contents("method", spec("asset", asset=str(tmp_path)))
    assert second != first
    write(tmp_path / "rgb_9.png", "other")
    assert contents("method", spec("asset", asset=str(tmp_path))) not in (first, second)


def test_a_model_is_its_weights_or_its_name(tmp_path):
    write(tmp_path / "m" / "prior" / "x.safetensors", "w")
    first = contents("init", spec("model", repo=str(tmp_path / "m")))
    shutil.copytree(tmp_path / "m", tmp_path / "n")
    assert contents("init", spec("model", repo=str(tmp_path / "n"))) == first
    assert contents("init", spec("model", repo="someone/model")) == {"repo": "someone/model"}
    (tmp_path / "none").mkdir()
    with pytest.raises(TraceBenchError, match="is not a model"):
        contents("init", spec("model", repo=str(tmp_path / "none")))


def test_what_is_not_there_is_one_sentence(tmp_path):
    for kind, word in (("file", "does not exist"), ("asset", "file or folder"), ("run", "not a run folder")):
        with pytest.raises(TraceBenchError, match=word):
            contents("init", spec(kind, path=str(tmp_path / "nothing")))
    (tmp_path / "empty").mkdir()
    with pytest.raises(TraceBenchError, match="contains no images"):
        contents("method", spec("asset", asset=str(tmp_path / "empty")))


@pytest.mark.parametrize(
    ("library", "material", "image"),
    [
        ("model.mtl", "newmtl mat\n\tmap_Kd\ttex.png\n", "tex.png"),
        ("my model.mtl", "newmtl mat\nmap_Kd tex.png\n", "tex.png"),
        ("model.mtl", "newmtl mat\nmap_Kd my tex.png\n", "my tex.png"),
        ("model.mtl", "newmtl mat\nmap_Kd textures\\tex.png\n", "textures/tex.png"),
        ("model.mtl", "newmtl mat\nmap_Kd TEX.PNG\n", "tex.png"),
        ("model.mtl", "newmtl mat\nmap_Kd -s 1 1 1 tex.png\n", "tex.png"),
        ("model.mtl", "newmtl mat\nmap_Kd C:\\Users\\me\\tex.png\n", "tex.png"),
    ],
)
def test_a_changed_texture_is_another_asset_however_it_is_named(tmp_path, library, material, image):
    path = textured_obj(tmp_path, material, image, mtllib=library)
    first = contents("method", spec("asset", asset=str(path)))
    texture(tmp_path / image, (0, 0, 255))
    second = contents("method", spec("asset", asset=str(path)))
    assert second != first
    (tmp_path / library).write_text(material + "Kd 0 0 0\n")
    assert contents("method", spec("asset", asset=str(path))) not in (first, second)


def test_textures_beside_a_glb_and_a_ply_count_too(tmp_path):
    material = {"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}
    mesh = glb(tmp_path / "x.glb", material, uv=True, image="tex.png")
    header = "ply\nformat ascii 1.0\ncomment TextureFile tex.png\nelement vertex 0\nproperty float x\n"
    ply = write(tmp_path / "x.ply", header + "property float s\nproperty float t\nend_header\n")
    for path in (mesh, ply):
        with pytest.raises(TraceBenchError, match=r"needs tex\.png, which does not exist"):
            contents("init", spec(path=str(path)))
        texture(tmp_path / "tex.png")
        first = contents("init", spec(path=str(path)))
        texture(tmp_path / "tex.png", (0, 0, 255))
        assert contents("init", spec(path=str(path))) != first
        (tmp_path / "tex.png").unlink()


def test_a_missing_texture_is_said_before_a_run_starts(tmp_path):
    path = textured_obj(tmp_path, image=None)
    with pytest.raises(TraceBenchError, match=r"the material mat needs the texture tex\.png, which does not"):
        contents("method", spec("asset", asset=str(path)))
