"""The evaluation rig's files: pictures on white, geometry, cameras, preview, video."""

from __future__ import annotations

import json
import threading
import time

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from PIL import Image as Picture

from trace_bench.cameras import EvaluationRig
from trace_bench.render import Render
from trace_bench.run_folder import rendering
from trace_bench.run_folder.rendering import render_views, write_film, write_renders
from trace_bench.system.errors import TraceBenchError

CPU = torch.device("cpu")
RIG = EvaluationRig(n_views=10, elevation_deg=15.0, distance=2.65, fovy_deg=42.5, resolution=32)


class Card:
    """Fills the left half of the view at depth 2, with a grey that encodes the azimuth, and normal +x."""

    views_matter = True

    def __init__(self):
        self.batches = []

    def render(self, cameras, background, with_normals=False):
        self.batches.append(len(cameras))
        n, size = len(cameras), cameras.height
        alpha = torch.zeros(n, size, size, 1)
        alpha[:, :, : size // 2] = 1.0
        grey = (cameras.azimuth_deg % 360.0 / 360.0).view(n, 1, 1, 1)
        rgb = alpha * grey + (1.0 - alpha) * background
        normal = torch.zeros(n, size, size, 3)
        normal[..., 0] = 1.0
        depth = torch.where(alpha > 0, 2.0, 7.0)  # a renderer may leave anything where nothing is
        return Render(rgb, alpha, depth, normal if with_normals else None)


class Canvas:
    """A latent picture."""

    views_matter = False

    def render(self, cameras, background, with_normals=False):
        n = len(cameras)
        return Render(None, torch.ones(n, 4, 4, 1), torch.zeros(n, 4, 4, 1), latents=torch.zeros(n, 4, 4, 4))


def no_decoder(latents):
    raise AssertionError("nothing to decode")


def doubling(latents):
    return torch.full((len(latents), 3, 8, 8), 0.25)


def read(path):
    return np.asarray(Picture.open(path))


def test_files_of_a_3d_asset(tmp_path):
    names, views = write_renders(Card(), RIG, no_decoder, CPU, tmp_path)
    assert names == ["renders/cameras.json", "renders/geometry.npz", "preview.png", "turntable.mp4"]
    assert views == 10
    expected = {f"{kind}_{i}.png" for kind in ("rgb", "normal") for i in range(10)}
    assert {p.name for p in (tmp_path / "renders").iterdir()} == expected | {"cameras.json", "geometry.npz"}
    assert {p.name for p in tmp_path.iterdir()} == {"renders", "preview.png", "turntable.mp4"}


def test_pictures_are_over_white_and_in_order(tmp_path):
    write_renders(Card(), RIG, no_decoder, CPU, tmp_path)
    for i in range(10):
        rgb, normal = (read(tmp_path / "renders" / f"{kind}_{i}.png") for kind in ("rgb", "normal"))
        assert rgb.shape == normal.shape == (32, 32, 3)
        assert (rgb[:, 16:] == 255).all()
        assert (normal[:, 16:] == 255).all()
        assert (rgb[:, :16] == round(255 * i / 10)).all()
        assert (normal[:, :16] == (255, 128, 128)).all()  # (n + 1) / 2 of +x


def test_geometry_is_zero_where_nothing_is(tmp_path):
    write_renders(Card(), RIG, no_decoder, CPU, tmp_path)
    with np.load(tmp_path / "renders" / "geometry.npz") as geometry:
        alpha, depth = geometry["alpha"], geometry["depth"]
    assert (alpha.dtype, depth.dtype) == (np.uint8, np.float16)
    assert alpha.shape == depth.shape == (10, 32, 32)
    assert (alpha[:, :, :16] == 255).all()
    assert (depth[:, :, :16] == 2.0).all()
    assert not alpha[:, :, 16:].any()
    assert not depth[:, :, 16:].any()


def test_cameras_are_those_of_the_rig(tmp_path):
    write_renders(Card(), RIG, no_decoder, CPU, tmp_path)
    rows = json.loads((tmp_path / "renders" / "cameras.json").read_text())
    cameras = RIG.cameras()
    assert len(rows) == 10
    assert rows[0]["azimuth_deg"] == 0.0  # the front
    for i, row in enumerate(rows):
        assert (row["elevation_deg"], row["width"], row["height"]) == (15.0, 32, 32)
        assert row["distance"] == pytest.approx(2.65)
        assert torch.equal(torch.tensor(row["c2w"]), cameras.c2w[i])


def test_views_do_not_depend_on_the_batch():
    one, many = Card(), Card()
    first = render_views(one, RIG.cameras(), no_decoder, CPU, batch=1)
    second = render_views(many, RIG.cameras(), no_decoder, CPU, batch=4)
    assert (one.batches, many.batches) == ([1] * 10, [4, 4, 2])
    assert (first.rgb == second.rgb).all()
    assert (first.depth == second.depth).all()


def test_film_turns_once_in_pictures_that_players_take(tmp_path):
    write_renders(Card(), RIG, no_decoder, CPU, tmp_path)
    frames = imageio_ffmpeg.read_frames(str(tmp_path / "turntable.mp4"))
    about = next(frames)
    assert about["size"] == (256, 256)
    assert about["codec"] == "h264"
    assert "yuv420p" in about["pix_fmt"]
    pictures = [np.frombuffer(frame, np.uint8).reshape(256, 256, 3) for frame in frames]
    assert len(pictures) == 10
    assert about["duration"] == pytest.approx(4.0, abs=0.5)
    greys = [picture[64:192, 32:96].mean() for picture in pictures]
    assert greys == sorted(greys)
    assert abs(greys[9] - 0.9 * 255) < 6


def test_film_of_odd_size(tmp_path):
    write_film(np.zeros((3, 301, 301, 3), np.uint8), tmp_path / "odd.mp4", 3)
    frames = imageio_ffmpeg.read_frames(str(tmp_path / "odd.mp4"))
    assert next(frames)["size"] == (300, 300)


def test_preview_is_a_strip_of_eight(tmp_path):
    write_renders(Card(), RIG, no_decoder, CPU, tmp_path)
    strip = read(tmp_path / "preview.png")
    assert strip.shape == (2 * 32, 8 * 32, 3)
    assert (strip[:32, :32] == read(tmp_path / "renders" / "rgb_0.png")).all()
    assert (strip[32:, -32:] == read(tmp_path / "renders" / "normal_8.png")).all()


def test_a_flat_picture_is_one_decoded_view_without_a_film(tmp_path):
    names, views = write_renders(Canvas(), RIG, doubling, CPU, tmp_path)
    assert views == 1
    assert "turntable.mp4" not in names
    assert not (tmp_path / "turntable.mp4").exists()
    assert sorted(p.name for p in (tmp_path / "renders").glob("rgb_*")) == ["rgb_0.png"]
    assert (read(tmp_path / "renders" / "rgb_0.png") == 64).all()
    assert (read(tmp_path / "asset.png") == 64).all()
    with np.load(tmp_path / "renders" / "geometry.npz") as geometry:
        assert geometry["alpha"].shape == (1, 8, 8)  # the picture's size, not the latents'


def test_an_earlier_rig_leaves_nothing_behind(tmp_path):
    write_renders(Card(), RIG, no_decoder, CPU, tmp_path)
    write_renders(Card(), EvaluationRig(n_views=3, resolution=16), no_decoder, CPU, tmp_path)
    assert len(list((tmp_path / "renders").glob("*.png"))) == 6


def test_pictures_and_film_are_written_while_views_are_rendered(tmp_path):
    class Waiting(Card):
        def render(self, cameras, background, with_normals=False):
            if self.batches:  # the second batch: the first one's pictures appear meanwhile
                wanted, until = tmp_path / ".renders.partial/normal_7.png", time.monotonic() + 20.0
                while not wanted.exists():
                    assert time.monotonic() < until
                    time.sleep(0.002)
            return super().render(cameras, background, with_normals)

    write_renders(Waiting(), RIG, no_decoder, CPU, tmp_path)
    views = render_views(Card(), RIG.cameras(), no_decoder, CPU)
    for i in range(10):
        assert (read(tmp_path / "renders" / f"rgb_{i}.png") == views.rgb[i]).all()
        assert (read(tmp_path / "renders" / f"normal_{i}.png") == views.normal[i]).all()
    write_film(views.rgb, tmp_path / "again.mp4", len(views.rgb))
    assert (tmp_path / "again.mp4").read_bytes() == (tmp_path / "turntable.mp4").read_bytes()


def test_a_picture_that_cannot_be_written_fails_the_renders(tmp_path, monkeypatch):
    save = rendering._save

    def full(picture, path):
        if path.name == "normal_3.png":
            raise OSError(28, "No space left on device")
        save(picture, path)

    monkeypatch.setattr(rendering, "_save", full)
    with pytest.raises(OSError, match="No space left"):
        write_renders(Card(), RIG, no_decoder, CPU, tmp_path)
    assert not (tmp_path / "renders").exists()
    assert not [thread for thread in threading.enumerate() if "ThreadPoolExecutor" in thread.name]


def test_a_view_that_cannot_be_rendered_ends_the_writing(tmp_path):
    class Failing(Card):
        def render(self, cameras, background, with_normals=False):
            if self.batches:
                raise ValueError("mine")
            return super().render(cameras, background, with_normals)

    with pytest.raises(ValueError, match="mine"):
        write_renders(Failing(), RIG, no_decoder, CPU, tmp_path)
    assert not (tmp_path / "renders").exists()
    assert not [thread for thread in threading.enumerate() if "ThreadPoolExecutor" in thread.name]


def test_pictures_appear_all_at_once(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rendering, "write_film", full)
    with pytest.raises(OSError, match="No space left"):
        write_renders(Card(), RIG, no_decoder, CPU, tmp_path)
    assert not (tmp_path / "renders").exists()
    monkeypatch.undo()
    write_renders(Card(), RIG, no_decoder, CPU, tmp_path)
    assert not list(tmp_path.glob(".*"))  # what was left half-written is gone


def test_rendering_keeps_no_graph():
    class Learning(Card):
        def render(self, cameras, background, with_normals=False):
            found = super().render(cameras, background, with_normals)
            found.rgb = found.rgb * torch.ones((), requires_grad=True)
            assert not found.rgb.requires_grad
            return found

    render_views(Learning(), RIG.cameras(), no_decoder, CPU)


@pytest.mark.parametrize("what", ["rgb", "alpha", "depth", "normal"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_not_written(tmp_path, what, value):
    class Bad(Card):
        def render(self, cameras, background, with_normals=False):
            render = super().render(cameras, background, with_normals)
            if 9.0 in (cameras.azimuth_deg / 36.0).round() % 10:  # the last of ten views
                getattr(render, what)[-1, 3, 3] = value
            return render

    name = "colour" if what == "rgb" else what
    with pytest.raises(TraceBenchError, match=f"The rendered {name} of view 9 is NaN or infinite"):
        write_renders(Bad(), RIG, no_decoder, CPU, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_decoded_picture_that_is_not_finite_is_not_written(tmp_path):
    with pytest.raises(TraceBenchError, match="The rendered colour of view 0"):
        write_renders(Canvas(), RIG, lambda latents: torch.full((1, 3, 8, 8), torch.nan), CPU, tmp_path)
