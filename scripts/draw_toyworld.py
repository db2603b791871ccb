"""Draw every solid and object of the toy world from four sides: docs/images/toyworld.png.

python scripts/draw_toyworld.py
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from trace_bench.cameras import make_cameras
from trace_bench.toyworld import Caption, scene_from_prompt
from trace_bench.toyworld.objects import OBJECTS
from trace_bench.toyworld.shapes import COLORS, SOLIDS

SIDE, LABEL, COLUMNS = 96, 14, 3
BACKGROUND = (0.93, 0.93, 0.93)


def captions() -> list[Caption]:
    """One caption per solid and object, with colours in turn, and two stacks."""
    colors, shown, turn = list(COLORS), [], 0
    for name in [*SOLIDS, *OBJECTS]:
        colored = name in SOLIDS or OBJECTS[name].colored
        shown.append(Caption(name, colors[turn % len(colors)] if colored else None))
        turn += colored
    return [*shown, Caption("torus", "red", "sphere", "blue"), Caption("pyramid", "white", "cube", "green")]


def strip(caption: Caption) -> np.ndarray:
    """Front, left, back and elevated front view, with the caption below: [H, W, 3] uint8."""
    cameras = make_cameras(
        torch.tensor([15.0, 15.0, 15.0, 50.0]),
        torch.tensor([0.0, 90.0, 180.0, -35.0]),
        2.65,
        42.5,
        SIDE,
        SIDE,
    )
    views = scene_from_prompt(caption.text).render(cameras, BACKGROUND).rgb
    row = np.concatenate(list((views.numpy() * 255).round().astype(np.uint8)), axis=1)
    label = Image.new("RGB", (row.shape[1], LABEL), tuple(round(255 * c) for c in BACKGROUND))
    ImageDraw.Draw(label).text((6, 0), caption.text, fill=(60, 60, 60))
    return np.concatenate([row, np.asarray(label)], axis=0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("docs/images/toyworld.png"))
    out = parser.parse_args().out
    strips = [strip(c) for c in captions()]
    strips += [np.full_like(strips[0], round(255 * BACKGROUND[0]))] * (-len(strips) % COLUMNS)
    height = len(strips) // COLUMNS
    columns = [np.concatenate(strips[i * height : (i + 1) * height]) for i in range(COLUMNS)]
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet = Image.fromarray(np.concatenate(columns, axis=1))
    sheet.quantize(256, dither=Image.Dither.NONE).save(out, optimize=True)
    print(f"{out}: {sheet.width} x {sheet.height}")


if __name__ == "__main__":
    main()
