"""The metrics that a command's config names."""

from __future__ import annotations

from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from evaluation.metrics.base import Metric
from trace_bench.system.errors import TraceBenchError


def load_metrics(config: DictConfig) -> dict[str, Metric]:
    """The metrics of conf/metric/, by name."""
    chosen = config.get("metrics") or OmegaConf.create({})
    if not isinstance(chosen, DictConfig):
        raise TraceBenchError(f"metrics={chosen} is no choice of metrics; write metric=[{chosen}].")
    entries: dict[str, Any] = OmegaConf.to_container(chosen, resolve=True)  # type: ignore[assignment]
    metrics: dict[str, Metric] = {}
    for name, entry in entries.items():
        try:
            metric = instantiate(entry, _convert_="all")
        except Exception as error:
            if isinstance(error.__cause__, TraceBenchError):
                raise error.__cause__ from None
            raise TraceBenchError(
                f"The metric '{name}' of the configuration cannot be made: {error}"
            ) from error
        if not isinstance(metric, Metric) or metric.name != name:
            raise TraceBenchError(
                f"conf/metric/{name}.yaml must name, by _target_, a Metric whose name is '{name}'."
            )
        metrics[name] = metric
    return metrics
