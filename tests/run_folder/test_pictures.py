"""The order of images in a folder."""

from __future__ import annotations

import pytest

from trace_bench.run_folder.pictures import normals_in, pictures_in
from trace_bench.system.errors import TraceBenchError


def folder(path, *names):
    path.mkdir(parents=True, exist_ok=True)
    for name in names:
        (path / name).write_text("")
    return path


@pytest.mark.parametrize(
    "names",
    [
        ["0_rgb_512.png", "1_rgb_512.png", "2_rgb_512.png", "10_rgb_512.png"],
        ["rgb_9.png", "rgb_10.png"],
        ["r_512_008.jpg", "r_512_009.png", "r_512_010.png"],
        ["0_az000.png", "1_az090.png", "2_az180.png", "10_az180.png"],
        ["007.png", "08.png", "9.png"],
        ["front.png"],
        ["view_3.png"],
    ],
)
def test_the_number_that_varies_decides(tmp_path, names):
    assert [path.name for path in pictures_in(folder(tmp_path, *names))] == names


@pytest.mark.parametrize(
    ("names", "word"),
    [
        (["back.png", "front.png"], "holds back.png and front.png, which cannot be put in one order"),
        (["rgb_0.png", "rgb_1.png", "cover.png"], "cannot be put in one order"),
        (["view_-45.png", "view_45.png"], "cannot be put in one order"),
        (["1.png", "01.png", "2.png"], "is ambiguous"),
        (["0.png", "0.jpg"], "is ambiguous"),
        (["0_az270.png", "1_az000.png"], "is ambiguous"),
        (["0_0.png", "0_1.png", "1_0.png"], "is ambiguous"),
        ([], "contains no images"),
    ],
)
def test_what_has_no_or_two_orders_is_refused(tmp_path, names, word):
    with pytest.raises(TraceBenchError, match=word):
        pictures_in(folder(tmp_path, *names))


def test_normals_belong_to_the_number_of_their_image(tmp_path):
    named = folder(tmp_path, "rgb_01.png", "rgb_02.png", "normal_2.png", "normal_1.png", "normal_map.png")
    assert [path.name for path in normals_in(named)] == ["normal_1.png", "normal_2.png"]
    assert normals_in(folder(tmp_path / "none", "rgb_1.png")) == []
    (named / "normal_2.png").unlink()
    with pytest.raises(TraceBenchError, match=r"has normal maps, but no normal_2\.png"):
        normals_in(named)
