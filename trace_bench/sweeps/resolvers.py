"""The resolvers for `${...}` in conf/; importing this module registers them."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from trace_bench.settings.prompts import prompt_shards


def _equal_work_steps(*, _root_: DictConfig) -> int:
    from trace_bench.sweeps.budget import equal_work_steps  # imports torch

    return equal_work_steps(_root_)


def _equal_work_tflop(*, _root_: DictConfig) -> float:
    from trace_bench.sweeps.budget import equal_work_tflop

    return equal_work_tflop(_root_)


def _local_workers(device: str) -> int:
    """Workers of hydra/launcher=local: one if a GPU does the work, else one per core (-1 for joblib)."""
    return 1 if uses_gpu(device) else -1


def uses_gpu(device: str) -> bool:
    """Whether `device=...` means a GPU on this machine, found out without torch."""
    return device != "cpu" and any(Path("/dev").glob("nvidia[0-9]*"))


OmegaConf.register_new_resolver("local_workers", _local_workers, replace=True)
OmegaConf.register_new_resolver("prompt_shards", prompt_shards, replace=True)
OmegaConf.register_new_resolver("equal_work_steps", _equal_work_steps, replace=True)
OmegaConf.register_new_resolver("equal_work_tflop", _equal_work_tflop, replace=True)
