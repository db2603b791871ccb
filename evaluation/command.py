"""What the evaluation commands share: one root config, one way to fail, the metrics that the config names."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from evaluation.metric import Metric
from trace_bench.errors import TraceBenchError


def command(run: Callable[[DictConfig], int]) -> Callable[[DictConfig], None]:
    """Make a Hydra task of a function that returns an exit code; users' mistakes take one sentence."""

    @functools.wraps(run)
    def task(config: DictConfig) -> None:
        try:
            code = run(config)
        except TraceBenchError as error:
            print(error, file=sys.stderr)
            code = 2
        if code:
            sys.exit(code)

    return task


def output_root(config: DictConfig) -> Path:
    """The folder that holds runs/; it has to exist."""
    root = Path(str(config.output_root)).expanduser()
    if not root.is_dir():
        raise TraceBenchError(
            f"There is no folder {root}: make runs with `python -m trace_bench`, "
            "or name theirs with output_root=FOLDER."
        )
    return root


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
