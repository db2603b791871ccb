"""Compare the two ImageReward backends on a folder of pictures.

    python scripts/compare_image_reward.py RUN/renders --prompt "a duck" --official-python PYTHON

Prints both rewards of each picture (rgb_*.png, else *.png) and the largest difference.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from evaluation.metrics.image_reward.metric import ImageReward
from trace_bench.system.errors import TraceBenchError


def main() -> None:
    """Print one line per picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="folder of renders: RUN/renders")
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--official-python", required=True, help="Python of an environment with image-reward")
    parser.add_argument("--checkpoint", help="ImageReward.pt; default: the hub's cache")
    parser.add_argument("--tokenizer", default="bert-base-uncased", help="a hub name or a folder")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    args = parser.parse_args()
    pictures = sorted(args.folder.glob("rgb_*.png")) or sorted(args.folder.glob("*.png"))
    if not pictures:
        sys.exit(f"There are no pictures in {args.folder}: use the renders folder of a run.")
    common = {"checkpoint": args.checkpoint, "tokenizer": args.tokenizer, "device": args.device}
    try:
        native, _ = ImageReward(**common).rewards(args.prompt, pictures)
        official, _ = ImageReward(**common, official_python=args.official_python).rewards(
            args.prompt, pictures
        )
    except TraceBenchError as error:
        sys.exit(str(error))
    print(f"{'picture':24} {'native':>12} {'official':>12}")
    for path, ours, theirs in zip(pictures, native, official, strict=True):
        print(f"{path.name:24} {ours:12.6f} {theirs:12.6f}")
    print(f"largest difference {np.abs(native - official).max():.1e}")


if __name__ == "__main__":
    main()
