"""Input and output of a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from evaluation.metrics.base import Metric
from evaluation.results.aggregate import Panel, order_methods, panels
from evaluation.results.collect import Results
from trace_bench.system.errors import TraceBenchError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class NothingToDraw(TraceBenchError):
    """The figure's runs do not exist yet; the message says how to make them."""


@dataclass(frozen=True)
class Data:
    """The results frame with display names and metrics."""

    results: Results
    metrics: Mapping[str, Metric]
    names: Mapping[str, Mapping[str, str]]  # display names of methods and representations
    order: Sequence[str]  # of methods
    root: Path

    @property
    def runs(self) -> pd.DataFrame:
        return self.results.frame

    def method(self, name: str) -> str:
        return self.names.get("method", {}).get(name, name)

    def representation(self, name: str) -> str:
        return self.names.get("representation", {}).get(name, name)

    def panels(self) -> list[Panel]:
        """Groups of comparable runs (one prompt set and prior), the largest first."""
        if self.runs.empty:
            return []
        return sorted(panels(order_methods(self.runs, self.order)), key=lambda panel: -len(panel.frame))


@dataclass(frozen=True)
class Drawing:
    """A figure, its caption and the plotted numbers."""

    figure: Figure
    caption: str
    numbers: pd.DataFrame | None = None
    notes: list[str] = field(default_factory=list)
