"""Tables and numbers of the toy world, from the tidy frame of a sweep."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import pandas as pd

from evaluation.metrics.base import Quantity
from evaluation.results.aggregate import (
    COST,
    OPTIMISED,
    Cell,
    Panel,
    Row,
    method_table,
    on_same_prompts,
    optimised_note,
    order_methods,
    panels,
)
from evaluation.results.collect import Results
from evaluation.results.controls import TRUTH, to_json
from evaluation.results.names import display_names
from evaluation.statistics.multiple import can_decide, holm
from evaluation.statistics.paired import ALPHA, paired_difference
from evaluation.tables import formats
from evaluation.tables.formats import raised
from evaluation.tables.method_tables import make_tables
from scripts.results.document import cells, fill_table, paragraph
from scripts.results.workshop import Sweep, Workshop, machine, word
from trace_bench.run_folder.reading import Run
from trace_bench.system.errors import TraceBenchError
from trace_bench.toyworld import all_captions, held_out_prompts

#: What docs/ call the methods, in the order of their rows.
PAPER: Mapping[str, str] = {
    "sds": "SDS",
    "csd": "CSD",
    "vsd": "VSD",
    "sdi": "SDI",
    "ism": "ISM",
    "trace": "TraCe",
    "trace_official": "TraCe (released)",
    "trace_official_trained": "TraCe (released, trained)",
    "consistent3d": "Consistent3D",
    "dreamer_xl": "Dreamer XL (TSM on the tiny prior)",
}
NEWER: Mapping[str, str] = {
    "nfsd": "NFSD",
    "bsd": "BSD",
    "asd": "ASD",
    "sctd": "SCTD",
    "sds_bridge": "SDS-Bridge",
    "cfd": "CFD",
    "reward_sds": "RewardSDS",
}
LABELS: Mapping[str, str] = {**PAPER, **NEWER}
MUSHROOM = "a red mushroom"
CONTROLS_SWEEP: Sweep = ("experiment=controls",)
README_SWEEP: Sweep = ("method=sds,vsd,trace", "prompt_set=toy")
METHODS_SWEEP: Sweep = (f"method={','.join(LABELS)}", "prompt_set=toy")
NERF_SWEEP: Sweep = ("experiment=table7", "prior=tiny")
PICTURES_SWEEP: Sweep = (
    f"method={','.join(LABELS)}",
    "representation=gaussians,nerf,image",
    f"prompt={MUSHROOM}",
)
NERF_PICTURES_SWEEP: Sweep = (f"method={','.join(LABELS)}", "representation=nerf", f"prompt={MUSHROOM}")
EXPERIMENTS = (
    "gradients", "native3d", "gaussiandreamer", "diversity", "nerf_qualitative", "coco2d", "cfg_ablation",
    "table4", "table7",
)  # fmt: skip


def experiment(name: str) -> Sweep:
    """The sweep of conf/experiment/<name>.yaml in the toy world."""
    return (f"experiment={name}", "prior=tiny")


EXPERIMENT_SWEEPS: Mapping[str, Sweep] = {name: experiment(name) for name in EXPERIMENTS}


def panel_of(shop: Workshop, results: Results) -> Panel:
    """The one panel of a sweep, its methods in the order of the tables."""
    (panel,) = panels(order_methods(results.frame, list(shop.config.tables.order)))
    return panel


def readme_table(shop: Workshop, _old: str) -> str:
    """README.md: the table of methods as `python -m evaluation.tables tables.controls=best` prints it."""
    results = shop.results(README_SWEEP)
    tables = make_tables(
        results, shop.metrics, display_names(results.frame), list(shop.config.tables.order), controls="best",
        kinds=("methods",),
    )  # fmt: skip
    grid = formats.grid(tables[0])
    table = formats.markdown(replace(grid, caption="", notes=[])).strip("\n")
    on = machine(shop.runs(README_SWEEP))
    below = paragraph(
        "The last two rows, italic and bold are as in the first table. Match is the number to look at first; "
        "`docs/statistics.md` says when a difference is decided."
    )
    return f"{table}\n\n{below}\n\n" + paragraph(
        "Minutes are those of init, distilling and rendering, per run, on "
        f"{on}: each run's share of its process's time (`docs/lanes.md`)."
    )


def controls_file(shop: Workshop) -> str:
    """evaluation/results/controls.json: what tables know of the controls without running them."""
    return to_json(shop.results(CONTROLS_SWEEP).controls, shop.metrics)


def controls_table(shop: Workshop, _old: str) -> str:
    """docs/evaluation.md: every number of every control, as means over the prompts."""
    controls = shop.results(CONTROLS_SWEEP).controls
    controls = controls.sort_values("control", key=lambda names: names != TRUTH, kind="stable")
    quantities = [q for metric in shop.metrics.values() for q in metric.quantities]
    columns = {q.label: q for q in quantities}
    lines = [f"| control | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}"]
    for name, runs in controls.groupby("display_name", sort=False):
        cells = [_mean(runs[q.name], q) for q in quantities]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean(values: pd.Series, quantity: Quantity) -> str:
    """Over the runs that have the number; k/n of a count."""
    known = values.dropna()
    if known.empty:
        return "—"
    if quantity.kind == "count":
        return f"{int(known.sum())}/{len(known)}"
    return f"{known.mean():.{quantity.decimals}f}"


def disk_space(shop: Workshop, _old: str) -> str:
    """docs/cluster.md: megabytes and files of a run, and what follows for 660 runs of 512 pixels."""
    runs, planned, side = shop.runs(README_SWEEP), 660, 512
    files = [path for run in runs for path in run.folder.rglob("*") if path.is_file()]
    megabytes = sum(path.stat().st_size for path in files) / len(runs) / 1e6
    pixels = int(runs[0].manifest.rig["resolution"])
    times = (side / pixels) ** 2
    total = planned * megabytes * times / 1000
    return paragraph(
        f"On average, a toy run ({pixels} pixels) has {megabytes:.1f} MB. At {side} pixels expect "
        f"{times:.0f} times that: {megabytes * times:.0f} MB per run, and {_two(total)} GB and "
        f"{_two(planned * len(files) / len(runs))} files for {planned} runs."
    )


def _two(value: float) -> str:
    """Two significant digits, with commas."""
    if value == 0:
        return "0"
    return f"{round(value, 1 - math.floor(math.log10(abs(value)))):,.0f}"


def methods_table(shop: Workshop, old: str) -> str:
    """docs/methods.md: scores and costs of the methods, and how many differences are decided."""
    rows = rows_of(shop, METHODS_SWEEP)
    runs = shop.runs(METHODS_SWEEP)
    seconds = {run.identity.method: [_seconds(run)] for run in runs if run.prompt == MUSHROOM}
    values = _values(rows, seconds)
    head = _table(old).splitlines()[:2]
    lines = [[label, *(values[label][column] for column in cells(head[0])[1:])] for label in LABELS.values()]
    table = "\n".join([*head, *(f"| {' | '.join(line)} |" for line in lines)])
    own = optimised_note([cell for row in rows.values() for cell in row.cells])
    table += "".join(f"\n\n{paragraph(note.replace(f'({OPTIMISED})', raised(OPTIMISED)))}" for note in own)
    seconds_text = paragraph(
        f"Seconds are those of the mushroom's run on {machine(runs)}, including turntable and "
        f"{runs[0].manifest.rig['n_views']} views."
    )
    return f"{table}\n\n{_differences(rows)}\n\n{seconds_text}"


def nerf_table(shop: Workshop, old: str) -> str:
    """docs/nerf.md: the match of NeRF, and the seconds of the fastest and the slowest run."""
    runs = shop.runs(NERF_SWEEP)
    seconds: dict[str, list[float]] = {}
    for run in runs:
        seconds.setdefault(run.identity.method, []).append(_seconds(run))
    values = _values(rows_of(shop, NERF_SWEEP), seconds)
    columns = ("Match ↑", "recognised", "seconds")
    return fill_table(_table(old), {name: {key: row[key] for key in columns} for name, row in values.items()})


def nerf_seconds(shop: Workshop, _old: str) -> str:
    """docs/nerf.md: how long a run takes with the methods that table 7 does not have."""
    swept = {run.identity.method for run in shop.runs(NERF_SWEEP)}
    runs = shop.runs(NERF_PICTURES_SWEEP)
    others = sorted((run for run in runs if run.identity.method not in swept), key=_seconds)
    *rest, slowest = others
    rig = slowest.manifest.rig
    per_step = (slowest.manifest.cost["unet_fwd"] or 0) / (
        slowest.identity.steps * slowest.identity.views_per_step
    )
    return paragraph(
        f"Times on {machine(runs)}, including {rig['n_views']} pictures of {rig['resolution']} pixels and "
        f"the mesh. With the other methods, {MUSHROOM} takes at most {_seconds(rest[-1]):.0f} s; only "
        f"{LABELS[slowest.identity.method]} takes longer, {_seconds(slowest):.0f} s for its {per_step:.0f} "
        "UNet items per step."
    )


def experiment_times(shop: Workshop, _old: str) -> str:
    """docs/experiments.md: the time of each experiment, as the time of its runs shared by the cores."""
    found: dict[str, float] = {}
    everything: list[Run] = []
    for name, sweep in EXPERIMENT_SWEEPS.items():
        runs = shop.runs(sweep)
        everything += runs
        workers = 1 if runs[0].manifest.environment.get("gpu") else int(runs[0].manifest.environment["cpus"])
        found[name] = max(sum(map(_total, runs)) / workers, *map(_total, runs))
    spans = [
        f"`{name}` {_span(seconds)}" for name, seconds in sorted(found.items(), key=lambda item: item[1])
    ]
    return paragraph(
        f"Times with `prior=tiny` and this launcher, on {machine(everything)}: {', '.join(spans)}."
    )


def captions(_shop: Workshop, _old: str) -> str:
    """docs/tiny_world.md: how many captions were held out."""
    return f"These are {len(held_out_prompts())} of {len(all_captions()):,} captions."


def _seconds(run: Run) -> float:
    """Of init, distilling and rendering; the run's share where several were made side by side."""
    return 60.0 * (run.manifest.minutes or run.manifest.minutes_shared or 0.0)


