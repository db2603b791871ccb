"""`python -m evaluation.tables`: print Markdown; write Markdown, CSV and LaTeX to `output_root`/tables.

`table=4` (or `table=[4,7]`) selects tables of the paper next to our results, `table=methods`, `prompts`,
`cost` or `pairs` our own tables, `table=all` all of them. The default, `auto`, selects our own if all runs
are toy runs without a judge's comparison, else all, and drops tables of nearly only dashes. Tables use
only the results frame; the mean of an incomplete set is a dash with the count.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig

from evaluation.command import command, output_root
from evaluation.metrics.base import TOY_PRIORS, Metric
from evaluation.metrics.load import load_metrics
from evaluation.results.collect import Results, collect, save
from evaluation.results.controls import shown
from evaluation.results.markdown import sentence
from evaluation.results.names import display_names
from evaluation.tables import formats
from evaluation.tables.formats import Grid
from evaluation.tables.latex import latex
from evaluation.tables.method_tables import make_tables
from evaluation.tables.pairs_table import pairs_grids
from evaluation.tables.paper import paper_tables
from evaluation.tables.paper_tables import Source, paper_grid
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.files import write_atomic
from trace_bench.system.text import printable

OWN = ("methods", "prompts", "cost", "pairs")
OVER = ("auto", "all_prompts", "common_prompts")
#: Long tables, which go to files only.
_LONG = ("prompts-", "pairs-")
FILLED = 0.1  # table=auto prints a table from this share of cells on
_MANY = 12  # folders with more files are listed as one line


def wanted(value: Any, results: Results) -> list[str]:
    """The names selected by the setting `table`: "1" to "8" and those in OWN."""
    known = [*(str(number) for number in paper_tables()), *OWN]
    if value == "auto":
        toys = results.frame.empty or bool(results.frame["prior"].isin(TOY_PRIORS).all())
        value = list(OWN) if toys and results.judgements.empty else "all"  # `main` drops those of dashes
    if value == "all":
        return known
    names = [str(item) for item in (value if isinstance(value, (list, tuple, ListConfig)) else [value])]
    wrong = [name for name in names if name not in known]
    if wrong or not names:
        raise TraceBenchError(f"table={value} is invalid: use auto, all, or some of {', '.join(known)}.")
    return names


def make_grids(
    names: Sequence[str], results: Results, metrics: Mapping[str, Metric], settings: Mapping[str, Any]
) -> list[Grid]:
    """The paper's tables by number, then our own by prompt set."""
    over = str(settings["over"])
    if over not in OVER:
        raise TraceBenchError(f"tables.over={over} is invalid: use {', '.join(OVER[:-1])} or {OVER[-1]}.")
    display = display_names(results.frame)
    order = list(settings["order"])
    results = select_methods(results, settings["methods"])
    source = Source(results, metrics, display, order, settings["prompt_set"], settings["prior"])
    grids = [paper_grid(table, source) for number, table in paper_tables().items() if str(number) in names]
    if set(OWN) & set(names):
        own = make_tables(results, metrics, display, order, over, shown(settings["controls"]))
        grids += [formats.grid(table) for table in own if table.name.partition("-")[0] in names]
    return grids + (list(pairs_grids(results, metrics, display, order, over)) if "pairs" in names else [])


def select_methods(results: Results, chosen: Sequence[str] | None) -> Results:
    """The results of the methods in `tables.methods`; None: all."""
    if chosen is None:
        return results
    judged = set(results.judgements["method"]) if len(results.judgements) else set()
    known = {*results.frame["method"], *judged} if len(results.frame) else judged
    wrong = [name for name in chosen if name not in known]
    if wrong or not list(chosen):
        raise TraceBenchError(
            f"tables.methods={list(chosen)} is invalid: use some of those with results here, "
            f"{', '.join(sorted(map(str, known)))}."
        )
    kept = {
        name: part[part["method"].isin(list(chosen))].reset_index(drop=True) if len(part) else part
        for name, part in (("frame", results.frame), ("judgements", results.judgements))
    }
    return replace(results, **kept)


def split_off_dashes(grids: Sequence[Grid]) -> tuple[list[Grid], str]:
    """The tables worth printing, and a sentence that names the others."""
    kept = [grid for grid in grids if grid.share_filled >= FILLED]
    left_out = [grid.name for grid in grids if grid.share_filled < FILLED]
    if not left_out:
        return kept, ""
    return kept, (
        f"Not printed, because fewer than {FILLED:.0%} of their cells have a result of ours: "
        f"{', '.join(left_out)}. `table=all` prints them; each says what is missing."
    )


def write_grids(grids: Sequence[Grid], folder: Path) -> list[Path]:
    """Write each table in three formats; returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for grid in grids:
        for suffix, write in (("md", formats.markdown), ("csv", formats.csv), ("tex", latex)):
            path = folder / f"{grid.name}.{suffix}"
            write_atomic(path, write(grid))
            paths.append(path)
    return paths


def report(grids: Sequence[Grid], results: Results, prompt_rows: int) -> None:
    """Print the tables, split to the terminal width, and what they leave out."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for grid in grids:
        if grid.name.startswith(_LONG) and len(grid.body) > prompt_rows:
            print(f"{sentence(grid.caption)} {len(grid.body)} rows, in {grid.name}.md.")
            notes = [f"- {sentence(note)}" for note in grid.notes]
            print("\n".join(["", *notes, ""] if notes else [""]))
        else:
            print(formats.markdown(grid, width))
    if results.frame.empty:
        print("No finished runs: start some with `python -m trace_bench`.\n")
    for status, count in sorted(results.unfinished.items()):
        print(
            f"{count} {status} {'run is' if count == 1 else 'runs are'} left out; "
            f"{results.command('trace_bench.status')} says more."
        )
    for problem in results.problems:
        print(f"Problem: {printable(problem)}")


def _listed(paths: Sequence[Path]) -> list[str]:
    """The paths; a folder with many files is one line."""
    many = {path.parent for path in paths if sum(path.parent == other.parent for other in paths) > _MANY}
    lines = {path: f"  {path}" for path in paths if path.parent not in many}
    folders = {folder: f"  {folder}/ ({sum(p.parent == folder for p in paths)} files)" for folder in many}
    return list(dict.fromkeys(folders.get(path.parent) or lines[path] for path in paths))


@command("evaluation")
def main(config: DictConfig) -> int:
    root = output_root(config)
    metrics = load_metrics(config)
    results = collect(root, metrics)
    grids = make_grids(wanted(config.table, results), results, metrics, config.tables)
    grids, left_out = split_off_dashes(grids) if config.table == "auto" else (grids, "")
    try:
        written = [*write_grids(grids, root / "tables"), save(results, root)] if grids else []
    finally:  # a full disk costs only the files
        report(grids, results, int(config.tables.prompt_rows))
        if left_out:
            print(left_out)
    pictures = sorted(root.glob("contact_sheet*.png"))
    print("\n".join(["Written:", *_listed([*written, *pictures])]) if written else "")
    return 1 if results.problems else 0


if __name__ == "__main__":
    main()
