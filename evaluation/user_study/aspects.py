"""The questions and possible answers (TraCe, supplement D)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Aspect:
    """One question; `table` and `title` are from the paper."""

    id: str
    table: int
    title: str
    question: str
    hint: str


ASPECTS = (
    Aspect(
        "consistency",
        1,
        "3D Consistency",
        "Which has the better 3D shape?",
        "A shape that is coherent and correct from every side.",
    ),
    Aspect(
        "fidelity",
        2,
        "Prompt Fidelity",
        "Which fits the text better?",
        "Everything that the text names, and nothing that it does not.",
    ),
    Aspect(
        "photorealism",
        3,
        "Photorealism",
        "Which looks more real?",
        "Finer textures, more like an object of the real world.",
    ),
)
ASPECT_IDS = tuple(aspect.id for aspect in ASPECTS)

#: Choices in page order -> label on the page.
CHOICES = {"left": "Left", "tie": "Tie", "right": "Right", "unknown": "Can't tell"}
SIDES = ("left", "right")
