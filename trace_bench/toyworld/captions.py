"""The grammar of toy captions: enumeration, parsing, view phrases, and the split held out of training.

caption = ("a" | "an") thing ["," view]
thing   = color solid | color solid "on a" color solid | color object | object with its own colours
view    = "front view" | "side view" | "back view" | "overhead view"
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from trace_bench.system.errors import TraceBenchError
from trace_bench.toyworld.objects import OBJECTS
from trace_bench.toyworld.shapes import BOTTOMS, COLORS, SOLIDS, TOPS

VIEW_PHRASES = ("front view", "side view", "back view", "overhead view")


@dataclass(frozen=True)
class Caption:
    """Parsed caption: a thing with a colour (None for its own colours), possibly standing on another."""

    name: str
    color: str | None
    base: str | None = None
    base_color: str | None = None

    @property
    def text(self) -> str:
        words = f"{self.color} {self.name}" if self.color else self.name
        text = f"{article(words)} {words}"
        return (
            text
            if self.base is None
            else f"{text} on {article(self.base_color or '')} {self.base_color} {self.base}"
        )

    @property
    def kind(self) -> str:
        """ "solid", "object" or "composition"."""
        if self.base is not None:
            return "composition"
        return "object" if self.name in OBJECTS else "solid"


def article(words: str) -> str:
    """ "an" before a vowel, else "a"."""
    return "an" if words[:1] in "aeiou" else "a"


def all_captions() -> list[Caption]:
    """Every caption of the grammar, in a fixed order: solids, objects, compositions of two colours."""
    solids = [Caption(name, color) for name in SOLIDS for color in COLORS]
    objects = [
        Caption(name, color)
        for name, item in OBJECTS.items() for color in (COLORS if item.colored else (None,))
    ]  # fmt: skip
    stacks = [
        Caption(top, color, base, base_color)
        for top in TOPS for base in BOTTOMS for color in COLORS for base_color in COLORS
        if color != base_color
    ]  # fmt: skip
    return solids + objects + stacks


def _held_out() -> frozenset[str]:
    """One colour of every solid and coloured object, two (top, base) pairs in all colours, and a tenth of the
    other stacks.

    The held-out colour changes from name to name, so that training still sees every colour and every shape.
    """
    colors = list(COLORS)
    singles = list(SOLIDS) + [name for name, item in OBJECTS.items() if item.colored]
    held = {Caption(name, colors[(3 * i + 1) % len(colors)]).text for i, name in enumerate(singles)}
    stacks = [c for c in all_captions() if c.kind == "composition"]
    held |= {c.text for c in stacks if (c.name, c.base) in HELD_OUT_STACKS}
    rest = [c for c in stacks if (c.name, c.base) not in HELD_OUT_STACKS]
    held |= {c.text for i, c in enumerate(rest) if i % 10 == 7}
    return frozenset(held)


HELD_OUT_STACKS = frozenset({("cone", "sphere"), ("torus", "cylinder")})
HELD_OUT = _held_out()


def training_prompts() -> list[str]:
    """Captions without view phrase in the training set."""
    return [c.text for c in all_captions() if c.text not in HELD_OUT]


def held_out_prompts() -> list[str]:
    """Captions without view phrase that training never sees, although it sees each of their words."""
    return [c.text for c in all_captions() if c.text in HELD_OUT]


def vocabulary() -> list[str]:
    """All words of the grammar, sorted; the comma counts as a word."""
    text = " ".join([*COLORS, *SOLIDS, *OBJECTS, *VIEW_PHRASES, "a an on ,"])
    return sorted(set(text.split()))


def view_phrase(azimuth_deg: float, elevation_deg: float, front: float = 45.0, back: float = 45.0,
                overhead: float = 60.0) -> str:  # fmt: skip
    """threestudio's phrase for a camera; later rules win, in the order side, front, back, overhead."""
    azimuth = (azimuth_deg + 180.0) % 360.0 - 180.0
    phrase = "side view"
    if abs(azimuth) < front:
        phrase = "front view"
    if abs(azimuth) > 180.0 - back:
        phrase = "back view"
    return "overhead view" if elevation_deg > overhead else phrase


def split_view(prompt: str) -> tuple[str, str | None]:
    """("a red cube", "front view") for "a red cube, front view"; None if there is no view phrase."""
    words = " ".join(prompt.lower().replace(",", " , ").split()).rstrip(" .")
    for phrase in VIEW_PHRASES:
        if words.endswith(phrase):
            return words[: -len(phrase)].rstrip(" ,"), phrase
    return words.rstrip(" ,"), None


_KNOWN = (
    f"the colours {', '.join(COLORS)}, the solids {', '.join(SOLIDS)} and the objects {', '.join(OBJECTS)}"
)


def _take_thing(words: list[str], prompt: str) -> tuple[str, str | None]:
    """(name, colour) from the words of one thing, ignoring its article."""
    words = words[1:] if words[:1] in (["a"], ["an"], ["the"]) else words
    color = words[0] if words and words[0] in COLORS else None
    name = " ".join(words[1:] if color else words)
    if name in SOLIDS:
        if color is None:
            raise TraceBenchError(
                f'"{prompt}" names no colour for its {name}; use for example "a red {name}".'
            )
        return name, color
    if name in OBJECTS:
        if OBJECTS[name].colored and color is None:
            raise TraceBenchError(
                f'"{prompt}" names no colour for its {name}; use for example "a red {name}".'
            )
        if not OBJECTS[name].colored and color is not None:
            raise TraceBenchError(
                f'The toy world\'s {name} has its own colours; use "{article(name)} {name}", not "{prompt}".'
            )
        return name, color
    raise TraceBenchError(
        f'"{prompt}" is not a caption of the toy world; use "a <colour> <solid>", '
        f'"a <colour> <solid> on a <colour> <solid>" or an object, with {_KNOWN}.'
    )


def parse(prompt: str) -> tuple[Caption, str | None]:
    """(caption, view phrase or None) of the prompt; raises an error for words unknown to the toy world."""
    thing, phrase = split_view(prompt)
    words = re.findall(r"[^\s,]+", thing)
    unknown = [w for w in dict.fromkeys(words) if w not in vocabulary() and w != "the"]
    if unknown:
        raise TraceBenchError(
            f'The toy world does not know {", ".join(map(repr, unknown))} in "{prompt}"; it has {_KNOWN}.'
        )
    if "on" not in words:
        name, color = _take_thing(words, prompt)
        return Caption(name, color), phrase
    at = words.index("on")
    (name, color), (base, base_color) = _take_thing(words[:at], prompt), _take_thing(words[at + 1 :], prompt)
    if name not in TOPS or base not in BOTTOMS:
        raise TraceBenchError(
            f'"{prompt}" cannot be stacked; in the toy world {", ".join(TOPS)} stand on {", ".join(BOTTOMS)}.'
        )
    if color == base_color:
        raise TraceBenchError(
            f'"{prompt}" uses one colour twice; give the {name} and the {base} different colours.'
        )
    return Caption(name, color, base, base_color), phrase
