"""Parts of scenes, and the plain solids, all in arbitrary units; scenes are scaled to the ball later."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from trace_bench.toyworld import sdf

Color = tuple[float, float, float]

COLORS: dict[str, Color] = {
    "red": (0.90, 0.10, 0.10),
    "orange": (1.00, 0.52, 0.05),
    "yellow": (1.00, 0.90, 0.10),
    "green": (0.10, 0.65, 0.18),
    "blue": (0.10, 0.25, 0.90),
    "purple": (0.52, 0.14, 0.74),
    "pink": (1.00, 0.56, 0.76),
    "white": (0.97, 0.97, 0.97),
}
BLACK: Color = (0.10, 0.10, 0.12)
GRAY: Color = (0.52, 0.54, 0.58)
BROWN: Color = (0.48, 0.28, 0.13)
TAN: Color = (0.86, 0.64, 0.36)
GLASS: Color = (0.60, 0.82, 0.95)


@dataclass(frozen=True)
class Part:
    """One coloured solid: kind and lengths (see ``sdf.part_distance``), position and rotation."""

    kind: int
    lengths: tuple[float, ...]
    color: Color
    at: tuple[float, float, float] = (0.0, 0.0, 0.0)
    turn: tuple[float, float, float] = (0.0, 0.0, 0.0)  # degrees around x, then y, then z

    def rotation(self) -> np.ndarray:
        """Part-to-world rotation [3, 3]."""
        matrix = np.eye(3)
        for axis, degrees in enumerate(self.turn):
            c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
            i, j = (axis + 1) % 3, (axis + 2) % 3
            step = np.eye(3)
            step[i, i], step[i, j], step[j, i], step[j, j] = c, -s, s, c
            matrix = step @ matrix
        return matrix

    def bounding_radius(self) -> float:
        """Radius of a sphere around ``at`` that contains the part."""
        a = self.lengths + (0.0,) * 4
        if self.kind in (sdf.ELLIPSOID, sdf.DOME):
            return max(a[:3])
        if self.kind in (sdf.BOX, sdf.PRISM):
            return float(np.linalg.norm(a[:3]))
        if self.kind == sdf.CYLINDER:
            return float(np.hypot(a[0], a[1]))
        if self.kind == sdf.CONE:
            return float(np.hypot(max(a[0], a[1]), a[2]))
        if self.kind in (sdf.TORUS, sdf.CAPSULE):
            return a[0] + a[1]
        if self.kind == sdf.PYRAMID:
            return float(np.linalg.norm((a[0], a[0], a[1])))
        if self.kind == sdf.TUBE:
            return float(np.hypot(a[0] + a[1], a[2]))
        if self.kind == sdf.STAR:
            return float(np.hypot(a[0], a[2]))
        return float(np.hypot(1.05 * a[0], a[1]))  # heart

    def moved(self, offset: np.ndarray, scale: float) -> Part:
        """The part after p -> scale * (p + offset); scales every length except a star's ratio."""
        lengths = tuple(
            v if (self.kind == sdf.STAR and i == 1) else v * scale for i, v in enumerate(self.lengths)
        )
        x, y, z = (float(scale * (a + o)) for a, o in zip(self.at, offset, strict=True))
        return replace(self, lengths=lengths, at=(x, y, z))


@dataclass(frozen=True)
class Solid:
    """A plain solid of the grammar: its constructor, and its extent along z."""

    make: Callable[[Color], Part]
    bottom: float  # extent below its centre
    top: float  # extent above it


def _solid(
    kind: int,
    lengths: tuple[float, ...],
    bottom: float,
    top: float,
    turn: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Solid:
    return Solid(lambda color: Part(kind, lengths, color, turn=turn), bottom, top)


SOLIDS: dict[str, Solid] = {
    "sphere": _solid(sdf.ELLIPSOID, (0.5, 0.5, 0.5), 0.5, 0.5),
    "cube": _solid(sdf.BOX, (0.45, 0.45, 0.45, 0.02), 0.45, 0.45),
    "cylinder": _solid(sdf.CYLINDER, (0.36, 0.55, 0.02), 0.55, 0.55),
    "cone": _solid(sdf.CONE, (0.5, 0.0, 0.55, 0.0), 0.55, 0.55),
    "torus": _solid(sdf.TORUS, (0.42, 0.17), 0.17, 0.17),
    "capsule": _solid(sdf.CAPSULE, (0.28, 0.42), 0.70, 0.70),
    "pyramid": _solid(sdf.PYRAMID, (0.5, 0.45), 0.45, 0.45),
    "ring": _solid(sdf.TUBE, (0.45, 0.08, 0.13, 0.02), 0.53, 0.53, (0, 90, 0)),
    "star": _solid(sdf.STAR, (0.6, 0.45, 0.14, 0.02), 0.49, 0.60),
    "heart": _solid(sdf.HEART, (0.9, 0.2, 0.05), 0.50, 0.54),
}
TOPS = ("sphere", "cube", "cone", "cylinder", "torus", "pyramid")
BOTTOMS = ("cube", "cylinder", "sphere")


def plain(name: str, color: Color) -> list[Part]:
    """A single solid."""
    return [SOLIDS[name].make(color)]


def stacked(top: str, top_color: Color, bottom: str, bottom_color: Color) -> list[Part]:
    """One solid standing on another, slightly sunk in so that they touch."""
    upper, lower = SOLIDS[top], SOLIDS[bottom]
    sink = 0.06 if bottom == "sphere" else 0.02
    if top == "sphere" or (top == "torus" and bottom == "sphere"):
        sink += 0.06
    height = lower.top + upper.bottom - sink
    return [lower.make(bottom_color), replace(upper.make(top_color), at=(0.0, 0.0, height))]
