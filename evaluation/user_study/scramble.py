"""Scrambled clips for attention checks: each frame is cut into squares, which are shuffled.

All frames use the same order; a new order per frame would flicker, which can harm photosensitive people.
"""

from __future__ import annotations

from pathlib import Path

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

from evaluation.user_study.ordering import shuffled
from trace_bench.system.errors import TraceBenchError

SQUARES = 8  # per side
VISIBLE = 4.0 / 255.0  # mean absolute difference above which a scrambled picture is clearly different


def scramble(frames: NDArray[np.uint8], key: str) -> NDArray[np.uint8]:
    """Shuffle the squares of frames [N, H, W, 3], the same in all; leftover margins stay."""
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
    """Write the scrambled film; returns False without writing if it would look the same (empty asset)."""
    frames, fps = read_film(source)
    mixed = scramble(frames, key)
    if np.abs(mixed[0].astype(float) - frames[0]).mean() / 255.0 < VISIBLE:
        return False
    write_film(mixed, fps, target)
    return True


def read_film(path: Path) -> tuple[NDArray[np.uint8], float]:
    """All frames, uint8 [N, H, W, 3], and the frame rate."""
    try:
        reader = imageio_ffmpeg.read_frames(str(path))
        meta = next(reader)
        width, height = meta["size"]
        frames = [np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader]
    except (OSError, RuntimeError, ValueError, StopIteration) as error:
        raise TraceBenchError(f"{path} cannot be read as a video: repeat the run with force=true.") from error
    if not frames:
        raise TraceBenchError(f"{path} has no frames: repeat the run with force=true.")
    return np.stack(frames), float(meta["fps"])


def write_film(frames: NDArray[np.uint8], fps: float, path: Path) -> None:
    """Write H.264, like the turntables."""
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
