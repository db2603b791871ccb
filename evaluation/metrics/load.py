"""Loads the metrics of a config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from evaluation.metrics.base import Metric
from trace_bench.system.config_path import conf_dir
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.targets import check_target


def load_metrics(config: DictConfig) -> dict[str, Metric]:
    """The metrics of a composed config, by name.

    Raises:
        TraceBenchError: a metric cannot be created.
    """
    chosen = config.get("metrics") or OmegaConf.create({})
    if not isinstance(chosen, DictConfig):
        raise TraceBenchError(f"metrics={chosen} does not select metrics; use metric=[{chosen}].")
    if config.get("metric"):
        target = config.metric.get("_target_")
        raise TraceBenchError(
            f"The YAML of the metric {target} needs `# @package metrics.NAME` as its first line."
        )
    entries: dict[str, Any] = OmegaConf.to_container(chosen, resolve=True)  # type: ignore[assignment]
    return {name: _make(name, entry) for name, entry in entries.items()}


def _make(name: str, entry: Mapping[str, Any]) -> Metric:
    settings = {key: value for key, value in entry.items() if key != "_target_"}
    target = check_target(f"metrics.{name}", entry, settings)
    try:
        metric = target(**settings)
    except TraceBenchError:
        raise
    except Exception as error:
        raise TraceBenchError(
            f"The metric {name!r} cannot be created: {type(error).__name__}: {error}."
        ) from error
    if not isinstance(metric, Metric) or getattr(metric, "name", None) != name:
        raise TraceBenchError(
            f"The YAML of the metric {name!r} needs a _target_ that is a Metric with the name {name!r}, "
            f"but {entry['_target_']} is {getattr(metric, 'name', 'none')!r}."
        )
    metric.configured = settings
    return metric


def configured_metrics(names: Sequence[str] | None = None) -> dict[str, Metric]:
    """The metrics of conf/metric/ with these names, outside Hydra's commands; None: the default ones."""
    overrides = [] if names is None else [f"metric=[{','.join(names)}]"]
    try:
        with initialize_config_dir(conf_dir(), version_base="1.3", job_name="evaluation"):
            config: DictConfig = compose("evaluation", overrides)
    except HydraException as error:
        known = ", ".join(sorted(path.stem for path in Path(conf_dir(), "metric").glob("*.yaml")))
        raise TraceBenchError(f"metrics={names} is invalid; the metrics are {known}.") from error
    return load_metrics(config)
