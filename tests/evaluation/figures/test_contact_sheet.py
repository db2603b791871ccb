"""The contact sheet: the right pictures in the right places."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from run_folders import draw, write_run

from evaluation.figures import drawing
from trace_bench.system.errors import TraceBenchError


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "outputs"
    draw(write_run(root, method="sds", prompt="a red cube", prompt_id="0"), "a blue cube", views=8)
    draw(write_run(root, method="vsd", prompt="a red cube", prompt_id="0"), "a green cube", views=8)
    draw(write_run(root, method="sds", prompt="a duck", prompt_id="1"), "a duck", views=8)
    return root


def tile(sheet: np.ndarray, column: int, row: int, view: int, px: int = 64, views: int = 3) -> np.ndarray:
    left = drawing.MARGIN + 150 + drawing.GAP + column * (px * views + drawing.GAP) + view * px
    top = drawing.MARGIN + drawing.TITLE + drawing.HEADER + row * (px + drawing.FIGURES) + 2
    return sheet[top : top + px, left : left + px]


def test_every_picture_is_in_its_place(root, command):
    code, out, _ = command("contact_sheet", "contact_sheet.tile_px=64")
    assert (code, out) == (0, f"Contact sheet: {root / 'contact_sheet.png'}\n")
    sheet = np.asarray(Image.open(root / "contact_sheet.png"))
    for column, (method, prompts) in enumerate(
        {"sds": ["0-a-red-cube", "1-a-duck"], "vsd": ["0-a-red-cube"]}.items()
    ):
        for row, prompt in enumerate(prompts):
            (renders,) = root.glob(f"runs/{method}/gaussians/toy/{prompt}/*/renders")
            for view, index in enumerate([1, 2, 4]):  # nearest to 35, 90 and 180 degrees of eight views
                assert (
                    tile(sheet, column + 1, row, view) == np.asarray(Image.open(renders / f"rgb_{index}.png"))
                ).all()
    # The truth comes first: for the duck it is what was drawn, for the cube it is not.
    assert np.abs(tile(sheet, 0, 1, 0).astype(int) - tile(sheet, 1, 1, 0)).max() <= 1
    assert tile(sheet, 0, 0, 0)[32, 32, 0] > 150
    assert tile(sheet, 1, 0, 0)[32, 32, 2] > 100
    assert (tile(sheet, 2, 1, 0) == 255).all()  # not made


@pytest.mark.slow
def test_a_canvas_has_one_picture_and_is_no_place_to_see_the_truth_from(root, command):
    canvas = write_run(root, method="csd", representation="image", prompt="a duck", prompt_id="1")
    draw(canvas, "a duck", views=1)
    command("contact_sheet", "contact_sheet.tile_px=64")
    sheet = np.asarray(Image.open(root / "contact_sheet.png"))
    picture = np.asarray(Image.open(canvas / "renders" / "rgb_0.png"))
    columns = np.lib.stride_tricks.sliding_window_view(sheet[:, :, 0], picture.shape[:2])
    places = np.argwhere((columns == picture[:, :, 0]).all(axis=(2, 3)))
    assert len(places) == 1
    truth = [tile(sheet, 0, 1, view) for view in range(3)]  # from the cameras of SDS's run
    assert not (truth[0] == truth[2]).all()


def test_prompts_outside_the_toy_world_have_no_truth(tmp_path, command):
    draw(write_run(tmp_path / "outputs", prompt="a corgi", prior="sd21"), "a red cube", views=4)
    assert command("contact_sheet", "contact_sheet.tile_px=64")[0] == 0
    sheet = np.asarray(Image.open(tmp_path / "outputs" / "contact_sheet.png"))
    assert sheet.shape[1] == 2 * drawing.MARGIN + 150 + drawing.GAP + 3 * 64  # one column


def test_each_prompt_set_has_its_sheet_the_largest_first(root, command):
    draw(write_run(root, prompt="a duck", prompt_id="x0123", prompt_set="toy"), "a duck", views=4)
    _, out, _ = command("contact_sheet")
    assert [line.rpartition("/")[2] for line in out.splitlines()] == [
        "contact_sheet.png", "contact_sheet-own-prompts-tiny.png",
    ]  # fmt: skip
    assert "contact_sheet-own-prompts-tiny.png" in command("tables")[1]


def test_an_unreadable_picture_is_named_and_the_sheet_still_made(root, command):
    (picture,) = root.glob("runs/vsd/*/*/*/*/renders/rgb_2.png")
    picture.unlink()
    code, out, _ = command("contact_sheet")
    assert code == 1
    assert str(picture) in out
    assert (root / "contact_sheet.png").exists()


def test_of_several_seeds_the_lowest_is_shown(root, command):
    draw(write_run(root, method="vsd", prompt="a duck", prompt_id="1", seed=3), "a red cube", views=8)
    draw(write_run(root, method="vsd", prompt="a duck", prompt_id="1", seed=2), "a duck", views=8)
    command("contact_sheet", "contact_sheet.tile_px=64")
    sheet = np.asarray(Image.open(root / "contact_sheet.png"))
    assert np.abs(tile(sheet, 2, 1, 0).astype(int) - tile(sheet, 1, 1, 0)).max() <= 1


def test_nothing_to_draw(tmp_path, command):
    (tmp_path / "outputs").mkdir()
    code, out, _ = command("contact_sheet")
    assert code == 0
    assert "No finished runs" in out


def bomb() -> bytes:
    """A PNG of a hundred bytes that declares 60,000 x 60,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"x") + chunk(b"IEND", b"")


def test_a_picture_that_would_fill_the_memory_is_named(root, command):
    from evaluation.gpteval3d.mosaic import draw as mosaic

    (picture,) = root.glob("runs/vsd/*/*/*/*/renders/rgb_2.png")
    picture.write_bytes(bomb())
    code, out, _ = command("contact_sheet")
    assert code == 1
    assert f"{picture} is not a readable picture" in out
    with pytest.raises(TraceBenchError, match="not a readable picture"):
        mosaic([picture], [picture], 1, 8)


def test_a_long_title_is_not_cut():
    """It reaches beyond the columns, and the margin on its right stays free."""
    sheet = np.asarray(drawing.draw_sheet("A title that is long, " * 6, ["a duck"], [], [], 64))
    ink = (sheet[: drawing.MARGIN + drawing.TITLE] < 128).any(axis=(0, 2))
    assert ink[drawing.MARGIN + 400 :].any()
    assert not ink[-drawing.MARGIN :].any()
