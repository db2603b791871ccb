"""The toy world: captioned scenes with known shape, colour and appearance."""

from trace_bench.toyworld.captions import (
    HELD_OUT,
    VIEW_PHRASES,
    Caption,
    all_captions,
    held_out_prompts,
    split_view,
    training_prompts,
    view_phrase,
    vocabulary,
)  # fmt: skip
from trace_bench.toyworld.scene import Scene, SceneRender, scene_from_prompt

__all__ = [
    "HELD_OUT", "VIEW_PHRASES", "Caption", "Scene", "SceneRender", "all_captions", "held_out_prompts",
    "scene_from_prompt", "split_view", "training_prompts", "view_phrase", "vocabulary",
]  # fmt: skip
