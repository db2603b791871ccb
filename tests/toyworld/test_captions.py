"""The caption grammar: round trips, rejected captions, view phrases, and held-out captions."""

from __future__ import annotations

import pytest

from trace_bench.system.errors import TraceBenchError
from trace_bench.toyworld import (
    HELD_OUT,
    VIEW_PHRASES,
    all_captions,
    held_out_prompts,
    scene_from_prompt,
    split_view,
    training_prompts,
    view_phrase,
    vocabulary,
)
from trace_bench.toyworld.captions import HELD_OUT_STACKS, parse
from trace_bench.toyworld.objects import OBJECTS
from trace_bench.toyworld.shapes import COLORS, SOLIDS


def test_every_caption_is_parsed_back_with_every_view():
    for caption in all_captions():
        assert parse(caption.text) == (caption, None)
        for phrase in VIEW_PHRASES:
            assert parse(f"{caption.text}, {phrase}") == (caption, phrase)


def test_scenes_take_view_phrases_capitals_and_either_article():
    assert scene_from_prompt("a red cube") is scene_from_prompt("A Red  cube, front view.")
    assert scene_from_prompt("a orange star").prompt == "an orange star"
    assert scene_from_prompt("a duck").has_front
    assert not scene_from_prompt("a red cube").has_front
    assert not scene_from_prompt("a red cone on a blue cube").has_front


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("a red zebra on a bike", "'zebra', 'bike'"),
        ("a cube", 'use for example "a red cube"'),
        ("a mug", 'use for example "a red mug"'),
        ("a red duck", 'use "a duck", not "a red duck"'),
        ("a red red cube", "is not a caption of the toy world"),
        ("a red", "is not a caption of the toy world"),
        ("", "is not a caption of the toy world"),
        ("a red duck on a blue cube", "has its own colours"),
        ("a red star on a blue cube", "cannot be stacked"),
        ("a red cube on a red sphere", "one colour twice"),
    ],
)
def test_refusals_say_what_is_wrong(prompt, message):
    with pytest.raises(TraceBenchError) as error:
        scene_from_prompt(prompt)
    assert message in str(error.value)


def test_held_out_captions_are_never_trained_on():
    train, held = training_prompts(), held_out_prompts()
    assert set(held) == HELD_OUT
    assert not set(train) & set(held)
    assert len(train) + len(held) == len(all_captions()) == len(set(train) | set(held))
    for top, base in HELD_OUT_STACKS:
        stacks = [c for c in all_captions() if (c.name, c.base) == (top, base)]
        assert len(stacks) == 56
        assert all(c.text in HELD_OUT for c in stacks)


def test_every_word_and_every_pair_of_words_roles_is_still_trained():
    """Held-out captions are new only as combinations: each colour, shape and stack position is trained."""
    seen = [parse(p)[0] for p in training_prompts()]
    assert {c.name for c in seen} == set(SOLIDS) | set(OBJECTS)
    assert {c.color for c in seen} == {*COLORS, None}
    assert {c.base_color for c in seen if c.base} == set(COLORS)
    singles = [c for c in all_captions() if c.color and not c.base]
    held = [c for c in singles if c.text in HELD_OUT]
    assert {c.name for c in held} == {c.name for c in singles}
    assert len(held) == len({c.name for c in singles})  # one colour each


def test_the_vocabulary_is_the_words_of_the_captions():
    words = {w for c in all_captions() for p in VIEW_PHRASES for w in f"{c.text} , {p}".split()}
    assert words == set(vocabulary())


@pytest.mark.parametrize(
    ("azimuth", "elevation", "phrase"),
    [
        (0, 0, "front view"), (44.9, 0, "front view"), (45, 0, "side view"), (-90, 30, "side view"),
        (135, 0, "side view"), (135.1, 0, "back view"), (-180, 0, "back view"), (400, 0, "front view"),
        (0, 60, "front view"), (0, 60.1, "overhead view"), (180, 80, "overhead view"),
    ],
)  # fmt: skip
def test_view_phrases_follow_threestudio(azimuth, elevation, phrase):
    assert view_phrase(azimuth, elevation) == phrase


def test_view_phrase_thresholds_can_be_narrowed():
    assert view_phrase(40, 0, front=30, back=30) == "side view"


def test_split_view():
    assert split_view("a red cube, back view") == ("a red cube", "back view")
    assert split_view("a red cube") == ("a red cube", None)
