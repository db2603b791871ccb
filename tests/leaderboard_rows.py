"""Invented rows of the leaderboard: scores of wrong assets under the names of methods."""

from __future__ import annotations

import pandas as pd

from evaluation.metrics.load import configured_metrics
from evaluation.results.controls import committed
from scripts.leaderboard.rows import Board, kept
from scripts.leaderboard.sections import SECTIONS

METHODS = {"scaled": "sds", "fog": "vsd", "billboard": "trace", "half": "ism"}
METRICS = configured_metrics(["ground_truth", "clip_score"])


def frame(methods=METHODS):
    """Rows of a leaderboard: scores of wrong assets under the names of methods."""
    rows = committed()
    rows = rows[rows["control"].isin(methods)].reset_index(drop=True)
    names = rows["control"].map(methods)
    numbers = {"seed": 0, "steps": 240, "views_per_step": 1, "resolution": 64, "guidance_scale": 5.0}
    return rows.assign(
        method=names, kind="run", representation="gaussians", prompt_set="toy_bench", prompts_in_set=8.0,
        init="random", protocol="toy", own_prompt=False, variant="", minutes=0.2, unet_items=480.0, tflop=0.1,
        peak_memory_gb=0.5, minutes_of_loading=0.0, method_name=names.str.upper(), representation_name="3DGS",
        external=False, display_name=pd.NA, source=pd.NA, commit="c" * 12, torch="2.15.0", diffusers="0.42.1",
        numpy="2.4.6", machine="a computer", **numbers,
    ).drop(columns=["control", "right"])  # fmt: skip


def with_scales(rows):
    """The same at six guidance scales; Match is highest at 10."""
    scales, worse = map(float, SECTIONS["guidance"].values), 0.9 * rows["match"]
    found = [rows.assign(guidance_scale=w, match=rows["match"] if w == 10 else worse) for w in scales]
    return kept(pd.concat(found))


def with_phrases(rows):
    """The same as objects with a front, with view phrases; without them, the Janus number is .1 higher."""
    rows = rows.assign(prompt_set="toy_janus", janus=0.2, no_front=0.0)
    return kept(pd.concat([
        rows.assign(view_phrases="True"), rows.assign(view_phrases="False", janus=0.3),
    ]))  # fmt: skip


def board():
    rows = kept(frame())
    judges = {
        judge: f"{name} version 3" for name in METRICS for judge in rows[f"{name}_judge"].dropna().unique()
    }
    parts = dict.fromkeys(SECTIONS, rows) | {
        "guidance": with_scales(rows),
        "inits": kept(pd.concat([rows.assign(init=name) for name in SECTIONS["inits"].values])),
        "janus": with_phrases(rows),
        "janus_perp_neg": rows.assign(prompt_set="toy_janus"),
    }
    return Board(
        {"trace_bench": "1", "prior": {"with adapter": "a" * 64}},
        judges,
        parts | {"controls": committed().assign(prompt_set="toy_bench", variant="")},
    )
