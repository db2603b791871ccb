"""Input and output of a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from evaluation.figures import style
from evaluation.metrics.base import Metric, Quantity
from evaluation.results.aggregate import Panel, order_methods, panels
from evaluation.results.collect import Results
from evaluation.results.csv_text import csv_text
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.files import write_atomic

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

    @property
    def text(self) -> str:
        """The caption with its notes, for the file beside the figure."""
        return "\n".join([self.caption, *self.notes]) + "\n"


def save(drawing: Drawing, folder: Path, name: str) -> list[Path]:
    """Write PDF, PNG, the caption (.txt) and the plotted numbers (.csv), each atomically."""
    paths = style.save(drawing.figure, folder, name)
    paths.append(folder / f"{name}.txt")
    write_atomic(paths[-1], drawing.text)
    if drawing.numbers is not None:
        paths.append(folder / f"{name}.csv")
        write_atomic(paths[-1], csv_text(drawing.numbers))
    return paths


def said_of(data: Data, runs: pd.DataFrame, quantities: Sequence[str] = ()) -> str:
    """What every caption says of its runs: n, prompts, seeds, prompt set, prior, steps, and the judges of
    the quantities."""
    prompts, seeds = runs["prompt"].nunique(), runs["seed"].nunique()
    parts = [_count(len(runs), "run"), _count(prompts, "prompt"), _count(seeds, "seed")]
    for name, label in (("prompt_set", "prompt set"), ("prior", "prior"), ("representation", "")):
        values = sorted(str(value) for value in runs[name].dropna().unique())
        shown = [data.representation(value) for value in values] if name == "representation" else values
        parts.append(f"{label} {', '.join(shown)}".strip())
    steps = sorted({int(value) for value in runs["steps"].dropna()})
    text = "; ".join(parts) + (f"; {_few(steps)} steps" if steps else "") + "."
    judges = judges_of(data, runs, quantities)
    return text + (f" Judge: {'; '.join(judges)}." if judges else "")


def judges_of(data: Data, runs: pd.DataFrame, quantities: Sequence[str]) -> list[str]:
    """Descriptions of the judges that gave these quantities to the runs."""
    owners = [m for m in data.metrics.values() if any(q.name in quantities for q in m.quantities)]
    found = [judge for m in owners for judge in sorted(runs[f"{m.name}_judge"].dropna().unique())]
    return [data.results.judges[judge] for judge in found]


def quantity_of(data: Data, name: str) -> Quantity:
    """The quantity of a configured metric."""
    known = [q for metric in data.metrics.values() for q in metric.quantities]
    found = [q for q in known if q.name == name]
    if not found:
        names = ", ".join(q.name for q in known)
        raise TraceBenchError(f"quantity={name} is not a quantity of the configured metrics ({names}).")
    return found[0]


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _few(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers)) if len(numbers) < 4 else f"{numbers[0]} to {numbers[-1]}"
