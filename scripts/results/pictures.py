"""The pictures of README.md and docs/."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

from PIL import Image

from evaluation.figures.__main__ import draw
from evaluation.figures.base import Data, save
from evaluation.figures.contact_sheet import make_sheet
from evaluation.figures.drawing import draw_sheet
from evaluation.results.names import display_names
from scripts.draw_methods import sheet
from scripts.results.document import paragraph
from scripts.results.flow import FLOW_SWEEP
from scripts.results.toy import (
    CONTROLS_SWEEP,
    EXPERIMENT_SWEEPS,
    LABELS,
    METHODS_SWEEP,
    MUSHROOM,
    NEWER,
    PAPER,
    PICTURES_SWEEP,
    README_SWEEP,
    experiment,
    panel_of,
)
from scripts.results.workshop import METRICS, Sweep, Workshop, figure_settings
from trace_bench.system.errors import TraceBenchError

#: The figures that docs/figures.md shows, and the sweep that each is drawn from.
FIGURES: Mapping[str, Sweep] = {
    **{name: EXPERIMENT_SWEEPS[name] for name in ("cfg_ablation", "nerf_qualitative", "coco2d", "gradients")},
    **{name: EXPERIMENT_SWEEPS[name] for name in ("diversity", "native3d", "gaussiandreamer")},
    **{name: experiment(name) for name in ("versus_vsd", "versus_sdi", "versus_csd", "versus_ism")},
    "convergence": experiment("convergence"),
    "preference": METHODS_SWEEP,
    "elo": METHODS_SWEEP,
    "controls": CONTROLS_SWEEP,
    "judge_validity": METHODS_SWEEP,
    "pareto": METHODS_SWEEP,
}
Draw = Callable[[Workshop, Path], None]


def _contact_sheet(
    shop: Workshop,
    sweep: Sweep,
    tile: int,
    without: str | None = None,
    methods: Collection[str] | None = None,
) -> Image.Image:
    """Rows are prompts, columns the truth and the methods of a sweep, or only some of them.

    without: a view to leave out.
    """
    results = shop.results(sweep)
    if methods is not None:
        results = replace(results, frame=results.frame[results.frame["method"].isin(methods)])
    panel = panel_of(shop, results)
    config = shop.config.contact_sheet
    views = {name: azimuth for name, azimuth in config.views.items() if name != without}
    made = make_sheet(panel, shop.output_root, views, config.prompts, len(LABELS))
    if made.problems:
        raise TraceBenchError(made.problems[0])
    title = f"Prompt set {panel.title}, prior {panel.prior}"
    return draw_sheet(title, made.prompts, made.columns, list(views), tile, made.note)


def readme_sheet(shop: Workshop, file: Path) -> None:
    _contact_sheet(shop, README_SWEEP, 80).save(file, optimize=True)


def methods_sheet(shop: Workshop, file: Path) -> None:
    _small(_contact_sheet(shop, METHODS_SWEEP, 64, without="side", methods=PAPER), file)


def newer_sheet(shop: Workshop, file: Path) -> None:
    _small(_contact_sheet(shop, METHODS_SWEEP, 64, without="side", methods=NEWER), file)


def flow_sheet(shop: Workshop, file: Path) -> None:
    _small(_contact_sheet(shop, FLOW_SWEEP, 64, without="side"), file)


def representations(shop: Workshop, file: Path) -> None:
    """One prompt by every method in every representation."""
    runs = {(run.identity.method, run.identity.representation): run for run in shop.runs(PICTURES_SWEEP)}
    _small(sheet(MUSHROOM, runs, sorted(LABELS), 96), file)


def toyworld(shop: Workshop, file: Path) -> None:
    shop.script("draw_toyworld.py", "--out", str(file))


def convergence(shop: Workshop, file: Path) -> None:
    shop.script("draw_convergence.py", "--out", str(file), "--paths", str(shop.output_root / "convergence"))


@cache
def _figures(shop: Workshop) -> Path:
    """The figures, each of the runs of its own sweep, after a tournament and its validity."""
    alone = _methods_alone(shop)
    alone.command("evaluation.gpteval3d", "judge=clip", METRICS)
    alone.command("evaluation.judge_validity", METRICS)
    folder = shop.output_root / "figures"
    for name, sweep in FIGURES.items():
        part = alone if sweep == METHODS_SWEEP else shop
        results = part.results(sweep)
        names = display_names(results.frame)
        data = Data(results, part.metrics, names, list(part.config.tables.order), part.output_root)
        save(draw(name, figure_settings(name), data), folder, name)
    return folder


def figure(shop: Workshop, file: Path) -> None:
    """The picture figure_<name>.png."""
    name = file.stem.removeprefix("figure_")
    with Image.open(_figures(shop) / f"{name}.png") as image:
        _small(image.convert("RGB"), file)


def gallery(shop: Workshop, _old: str) -> str:
    """docs/figures.md: every figure with its caption."""
    folder = _figures(shop)
    return "\n\n".join(f"### `{name}`\n\n{_with_caption(folder, name)}" for name in FIGURES)


def _with_caption(folder: Path, name: str) -> str:
    text = (folder / f"{name}.txt").read_text(encoding="utf-8")
    lines = "\n\n".join(paragraph(line) for line in text.splitlines() if line)
    return f"![{name}](images/figure_{name}.png)\n\n{lines}"


@cache
def _methods_alone(shop: Workshop) -> Workshop:
    """An output root with links to the runs of the methods' table and nothing else."""
    alone = replace(shop, output_root=shop.output_root / "of_methods")
    shutil.rmtree(alone.output_root, ignore_errors=True)
    for run in shop.runs(METHODS_SWEEP):
        link = alone.output_root / run.folder.relative_to(shop.output_root)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(run.folder)
    return alone


@cache
def _report(shop: Workshop) -> Path:
    """The report of the runs of the methods' table, and its screenshots; once for the three pictures."""
    alone = _methods_alone(shop)
    alone.command("evaluation.report", METRICS)
    shots = alone.output_root / "screenshots"
    alone.script("shoot_report.py", str(alone.output_root / "report"), str(shots))
    return shots


def screenshot(shop: Workshop, file: Path) -> None:
    shutil.copyfile(_report(shop) / file.name, file)


def _small(image: Image.Image, file: Path) -> None:
    """Save with 256 colours, which is a third of the size; rare colours keep their own."""
    palette = image.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE)
    palette.save(file, optimize=True)
