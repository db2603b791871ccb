"""Scores of controls, without a run of the command."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from run_folders import only_run, save_renders, write_cameras, write_run

from evaluation.metrics.ground_truth import GroundTruth
from trace_bench.cameras import EvaluationRig
from trace_bench.external.controls import CONTROLS, VisibleControl
from trace_bench.toyworld import scene_from_prompt


@cache
def scores(control: str, prompt: str, views: int = 12, resolution: int = 64) -> dict[str, float | None]:
    """What the ground truth says of a control, seen from `views` cameras of `resolution` pixels."""
    with TemporaryDirectory() as folder:
        rig = EvaluationRig(n_views=views, resolution=resolution)
        made = VisibleControl(CONTROLS[control], scene_from_prompt(prompt))
        seen = made.render(rig.cameras(), torch.ones(3), with_normals=True)
        run = write_run(Path(folder), prompt=prompt, representation="control")
        maps = (seen.rgb, seen.alpha[..., 0], seen.depth[..., 0], seen.normal)
        save_renders(run, *(values.numpy() for values in maps))
        write_cameras(run, rig)
        return GroundTruth().score(only_run(Path(folder))).values
