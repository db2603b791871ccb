"""Draw one prompt for every method and representation: docs/images/methods.png.

    python -m trace_bench -m method=sds,csd,... representation=gaussians,nerf,image prompt="a red mushroom"
    python scripts/draw_methods.py --prompt "a red mushroom"

Rows are methods, columns representations; the first row is the ground truth.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from evaluation.figures.contact_sheet import nearest_view
from evaluation.figures.drawing import Column, Picture, draw_sheet
from evaluation.metrics.renders import open_rgb, pose
from evaluation.metrics.truth import truth
from trace_bench.run_folder.index import read_index
from trace_bench.run_folder.reading import Run

VIEWS = {"front ¾": 35.0, "side": 90.0, "back": 180.0}
REPRESENTATIONS = {"gaussians": "3D Gaussians", "nerf": "NeRF", "image": "image"}


def pictures(run: Run | None) -> Picture:
    """The views of an asset, or the single picture of a canvas."""
    if run is None:
        return Picture([], "not made")
    azimuths = list(VIEWS.values())[: 1 if run.identity.representation == "image" else None]
    return Picture([open_rgb(run.rgb(nearest_view(run, azimuth))) for azimuth in azimuths], "")


def true_views(rig: Run) -> Picture:
    """The true object, seen from the cameras of a run."""
    cameras = [rig.cameras[nearest_view(rig, azimuth)] for azimuth in VIEWS.values()]
    views = truth(rig.prompt, int(cameras[0]["height"])).views([pose(camera) for camera in cameras])
    return Picture([Image.fromarray(np.round(rgb * 255).astype(np.uint8)) for rgb in views.rgb], "")


def sheet(prompt: str, runs: Mapping[tuple[str, str], Run], methods: Sequence[str], tile: int) -> Image.Image:
    """The picture of the runs, given by (method, representation)."""
    columns = []
    for name, title in REPRESENTATIONS.items():
        rig = next((run for key, run in runs.items() if key[1] == name), None)
        first = Picture([], "") if rig is None or name == "image" else true_views(rig)
        cells = [first, *(pictures(runs.get((method, name))) for method in methods)]
        columns.append(Column(title, "one canvas" if name == "image" else "", cells))
    rows = ["truth", *(method.replace("_", " ") for method in methods)]
    return draw_sheet(prompt, rows, columns, list(VIEWS), tile)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, default=Path("outputs"), help="the output root (outputs)")
    parser.add_argument("--prompt", default="a red mushroom")
    parser.add_argument("--out", type=Path, default=Path("docs/images/methods.png"))
    parser.add_argument("--tile", type=int, default=96, help="size of one view in pixels")
    options = parser.parse_args()
    found = read_index(options.runs).runs.values()
    runs = {
        (run.identity.method, run.identity.representation): run
        for run in sorted(found, key=lambda run: -run.identity.seed)  # the lowest seed wins
        if run.prompt == options.prompt and run.manifest.status == "done"
    }
    if not runs:
        parser.error(f"{options.runs} has no finished run of {options.prompt!r}: start some first.")
    methods = list(dict.fromkeys(method for method, _ in sorted(runs)))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    sheet(options.prompt, runs, methods, options.tile).save(options.out, optimize=True)
    print(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
