"""`python -m evaluation.tables`: Markdown on the terminal, Markdown, CSV and LaTeX under
`output_root`/tables.

For each prompt set and prior a table of methods (mean ± std over prompts) and one of single prompts, from the
tidy frame alone. A mean over an incomplete set is a dash with the count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import hydra
from omegaconf import DictConfig

from evaluation import formats
from evaluation.aggregate import (
    COST,
    Panel,
    Table,
    method_table,
    one_judge,
    order_methods,
    panels,
    prompt_table,
)
from evaluation.collect import Results, collect, save
from evaluation.command import command, load_metrics, output_root
from evaluation.metric import Metric, Quantity
from evaluation.names import display_names
from evaluation.variants import add_variants
from trace_bench.config_path import conf_dir


def make_tables(
    results: Results,
    metrics: Mapping[str, Metric],
    names: Mapping[str, Mapping[str, str]],
    root: Path,
    order: Sequence[str],
) -> list[Table]:
    """All tables of an output root: for each panel its methods, then its prompts."""
    if results.frame.empty:
        return []
    frame = order_methods(add_variants(results.frame, root), order)
    tables = []
    for found in panels(frame):
        panel, notes = one_judge(found, metrics)
        quantities = shown_quantities(panel, metrics)
        notes += _judge_notes(panel, metrics, results)
        notes += [f"{quantity.label}: {quantity.note}." for quantity in quantities]
        by_method = method_table(panel, quantities, names)
        by_prompt = prompt_table(panel, quantities, names)
        tables += [
            replace(by_method, caption=_caption(panel, True), notes=notes),
            replace(by_prompt, caption=_caption(panel, False)),
        ]
    return tables


def shown_quantities(panel: Panel, metrics: Mapping[str, Metric]) -> list[Quantity]:
    """A metric's numbers where some run here was scored by it, then the cost."""
    chosen = [
        q
        for name, metric in metrics.items()
        if panel.frame[f"{name}_judge"].notna().any()
        for q in metric.quantities
    ]
    # Not every model of a metric gives all of its numbers: a CLIP without captions recognises nothing.
    chosen = [q for q in chosen if q.kind != "count" or panel.frame[q.name].notna().any()]
    return [*chosen, *COST]


def _caption(panel: Panel, over_prompts: bool) -> str:
    prompts = f"{panel.prompts} prompt{'s' if panel.prompts != 1 else ''}"
    what = f"Prompt set {panel.title} ({prompts}), prior {panel.prior}"
    if not over_prompts:
        return f"{what}, prompt by prompt (mean over seeds)."
    return (
        f"{what}: mean ± std over prompts (ddof 1) of the mean over seeds; a dash where prompts are missing."
    )


def _judge_notes(panel: Panel, metrics: Mapping[str, Metric], results: Results) -> list[str]:
    """Who scored, and how many runs nobody did."""
    notes = []
    for name in metrics:
        judges = panel.frame[f"{name}_judge"]
        missing = int(judges.isna().sum())
        if missing:
            notes.append(
                f"{name}: {missing} of {len(judges)} runs have no score; "
                "`python -m evaluation.score` makes it or says why."
            )
        notes += [
            f"{results.judges[judge]}." for judge in sorted(judges.dropna().unique()) if judges.nunique() == 1
        ]
    return notes


def write_tables(tables: Sequence[Table], folder: Path) -> list[Path]:
    """Write each table in three formats; returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for table in tables:
        for suffix, text in (
            ("md", formats.markdown(table)),
            ("csv", formats.csv(table)),
            ("tex", formats.latex(table)),
        ):
            path = folder / f"{table.name}.{suffix}"
            path.write_text(text, encoding="utf-8")
            paths.append(path)
    return paths


def report(tables: Sequence[Table], results: Results, prompt_rows: int) -> None:
    """The tables on the terminal, and what is not in them."""
    for table in tables:
        if "prompt" in table.label_columns and len(table.rows) > prompt_rows:
            print(f"{table.caption} {len(table.rows)} rows, in {table.name}.md.\n")
        else:
            print(formats.markdown(table))
    if not tables:
        print("No finished runs: make some with `python -m trace_bench`.\n")
    for status, count in sorted(results.unfinished.items()):
        print(f"{count} runs are {status} and not in the tables.")
    for problem in results.problems:
        print(f"Problem: {problem}")


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="evaluation")
@command
def main(config: DictConfig) -> int:
    root = output_root(config)
    metrics = load_metrics(config)
    results = collect(root, metrics)
    tables = make_tables(results, metrics, display_names(), root, list(config.tables.methods))
    report(tables, results, int(config.tables.prompt_rows))
    written = [*write_tables(tables, root / "tables"), save(results, root)] if tables else []
    pictures = sorted(root.glob("contact_sheet*.png"))
    print("\n".join(["Written:", *(f"  {path}" for path in [*written, *pictures])]) if written else "")
    return 1 if results.problems else 0


if __name__ == "__main__":
    main()
