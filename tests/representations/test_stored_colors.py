"""Colours as files store them."""

from __future__ import annotations

import numpy as np
import pytest

from trace_bench.representations.stored_colors import color_columns, unit_colors
from trace_bench.system.errors import TraceBenchError


def read(dtype, *reds):
    columns = np.array(reds, dtype), np.full(len(reds), reds[0], dtype), np.full(len(reds), reds[0], dtype)
    return unit_colors(columns, "x.ply")[:, 0].tolist()


@pytest.mark.parametrize(
    ("dtype", "stored", "expected"),
    [
        ("u1", (0, 51, 255), (0.0, 0.2, 1.0)),
        ("u1", (0, 1), (0.0, 1 / 255)),
        ("u2", (0, 13107, 65535), (0.0, 0.2, 1.0)),
        ("u2", (0, 51, 255), (0.0, 0.2, 1.0)),
        ("i4", (0, 51, 255), (0.0, 0.2, 1.0)),
        ("i2", (0, 51, 255), (0.0, 0.2, 1.0)),
        ("f4", (0.0, 0.2, 1.0), (0.0, 0.2, 1.0)),
        ("f4", (-0.01, 0.2, 1.02), (0.0, 0.2, 1.0)),
        ("f4", (0.0, 51.0, 255.0), (0.0, 0.2, 1.0)),
        ("f8", (0.0, 51.0, 204.0), (0.0, 0.2, 0.8)),
    ],
)
def test_formats(dtype, stored, expected):
    assert read(dtype, *stored) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("dtype", "stored"),
    [("i4", (0, 256)), ("i2", (-1, 9)), ("f4", (0, 3.0)), ("f4", (0, 256.0)), ("f4", (-1, 1))],
)
def test_values_of_no_format_are_refused(dtype, stored):
    with pytest.raises(TraceBenchError, match=r"x\.ply has colours from .* to .*; store them as bytes"):
        read(dtype, *stored)


def test_nan_is_refused():
    with pytest.raises(TraceBenchError, match=r"x\.ply has NaN or infinite colours in 1 of 2 rows"):
        read("f4", 0.0, np.nan)


def test_names_in_any_case():
    assert color_columns(["x", "Red", "Green", "Blue"]) == ("Red", "Green", "Blue")
    assert color_columns(["RED", "red", "green", "blue"]) == ("red", "green", "blue")
    assert color_columns(["x", "diffuse_red", "diffuse_green", "diffuse_blue"]) == (
        "diffuse_red", "diffuse_green", "diffuse_blue",
    )  # fmt: skip
    assert color_columns(["R", "g", "b"]) == ("R", "g", "b")
    assert color_columns(["red", "green"]) is None
