"""Damaged assets and starts: taken or refused in one sentence, never another error."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from mesh_files import glb, textured_obj

from trace_bench.external.assets import External
from trace_bench.inits.pointcloud import PlyPoints
from trace_bench.representations.gaussians.ply import write_splat_ply
from trace_bench.seeding import Rng
from trace_bench.settings.inputs import contents
from trace_bench.system.errors import TraceBenchError

INSERTED = (b"-", b"9999999999", b"nan", b"null", b"\0", b"[]", b"1e400", b"\xff\xfe", b"\n", b"-1")


def damaged(content, rng):
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5))):
        # most of the structure is at the beginning
        i = rng.randrange(min(len(changed), 1500) if rng.random() < 0.7 else len(changed))
        kind = rng.randrange(5)
        if kind == 0:
            changed[i] = rng.randrange(256)
        elif kind == 1:
            del changed[i : i + rng.randrange(1, 40)]
        elif kind == 2:
            changed[i:i] = rng.choice(INSERTED)
        elif kind == 3:
            del changed[i:]
        else:
            changed[i:i] = changed[i : i + 30]
        if not changed:
            break
    return bytes(changed)


@pytest.fixture
def files(tmp_path):
    n = 50
    splats = {
        "means": torch.rand(n, 3), "quats": torch.randn(n, 4), "scales": torch.full((n, 3), -3.0),
        "opacities": torch.zeros(n), "sh0": torch.zeros(n, 1, 3),
    }  # fmt: skip
    obj = textured_obj(tmp_path / "obj")
    colors = np.full((8, 4), 255, np.uint8)
    return [
        (obj, obj),
        (obj, tmp_path / "obj" / "model.mtl"),
        (obj, tmp_path / "obj" / "tex.png"),
        *[
            (path, path)
            for path in (glb(tmp_path / "x.glb", {}, colors), write_splat_ply(tmp_path / "x.ply", splats))
        ],
    ]


@pytest.mark.parametrize("n", [60, pytest.param(3000, marks=pytest.mark.long)])
def test_whatever_is_damaged_is_taken_or_refused(files, n):
    rng = random.Random(0)
    uses = (
        lambda path: contents("method", {"inputs": {"asset": "asset"}, "asset": str(path)}),
        lambda path: External(str(path), "x", None, radius=0.8).open(torch.device("cpu")),
        lambda path: PlyPoints(str(path))(Rng(0).at(-1)) if path.suffix == ".ply" else None,
    )
    refused = 0
    for _ in range(n):
        path, target = rng.choice(files)
        before = target.read_bytes()
        target.write_bytes(damaged(before, rng))
        for use in uses:
            try:
                use(path)
            except TraceBenchError as error:
                assert "\n" not in str(error)  # noqa: PT017  both endings are right
                refused += 1
        target.write_bytes(before)
    assert refused > n // 2
