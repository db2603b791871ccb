"""The spoiled clip of an attention check: the same film with its picture cut into squares and shuffled.

Every frame is shuffled alike. A new order in each frame would flicker, which some people must not look at.
"""

from __future__ import annotations

from pathlib import Path

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

from evaluation.user_study.ordering import shuffled
from trace_bench.system.errors import TraceBenchError

SQUARES = 8  # a side
VISIBLE = 4.0 / 255.0  # mean absolute difference from which a scrambled picture is plainly another one


def scramble(frames: NDArray[np.uint8], key: str) -> NDArray[np.uint8]:
    """Shuffle the squares of all frames alike, [N, H, W, 3]; a margin too small for a square stays."""
    n, height, width, _ = frames.shape
    h, w = height // SQUARES, width // SQUARES
    core = frames[:, : h * SQUARES, : w * SQUARES].reshape(n, SQUARES, h, SQUARES, w, 3)
    squares = core.transpose(1, 3, 0, 2, 4, 5).reshape(SQUARES * SQUARES, n, h, w, 3)
    squares = squares[shuffled(range(SQUARES * SQUARES), key, "squares")]
    mixed = frames.copy()
    mixed[:, : h * SQUARES, : w * SQUARES] = (
        squares.reshape(SQUARES, SQUARES, n, h, w, 3)
        .transpose(2, 0, 3, 1, 4, 5)
        .reshape(n, h * SQUARES, -1, 3)
    )
    return mixed


def write_scrambled(source: Path, target: Path, key: str) -> bool:
    """Write the scrambled film; False, and nothing written, where it would look the same (an empty asset)."""
    frames, fps = read_film(source)
    mixed = scramble(frames, key)
    if np.abs(mixed[0].astype(float) - frames[0]).mean() / 255.0 < VISIBLE:
        return False
    write_film(mixed, fps, target)
    return True


def read_film(path: Path) -> tuple[NDArray[np.uint8], float]:
    """All frames, uint8 [N, H, W, 3], and the frames a second."""
    try:
        reader = imageio_ffmpeg.read_frames(str(path))
        meta = next(reader)
        width, height = meta["size"]
        frames = [np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader]
    except (OSError, RuntimeError, ValueError, StopIteration) as error:
        raise TraceBenchError(
            f"{path} cannot be read as a film: make the run again with force=true."
        ) from error
    if not frames:
        raise TraceBenchError(f"{path} has no pictures: make the run again with force=true.")
    return np.stack(frames), float(meta["fps"])


def write_film(frames: NDArray[np.uint8], fps: float, path: Path) -> None:
    """H.264 as the turntables are written."""
    height, width = frames.shape[1:3]
    writer = imageio_ffmpeg.write_frames(
        str(path), (width, height), fps=fps, codec="libx264", quality=7, macro_block_size=2,
        ffmpeg_log_level="error", output_params=["-f", "mp4", "-preset", "veryfast"],
    )  # fmt: skip
    writer.send(None)
    try:
        for frame in frames:
            writer.send(np.ascontiguousarray(frame))
    finally:
        writer.close()
