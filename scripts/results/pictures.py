"""The pictures of README.md and docs/."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import cache
from pathlib import Path

from PIL import Image

from evaluation.figures.contact_sheet import make_sheet
from evaluation.figures.drawing import draw_sheet
from scripts.draw_methods import sheet
from scripts.results.document import paragraph
from scripts.results.flow import FLOW_SWEEP
from scripts.results.toy import (
    LABELS,
    METHODS_SWEEP,
    MUSHROOM,
    NEWER,
    PAPER,
    PICTURES_SWEEP,
    README_SWEEP,
    panel_of,
)
from scripts.results.workshop import METRICS, Sweep, Workshop
from trace_bench.system.errors import TraceBenchError

#: The figures that docs/figures.md shows.
FIGURES = (
    "cfg_ablation", "nerf_qualitative", "coco2d", "gradients", "diversity", "native3d", "gaussiandreamer",
    "versus_vsd", "versus_sdi", "versus_csd", "versus_ism", "convergence", "elo", "controls",
    "judge_validity", "pareto",
)  # fmt: skip
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
    """The figures of all runs, after what some need besides scores: a tournament and its validity."""
    shop.command(
        "evaluation.gpteval3d",
        "judge=clip",
        "runs.prompt_set=toy",
        "runs.prior=tiny",
        "runs.representation=gaussians",
        METRICS,
    )
    shop.command("evaluation.judge_validity", METRICS)
    shop.command("evaluation.figures", f"figure=[{','.join(FIGURES)}]", METRICS)
    return shop.output_root / "figures"


def figure(shop: Workshop, file: Path) -> None:
    """The picture figure_<name>.png."""
    name = file.stem.removeprefix("figure_")
    made = _figures(shop) / f"{name}.png"
    if not made.is_file():
        raise TraceBenchError(f"{made} was not drawn; `python -m evaluation.figures` said why, above.")
    with Image.open(made) as image:
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
def _report(shop: Workshop) -> Path:
    """The report of the runs of the methods' table, and its screenshots; once for the three pictures."""
    alone = replace(shop, output_root=shop.output_root / "of_methods")
    shutil.rmtree(alone.output_root, ignore_errors=True)
    for run in shop.runs(METHODS_SWEEP):
        link = alone.output_root / run.folder.relative_to(shop.output_root)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(run.folder)
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
