"""Composed configurations and their jobs."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

from omegaconf import OmegaConf

from trace_bench.settings.config import Job
from trace_bench.settings.prompts import load_prompt_set
from trace_bench.sweeps.planning import compose_run, make_plan
from trace_bench.system.config_path import conf_dir

CONF = Path(conf_dir())
FILE_SETS = {"coco", "file"}  # name a file of the user's
NEEDED = {"pointcloud": ["init.path=x.ply"], "mesh": ["init.path=x.glb"], "run": ["init.folder=x"]}
EXTERNAL = ["method.asset=x.ply", "method.source=someone", "method.minutes=1"]


def options(group):
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def job(*overrides):
    cfg = compose_run(overrides)
    return Job.from_config(cfg, cfg.hydra)


def toy_scale(method):
    """The guidance scale that the toy protocol gives a method."""
    return OmegaConf.load(CONF / "protocol" / "method" / "toy" / f"{method}.yaml").method.guidance_scale


@functools.cache
def base_job():
    return job("method=trace", "guidance_scale=10")


def changed(made, key, value):
    """The job with one changed setting, validated again."""
    head, _, tail = key.partition(".")
    return dataclasses.replace(made, **{head: {**getattr(made, head), tail: value} if tail else value})


def first_prompt(made):
    prompts = load_prompt_set("toy", made.prompt_set)
    return prompts.select(made.prompt)[0], prompts


def plan(model, *overrides, multirun=True):
    return make_plan([f"prior.repo={model}", *overrides], multirun)
