"""Loads the metrics of a config."""

from __future__ import annotations

from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from evaluation.metrics.base import Metric
from trace_bench.system.errors import TraceBenchError


def load_metrics(config: DictConfig) -> dict[str, Metric]:
    """The configured metrics of conf/metric/, by name."""
    chosen = config.get("metrics") or OmegaConf.create({})
    if not isinstance(chosen, DictConfig):
        raise TraceBenchError(f"metrics={chosen} does not select metrics; use metric=[{chosen}].")
    entries: dict[str, Any] = OmegaConf.to_container(chosen, resolve=True)  # type: ignore[assignment]
    metrics: dict[str, Metric] = {}
    for name, entry in entries.items():
        try:
            metric = instantiate(entry, _convert_="all")
        except Exception as error:
            if isinstance(error.__cause__, TraceBenchError):
                raise error.__cause__ from None
            raise TraceBenchError(f"The metric '{name}' in the config cannot be created: {error}") from error
        if not isinstance(metric, Metric) or metric.name != name:
            raise TraceBenchError(
                f"conf/metric/{name}.yaml needs a _target_ that is a Metric with the name '{name}'."
            )
        metrics[name] = metric
    return metrics
