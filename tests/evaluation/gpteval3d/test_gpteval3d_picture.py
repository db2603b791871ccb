"""The picture of a question: views, layout, sizes and transparency."""

from __future__ import annotations

import io

import numpy as np
import pytest
from gpteval3d_runs import draw_views
from PIL import Image

from evaluation.gpteval3d import mosaic
from evaluation.gpteval3d.contestants import JudgedAsset
from evaluation.gpteval3d.server.cost import Price, image_tokens
from trace_bench.system.errors import TraceBenchError


@pytest.mark.parametrize(
    ("there", "wanted", "expected"),
    [
        (120, 1, [0]),
        (120, 4, [0, 30, 60, 90]),
        (120, 9, [0, 13, 26, 39, 52, 65, 78, 91, 104]),
        (24, 4, [0, 6, 12, 18]),
        (9, 9, list(range(9))),
    ],
)
def test_the_views_are_the_published_ones(there, wanted, expected):
    assert mosaic.view_ids(there, wanted) == expected


def test_every_view_stands_where_it_should(tmp_path):
    for name in ("left", "right"):
        draw_views(tmp_path / name, name)
    left, right = (
        JudgedAsset(tmp_path / name).pictures([0, 2, 4, 6], True, True) for name in ("left", "right")
    )
    picture = np.asarray(mosaic.draw(left, right, 4, 8))
    assert picture.shape == (32, 32, 3)
    for side, name in enumerate(("left", "right")):
        for k, view in enumerate([0, 2, 4, 6]):
            for block, kind in enumerate(("rgb", "normal")):
                y, x = 16 * block + 8 * (k // 2), 16 * side + 8 * (k % 2)
                with Image.open(tmp_path / name / f"{kind}_{view}.png") as view_picture:
                    assert (picture[y : y + 8, x : x + 8] == view_picture.getpixel((0, 0))).all()


def test_transparency_is_put_on_white_and_sizes_are_made_one(tmp_path):
    Image.new("RGBA", (5, 5), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.new("RGBA", (40, 40), (0, 0, 0, 128)).save(tmp_path / "half.png")
    picture = np.asarray(mosaic.draw([tmp_path / "clear.png"], [tmp_path / "half.png"], 1, 16))
    assert picture.shape == (16, 32, 3)
    assert (picture[:, :16] == 255).all()
    assert np.abs(picture[:, 16:].astype(int) - 127).max() <= 1


def test_the_picture_is_a_png(tmp_path):
    draw_views(tmp_path, "x", views=1)
    files = JudgedAsset(tmp_path).pictures([0], True, False)
    with Image.open(io.BytesIO(mosaic.png(mosaic.draw(files, files, 1, 8)))) as picture:
        assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", (16, 8))


def test_a_gap_in_the_views_is_said(tmp_path):
    draw_views(tmp_path, "x", views=3)
    (tmp_path / "rgb_1.png").unlink()
    with pytest.raises(TraceBenchError, match="without gaps"):
        JudgedAsset(tmp_path).views()


def test_a_broken_picture_is_named(tmp_path):
    (tmp_path / "rgb_0.png").write_bytes(b"no picture")
    with pytest.raises(TraceBenchError, match=r"rgb_0\.png is not a readable picture"):
        mosaic.draw([tmp_path / "rgb_0.png"], [tmp_path / "rgb_0.png"], 1, 8)


@pytest.mark.parametrize(
    ("views", "rgb", "normal", "size", "tokens"),
    [
        (4, True, True, (2048, 2048), 765),
        (9, True, True, (3072, 3072), 765),
        (1, True, True, (1024, 1024), 765),
        (4, True, False, (2048, 1024), 1105),
        (1, True, False, (1024, 512), 425),
    ],
)
def test_size_and_tokens_of_the_published_pictures(views, rgb, normal, size, tokens):
    assert mosaic.size(views, rgb, normal, 512) == size
    assert image_tokens(*size, "auto", Price(2.5, 10.0)) == tokens
    assert image_tokens(*size, "low", Price(2.5, 10.0)) == 85
