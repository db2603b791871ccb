"""`python -m evaluation.report`: a page of all runs, `<output_root>/report`, which opens from disk.

`report.assets` says how much travels along: `all`; `chosen`, a picture of every run, and turntable, views and
3D file of the lowest seed of the first prompts; `none`, numbers only. `report.diff=true` shows the
uncommitted changes of the code, which otherwise stay in the run folders.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from evaluation.command import command, output_root
from evaluation.metrics.load import load_metrics
from evaluation.report import overview
from evaluation.report.details import details
from evaluation.report.gallery import ALL, CHOSEN, NONE, Travels, assets_over_the_run, make_gallery, shown
from evaluation.report.judged import judged
from evaluation.report.page import file_names, write_page, write_scripts
from evaluation.report.paths import scrubbed, without_paths
from evaluation.results.aggregate import order_methods, panels
from evaluation.results.collect import Results, collect
from evaluation.results.names import display_names
from evaluation.tables.__main__ import make_grids, wanted
from trace_bench import __version__
from trace_bench.run_folder.index import read_index
from trace_bench.run_folder.manifest import utc_now
from trace_bench.run_folder.reading import of_asset
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.text import printable

FOLDER = "report"


def make_report(config: DictConfig, root: Path) -> tuple[Path, list[str]]:
    """Write the report of all runs under an output root; returns the page, and what could not be shown.

    Raises: TraceBenchError if a setting is wrong.
    """
    travels = travelling(config.report)
    metrics = load_metrics(config)
    results = collect(root, metrics)
    index = read_index(root)
    problems = list(results.problems)
    names, order = display_names(results.frame), list(config.tables.order)
    grids = make_grids(wanted(config.table, results), results, metrics, config.tables)
    found = panels(order_methods(results.frame, order)) if len(results.frame) else []
    found.sort(key=lambda panel: -len(panel.frame))
    folder = root / FOLDER
    gallery = make_gallery(found, index.runs, metrics, names, folder, travels)
    judges = judged(root, results.frame, problems)
    runs = [index.runs[name] for name in gallery.folders]
    over = assets_over_the_run(index.runs.values())
    write_scripts(folder, "runs", {
        identity: details(
            run, metrics, judges.answers.get(name, ()), problems, over.get(of_asset(run)), config.report.diff
        )
        for (name, identity), run in zip(gallery.folders.items(), runs, strict=True)
    })  # fmt: skip
    commands, planned = overview.sweeps(root, problems)
    about = overview.parts(runs, names)
    quantities = shown(found, metrics)
    tables = [scrubbed(overview.table(grid)) for grid in grids]
    files = file_names([table["name"] for table in tables if table["long"]])
    write_scripts(folder, "tables", {files[t["name"]]: t["body"] for t in tables if t["long"]})
    problems += gallery.problems
    data: dict[str, Any] = {
        "title": str(config.report.title),
        "made": utc_now(),
        "version": __version__,
        "assets": travels.assets,
        "facts": overview.facts(runs),
        "priors": scrubbed(overview.priors(runs)),
        "about": about,
        "quantities": [overview.quantity_of(quantity) for quantity in quantities],
        "columns": overview.columns(tables, metrics, quantities),
        "prompts": gallery.prompts,
        "panels": scrubbed(gallery.panels),
        "runs": gallery.runs,
        "tables": [
            t | {"body": [], "file": files[t["name"]], "rows": len(t["body"])} if t["long"] else t
            for t in tables
        ],
        "tradeoffs": scrubbed(overview.tradeoffs(found, metrics, names)),
        "unfinished": [
            run | {"why": without_paths(run["why"], root)} for run in overview.unfinished(index, planned)
        ],
        "problems": [without_paths(problem, root) for problem in dict.fromkeys(problems)],
        "commands": commands,
        "judges": list(dict.fromkeys(judges.commands)),
        "bibtex": overview.citations(about, runs, _used(results, metrics), bool(judges.answers), __version__),
    }
    return write_page(data, folder), problems


def travelling(settings: DictConfig) -> Travels:
    """What the settings say of how much travels along."""
    if settings.assets not in (ALL, CHOSEN, NONE):
        raise TraceBenchError(f"report.assets={settings.assets} is unknown: use {ALL}, {CHOSEN} or {NONE}.")
    if not isinstance(settings.diff, bool):
        raise TraceBenchError(f"report.diff={settings.diff} is invalid: use true or false.")
    prompts = settings.prompts
    if not isinstance(prompts, int) or isinstance(prompts, bool) or prompts < 0:
        raise TraceBenchError(f"report.prompts={prompts} is invalid: use a whole number, 0 or more.")
    return Travels(str(settings.assets), prompts)


def _used(results: Results, metrics: Any) -> list[Any]:
    """The metrics that scored a run."""
    frame = results.frame
    return [
        m for name, m in metrics.items() if f"{name}_judge" in frame and frame[f"{name}_judge"].notna().any()
    ]


@command("evaluation")
def main(config: DictConfig) -> int:
    root = output_root(config)
    path, problems = make_report(config, root)
    for problem in problems:
        print(f"Problem: {printable(problem)}")
    print(f"Report: {path}")
    return 1 if problems else 0


if __name__ == "__main__":
    main()
