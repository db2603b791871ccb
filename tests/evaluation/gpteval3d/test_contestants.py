"""External assets in the tables: names, declared minutes, and unknown values."""

from __future__ import annotations

import dataclasses

from run_folders import draw, only_run, write_run, write_score

from evaluation.metrics.ground_truth import GroundTruth
from evaluation.results.collect import collect
from evaluation.results.names import display_names
from evaluation.tables import formats
from evaluation.tables.method_tables import make_tables
from trace_bench.run_folder.manifest import read_manifest, write_manifest

TRUTH = GroundTruth(views=4)
VALUES = {"soft_iou": 0.5, "colour_error": 10.0, "depth_error": 0.1, "chamfer": 0.05}


def contestant(root, minutes, **identity):
    """A run of an external asset, scored."""
    folder = write_run(root, minutes=9.0, representation="mesh", guidance_scale=None, steps=0, **identity)
    declared = {"name": "DiffSplat (SD1.5)", "source": "DiffSplat, one A100", "minutes": minutes}
    cost = dict.fromkeys(("unet_fwd", "unet_bwd"))
    write_manifest(folder, dataclasses.replace(read_manifest(folder), declared=declared, cost=cost))
    write_score(folder, TRUTH, **VALUES)
    return folder


def methods_table(root):
    results = collect(root, {"ground_truth": TRUTH})
    names = display_names(results.frame)
    return make_tables(results, {"ground_truth": TRUTH}, names, ["sds"])[0]


def row(table, name):
    (found,) = (row for row in table.rows if row.labels["method"] == name)
    return {cell.quantity.name: formats.cell_text(cell) for cell in found.cells}


def test_it_stands_beside_ours_with_its_declared_minutes(tmp_path):
    write_score(write_run(tmp_path), TRUTH, **VALUES)
    contestant(tmp_path, 0.25, method="external-diffsplat-sd1-5")
    table = methods_table(tmp_path)
    theirs = row(table, "DiffSplat (SD1.5)")
    assert theirs["minutes"] == "0.25"
    assert theirs["soft_iou"].startswith("0.500")
    assert "—" in theirs["unet_items"]
    assert row(table, "SDS")["minutes"] == "0.50"
    assert [item.labels["representation"] for item in table.rows] == ["3DGS", "Mesh"]
    assert "DiffSplat (SD1.5): external asset; minutes as declared for DiffSplat, one A100." in table.notes


def test_minutes_that_nobody_knows_are_a_dash(tmp_path):
    contestant(tmp_path, None, method="external-diffsplat-sd1-5")
    assert "—" in row(methods_table(tmp_path), "DiffSplat (SD1.5)")["minutes"]


def test_pictures_alone_are_not_held_against_the_true_shape(tmp_path):
    folder = contestant(tmp_path, 0.25, method="external-x")
    draw(folder, "a red cube", views=4)
    assert TRUTH.applies(only_run(tmp_path))
    (folder / "renders" / "geometry.npz").unlink()
    assert not TRUTH.applies(only_run(tmp_path))
