"""The named objects: small sculptures of a few parts, upright along z; those with a front face +x."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from trace_bench.toyworld.sdf import (
    BOX,
    CAPSULE,
    CONE,
    CYLINDER,
    DOME,
    ELLIPSOID,
    PRISM,
    TORUS,
    TUBE,
)  # fmt: skip
from trace_bench.toyworld.shapes import BLACK, BROWN, COLORS, GLASS, GRAY, TAN, Color, Part

_RED, _ORANGE, _YELLOW, _GREEN = (COLORS[name] for name in ("red", "orange", "yellow", "green"))
_PINK, _WHITE = COLORS["pink"], COLORS["white"]
_CREAM: Color = (0.95, 0.82, 0.62)


@dataclass(frozen=True)
class NamedObject:
    """Builds an object from a colour; ``colored`` objects take a colour word, the others have fixed
    colours.
    """

    build: Callable[[Color], list[Part]]
    colored: bool
    has_front: bool


def _ball(r: float, color: Color, *at: float) -> Part:
    return Part(ELLIPSOID, (r, r, r), color, at)  # type: ignore[arg-type]


def _eyes(color: Color, r: float, x: float, y: float, z: float) -> list[Part]:
    return [_ball(r, color, x, y, z), _ball(r, color, x, -y, z)]


def _mushroom(color: Color) -> list[Part]:
    dots = [
        (0.36, 0.0, 0.40), (-0.20, 0.33, 0.40), (-0.20, -0.33, 0.40), (0.10, 0.42, 0.26),
        (0.10, -0.42, 0.26), (-0.44, 0.0, 0.27), (0.0, 0.0, 0.51),
    ]  # fmt: skip
    return [
        Part(CONE, (0.24, 0.17, 0.36, 0.03), _CREAM, (0.0, 0.0, -0.33)),
        Part(DOME, (0.60, 0.60, 0.52), color),
        *[_ball(0.10, _WHITE, *p) for p in dots],
    ]


def _snowman(_: Color) -> list[Part]:
    return [
        _ball(0.42, _WHITE, 0.0, 0.0, -0.42),
        _ball(0.31, _WHITE, 0.0, 0.0, 0.13),
        _ball(0.23, _WHITE, 0.0, 0.0, 0.53),
        Part(CONE, (0.075, 0.01, 0.17, 0.0), _ORANGE, (0.34, 0.0, 0.53), (0.0, 90.0, 0.0)),
        *_eyes(BLACK, 0.050, 0.19, 0.10, 0.62),
        _ball(0.055, BLACK, 0.29, 0.0, 0.22),
        _ball(0.055, BLACK, 0.29, 0.0, 0.04),
        Part(TORUS, (0.21, 0.06), _RED, (0.0, 0.0, 0.35)),
        Part(CYLINDER, (0.25, 0.025, 0.0), BLACK, (0.0, 0.0, 0.70)),
        Part(CYLINDER, (0.17, 0.13, 0.01), BLACK, (0.0, 0.0, 0.82)),
    ]


def _tree(_: Color) -> list[Part]:
    return [
        Part(CYLINDER, (0.11, 0.22, 0.0), BROWN, (0.0, 0.0, -0.62)),
        Part(CONE, (0.48, 0.14, 0.22, 0.0), _GREEN, (0.0, 0.0, -0.24)),
        Part(CONE, (0.38, 0.10, 0.20, 0.0), _GREEN, (0.0, 0.0, 0.10)),
        Part(CONE, (0.28, 0.0, 0.22, 0.0), _GREEN, (0.0, 0.0, 0.43)),
    ]


def _house(color: Color) -> list[Part]:
    return [
        Part(BOX, (0.44, 0.46, 0.32, 0.01), color, (0.0, 0.0, -0.24)),
        Part(PRISM, (0.42, 0.46, 0.23), color, (0.0, 0.0, 0.30)),
        Part(BOX, (0.52, 0.41, 0.035, 0.0), GRAY, (0.0, 0.29, 0.33), (-45.0, 0.0, 0.0)),
        Part(BOX, (0.52, 0.41, 0.035, 0.0), GRAY, (0.0, -0.29, 0.33), (45.0, 0.0, 0.0)),
        Part(BOX, (0.03, 0.12, 0.21, 0.0), BROWN, (0.44, 0.0, -0.35)),
        Part(BOX, (0.03, 0.09, 0.09, 0.0), GLASS, (0.44, 0.29, -0.14)),
        Part(BOX, (0.03, 0.09, 0.09, 0.0), GLASS, (0.44, -0.29, -0.14)),
    ]


def _rocket(color: Color) -> list[Part]:
    fins = [
        Part(BOX, (0.15, 0.03, 0.19, 0.0), GRAY, at, (0.0, 0.0, turn))
        for at, turn in (
            ((0.30, 0, -0.46), 0),
            ((-0.30, 0, -0.46), 0),
            ((0, 0.30, -0.46), 90),
            ((0, -0.30, -0.46), 90),
        )
    ]
    return [
        Part(CYLINDER, (0.25, 0.42, 0.02), color, (0.0, 0.0, -0.10)),
        Part(CONE, (0.25, 0.0, 0.24, 0.0), _WHITE, (0.0, 0.0, 0.55)),
        Part(CYLINDER, (0.265, 0.05, 0.0), _WHITE, (0.0, 0.0, -0.08)),
        Part(CONE, (0.20, 0.12, 0.09, 0.0), BLACK, (0.0, 0.0, -0.60)),
        *fins,
    ]


def _mug(color: Color) -> list[Part]:
    return [
        Part(TUBE, (0.38, 0.05, 0.46, 0.02), color),
        Part(CYLINDER, (0.38, 0.04, 0.0), color, (0.0, 0.0, -0.42)),
        Part(CYLINDER, (0.36, 0.03, 0.0), BROWN, (0.0, 0.0, 0.24)),
        Part(TORUS, (0.23, 0.065), color, (0.0, 0.50, 0.0), (0.0, 90.0, 0.0)),
    ]


def _duck(_: Color) -> list[Part]:
    return [
        Part(ELLIPSOID, (0.52, 0.38, 0.32), _YELLOW, (0.0, 0.0, -0.28)),
        Part(CONE, (0.20, 0.02, 0.18, 0.0), _YELLOW, (-0.52, 0.0, -0.10), (0.0, -50.0, 0.0)),
        _ball(0.29, _YELLOW, 0.24, 0.0, 0.26),
        Part(ELLIPSOID, (0.20, 0.17, 0.07), _ORANGE, (0.57, 0.0, 0.20)),
        *_eyes(BLACK, 0.06, 0.45, 0.15, 0.36),
        Part(ELLIPSOID, (0.27, 0.06, 0.17), _ORANGE, (-0.06, 0.36, -0.22)),
        Part(ELLIPSOID, (0.27, 0.06, 0.17), _ORANGE, (-0.06, -0.36, -0.22)),
    ]


def _chair(color: Color) -> list[Part]:
    legs = [
        Part(BOX, (0.055, 0.055, 0.27, 0.0), BROWN, (x, y, -0.40))
        for x in (-0.34, 0.34)
        for y in (-0.34, 0.34)
    ]
    return [
        Part(BOX, (0.42, 0.42, 0.065, 0.02), color, (0.0, 0.0, -0.10)),
        Part(BOX, (0.065, 0.42, 0.42, 0.02), color, (-0.36, 0.0, 0.34)),
        *legs,
    ]


def _ice_cream_cone(color: Color) -> list[Part]:
    return [
        Part(CONE, (0.03, 0.33, 0.45, 0.0), TAN, (0.0, 0.0, -0.35)),
        _ball(0.37, color, 0.0, 0.0, 0.26),
        Part(TORUS, (0.31, 0.08), color, (0.0, 0.0, 0.10)),
        _ball(0.11, _RED, 0.0, 0.0, 0.66),
    ]


def _table(color: Color) -> list[Part]:
    legs = [
        Part(CYLINDER, (0.07, 0.33, 0.0), BROWN, (x, y, -0.20)) for x in (-0.45, 0.45) for y in (-0.33, 0.33)
    ]
    return [Part(BOX, (0.60, 0.48, 0.08, 0.02), color, (0.0, 0.0, 0.19)), *legs]


def _lamp(color: Color) -> list[Part]:
    return [
        Part(CYLINDER, (0.32, 0.06, 0.02), GRAY, (0.0, 0.0, -0.66)),
        Part(CYLINDER, (0.055, 0.40, 0.0), GRAY, (0.0, 0.0, -0.25)),
        Part(CONE, (0.46, 0.24, 0.28, 0.0), color, (0.0, 0.0, 0.32)),
    ]


def _car(color: Color) -> list[Part]:
    wheels = [
        Part(CYLINDER, (0.17, 0.07, 0.02), BLACK, (x, y, -0.30), (90.0, 0.0, 0.0))
        for x in (-0.40, 0.40) for y in (-0.33, 0.33)
    ]  # fmt: skip
    return [
        Part(BOX, (0.70, 0.34, 0.18, 0.05), color, (0.0, 0.0, -0.14)),
        Part(BOX, (0.34, 0.29, 0.17, 0.05), color, (-0.16, 0.0, 0.16)),
        Part(BOX, (0.03, 0.24, 0.10, 0.0), GLASS, (0.17, 0.0, 0.16)),
        Part(BOX, (0.03, 0.24, 0.10, 0.0), GLASS, (-0.49, 0.0, 0.16)),
        Part(BOX, (0.22, 0.30, 0.09, 0.0), GLASS, (-0.16, 0.0, 0.17)),
        *_eyes(_YELLOW, 0.085, 0.68, 0.20, -0.10),
        *wheels,
    ]


def _fish(color: Color) -> list[Part]:
    return [
        Part(ELLIPSOID, (0.52, 0.22, 0.36), color, (0.12, 0.0, 0.0)),
        Part(
            BOX,
            (0.22, 0.05, 0.22, 0.01),
            _ORANGE if color != _ORANGE else _YELLOW,
            (-0.52, 0.0, 0.0),
            (0.0, 45.0, 0.0),
        ),
        Part(
            BOX,
            (0.16, 0.04, 0.14, 0.01),
            _ORANGE if color != _ORANGE else _YELLOW,
            (0.02, 0.0, 0.36),
            (0.0, 25.0, 0.0),
        ),
        *_eyes(_WHITE, 0.11, 0.40, 0.13, 0.10),
        *_eyes(BLACK, 0.07, 0.44, 0.18, 0.11),
    ]


def _penguin(_: Color) -> list[Part]:
    return [
        Part(ELLIPSOID, (0.38, 0.42, 0.62), BLACK),
        Part(ELLIPSOID, (0.30, 0.31, 0.46), _WHITE, (0.13, 0.0, -0.12)),
        *_eyes(_WHITE, 0.10, 0.25, 0.14, 0.38),
        *_eyes(BLACK, 0.055, 0.33, 0.14, 0.39),
        Part(CONE, (0.11, 0.0, 0.15, 0.0), _ORANGE, (0.42, 0.0, 0.24), (0.0, 90.0, 0.0)),
        Part(ELLIPSOID, (0.22, 0.15, 0.07), _ORANGE, (0.18, 0.18, -0.60)),
        Part(ELLIPSOID, (0.22, 0.15, 0.07), _ORANGE, (0.18, -0.18, -0.60)),
        Part(ELLIPSOID, (0.13, 0.06, 0.34), BLACK, (0.0, 0.42, 0.0), (20.0, 0.0, 0.0)),
        Part(ELLIPSOID, (0.13, 0.06, 0.34), BLACK, (0.0, -0.42, 0.0), (-20.0, 0.0, 0.0)),
    ]


def _robot(color: Color) -> list[Part]:
    limbs = [Part(BOX, (0.10, 0.09, 0.18, 0.02), GRAY, (0.0, y, -0.58)) for y in (-0.17, 0.17)]
    limbs += [Part(BOX, (0.09, 0.08, 0.24, 0.02), GRAY, (0.0, y, -0.14)) for y in (-0.44, 0.44)]
    return [
        Part(BOX, (0.24, 0.36, 0.30, 0.03), color, (0.0, 0.0, -0.14)),
        Part(BOX, (0.24, 0.29, 0.23, 0.03), color, (0.0, 0.0, 0.42)),
        Part(BOX, (0.04, 0.22, 0.15, 0.0), BLACK, (0.22, 0.0, 0.43)),
        *_eyes(_YELLOW, 0.07, 0.25, 0.11, 0.46),
        Part(BOX, (0.04, 0.17, 0.11, 0.0), _WHITE, (0.23, 0.0, -0.10)),
        Part(CYLINDER, (0.03, 0.09, 0.0), GRAY, (0.0, 0.0, 0.72)),
        _ball(0.075, _RED, 0.0, 0.0, 0.83),
        *limbs,
    ]


def _bear(_: Color) -> list[Part]:
    return [
        Part(ELLIPSOID, (0.36, 0.40, 0.40), BROWN, (0.0, 0.0, -0.30)),
        Part(ELLIPSOID, (0.20, 0.27, 0.28), _CREAM, (0.20, 0.0, -0.30)),
        _ball(0.34, BROWN, 0.0, 0.0, 0.32),
        *_eyes(BROWN, 0.14, 0.0, 0.28, 0.58),
        Part(ELLIPSOID, (0.16, 0.17, 0.13), _CREAM, (0.27, 0.0, 0.24)),
        _ball(0.06, BLACK, 0.43, 0.0, 0.28),
        *_eyes(BLACK, 0.055, 0.28, 0.14, 0.42),
        *[Part(CAPSULE, (0.12, 0.12), BROWN, (0.14, y, -0.18), (0.0, 60.0, 0.0)) for y in (-0.40, 0.40)],
        *[Part(ELLIPSOID, (0.24, 0.14, 0.14), BROWN, (0.26, y, -0.58)) for y in (-0.23, 0.23)],
    ]


OBJECTS: dict[str, NamedObject] = {
    "bear": NamedObject(_bear, colored=False, has_front=True),
    "car": NamedObject(_car, colored=True, has_front=True),
    "chair": NamedObject(_chair, colored=True, has_front=True),
    "duck": NamedObject(_duck, colored=False, has_front=True),
    "fish": NamedObject(_fish, colored=True, has_front=True),
    "house": NamedObject(_house, colored=True, has_front=True),
    "ice cream cone": NamedObject(_ice_cream_cone, colored=True, has_front=False),
    "lamp": NamedObject(_lamp, colored=True, has_front=False),
    "mug": NamedObject(_mug, colored=True, has_front=False),
    "mushroom": NamedObject(_mushroom, colored=True, has_front=False),
    "penguin": NamedObject(_penguin, colored=False, has_front=True),
    "robot": NamedObject(_robot, colored=True, has_front=True),
    "rocket": NamedObject(_rocket, colored=True, has_front=False),
    "snowman": NamedObject(_snowman, colored=False, has_front=True),
    "table": NamedObject(_table, colored=True, has_front=False),
    "tree": NamedObject(_tree, colored=False, has_front=False),
}
