"""What `make results` makes: stages, each with its sweeps and with the blocks and pictures made from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from scripts.results import costs, coverage, decisions, flow, pictures, toy
from scripts.results.workshop import Sweep, Workshop

Make = Callable[[Workshop, str], str]  # a block from its old text


@dataclass(frozen=True)
class Stage:
    what: str  # one line
    blocks: Mapping[tuple[str, str], Make] = field(default_factory=dict)  # (page, name) -> how it is made
    pictures: Mapping[str, pictures.Draw] = field(
        default_factory=dict
    )  # file in docs/images -> how it is drawn
    sweeps: tuple[Sweep, ...] = ()
    scored: bool = True  # False: no number here is a score
    files: Mapping[str, Callable[[Workshop], str]] = field(default_factory=dict)  # other files -> content


STAGES: Mapping[str, Stage] = {
    "costs": Stage(
        "what a step costs, steps of equal work, GPU hours; counted, without a run",
        {
            ("docs/methods.md", "step-costs"): costs.step_costs,
            ("docs/methods.md", "unit-costs"): costs.unit_costs,
            ("docs/experiments.md", "equal-work"): costs.equal_work,
            ("docs/cluster.md", "gpu-hours"): costs.gpu_hours,
        },
    ),
    "toyworld": Stage(
        "the picture of the toy world, and how many captions were held out",
        {("docs/tiny_world.md", "captions"): toy.captions},
        {"toyworld.png": pictures.toyworld},
    ),
    "statistics": Stage(
        "how often intervals contain the truth, simulated; how many prompts and seeds decide a difference",
        {
            ("docs/statistics.md", "mean-coverage"): coverage.mean_block,
            ("docs/statistics.md", "false-families"): coverage.families_block,
            ("docs/statistics.md", "prompts-needed"): decisions.prompts_needed_block,
            ("docs/statistics.md", "elo-coverage"): coverage.elo_block,
            ("docs/statistics.md", "elo-families"): coverage.elo_families_block,
        },
    ),
    "convergence": Stage(
        "paths of every method on known data", pictures={"convergence.png": pictures.convergence}
    ),
    "controls": Stage(
        "scores of the truth and of assets wrong in one known way",
        {("docs/evaluation.md", "controls"): toy.controls_table},
        files={"evaluation/results/controls.json": toy.controls_file},
        sweeps=(toy.CONTROLS_SWEEP,),
    ),
    "readme": Stage(
        "README's table and contact sheet, and the disk space of a run",
        {("README.md", "toy"): toy.readme_table, ("docs/cluster.md", "disk"): toy.disk_space},
        {"contact_sheet.png": pictures.readme_sheet},
        (toy.README_SWEEP,),
    ),
    "methods": Stage(
        "table and contact sheets of the methods",
        {("docs/methods.md", "toy-methods"): toy.methods_table},
        {"toy_methods.png": pictures.methods_sheet, "toy_methods_newer.png": pictures.newer_sheet},
        (toy.METHODS_SWEEP,),
    ),
    "flow": Stage(
        "diffusion against flow",
        {("docs/methods.md", "toy-flow"): flow.flow_table},
        {"toy_flow.png": pictures.flow_sheet},
        (flow.DIFFUSION_SWEEP, flow.FLOW_SWEEP),
    ),
    "representations": Stage(
        "one prompt by every method in every representation",
        pictures={"methods.png": pictures.representations},
        sweeps=(toy.PICTURES_SWEEP,),
        scored=False,
    ),
    "report": Stage(
        "screenshots of the report of the toy runs; needs a Chromium",
        pictures={f"report_{name}.png": pictures.screenshot for name in ("overview", "gallery", "run")},
        sweeps=(toy.METHODS_SWEEP,),
    ),
    "nerf": Stage(
        "table and seconds of NeRF",
        {
            ("docs/nerf.md", "toy-nerf"): toy.nerf_table,
            ("docs/nerf.md", "toy-nerf-seconds"): toy.nerf_seconds,
        },
        sweeps=(toy.NERF_SWEEP, toy.NERF_PICTURES_SWEEP),
    ),
    "experiments": Stage(
        "the time of each experiment in the toy world",
        {("docs/experiments.md", "toy-times"): toy.experiment_times},
        sweeps=tuple(toy.EXPERIMENT_SWEEPS.values()),
        scored=False,
    ),
    "figures": Stage(
        "every figure of docs/figures.md",
        {("docs/figures.md", "figures"): pictures.gallery},
        {f"figure_{name}.png": pictures.figure for name in pictures.FIGURES},
        tuple(dict.fromkeys(pictures.FIGURES.values())),
    ),
}  # fmt: skip


def make(stage: Stage, shop: Workshop) -> list[str]:
    """Make what is missing and write it; returns the files that changed."""
    for sweep in stage.sweeps:
        shop.make(sweep, stage.scored)
    changed = [name for name, content in stage.files.items() if shop.write_file(name, content(shop))]
    changed += [
        f"{page}: {name}" for (page, name), block in stage.blocks.items() if _written(shop, page, name, block)
    ]
    for name, draw in stage.pictures.items():
        path = shop.folder / "docs" / "images" / name
        before = path.read_bytes() if path.is_file() else b""
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(shop, path)
        if path.read_bytes() != before:
            changed.append(f"docs/images/{name}")
    return changed


def _written(shop: Workshop, page: str, name: str, block: Make) -> bool:
    return shop.write(page, name, lambda old: block(shop, old))