def _total(run: Run) -> float:
    """Wall-clock time, loading included."""
    return float(run.manifest.seconds["total"])


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _table(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if line.startswith("|"))


def rows_of(shop: Workshop, sweep: Sweep) -> dict[str, Row]:
    """Means over the prompts, by method; each must be complete."""
    results = shop.results(sweep)
    panel = panel_of(shop, results)
    quantities = [q for metric in shop.metrics.values() for q in metric.quantities]
    table = method_table(panel, [*quantities, *COST], display_names(results.frame))
    return {str(row.key["method"]): row for row in table.rows}


def cell_of(row: Row, name: str) -> Cell:
    cell = next(cell for cell in row.cells if cell.quantity.name == name)
    if not cell.complete:
        raise TraceBenchError(
            f"{row.labels['method']} has {name} for {cell.n} of {cell.expected} prompts only."
        )
    return cell


def _values(rows: Mapping[str, Row], seconds: Mapping[str, Sequence[float]]) -> dict[str, dict[str, str]]:
    """What the columns of a table of docs/ show."""
    columns = {"Match ↑": "match", "IoU ↑": "soft_iou", "ΔE ↓": "colour_error", "CLIP ↑": "clip_score",
               "recognised": "recognised", "UNet items": "unet_items"}  # fmt: skip
    values = {}
    for method, row in rows.items():
        shown = {column: cell_of(row, name) for column, name in columns.items()}
        texts = {column: formats.cell_text(cell) + raised(cell.marks) for column, cell in shown.items()}
        low, high = f"{min(seconds[method]):.0f}", f"{max(seconds[method]):.0f}"
        values[LABELS[method]] = texts | {"seconds": low if low == high else f"{low} to {high}"}
    return values


def _differences(rows: Mapping[str, Row]) -> str:
    """How many pairs of methods the prompts tell apart by the match, and the lead of the best number."""
    match = {method: cell_of(row, "match") for method, row in rows.items()}
    pairs = list(combinations(match, 2))
    gaps = [paired_difference(*on_same_prompts(match[a], match[b])) for a, b in pairs]
    decided = sum(p <= ALPHA for p in holm([gap.p for gap in gaps]))
    prompts = match[next(iter(match))].expected
    best, second = sorted(match, key=lambda method: -match[method].mean)[:2]
    lead = paired_difference(*on_same_prompts(match[best], match[second]))
    names = [LABELS[method].partition(" (")[0] for method in (best, second)]
    how = f"{decided} of the {len(pairs)} differences between methods in Match are decided"
    if not can_decide(prompts, len(pairs)):
        how += f"; {word(prompts)} prompts cannot decide any among so many pairs (`docs/statistics.md`)"
    return paragraph(
        f"With {word(prompts)} prompts, {how}. {names[0]}'s lead over {names[1]} is {lead.mean:.3f} "
        f"(95 % interval of this difference alone: {lead.low:.3f} to {lead.high:.3f})."
    )
