"""Small real runs for the figures, on the analytic prior: made, scored, judged and voted on in seconds."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from study_folders import answer_file, attentive

from evaluation.figures.__main__ import draw
from evaluation.figures.base import Data, Drawing
from evaluation.gpteval3d import __main__ as gpteval3d
from evaluation.metrics.base import score_path
from evaluation.metrics.load import configured_metrics
from evaluation.metrics.score import score_all
from evaluation.results.collect import collect
from evaluation.results.names import display_names
from evaluation.user_study import __main__ as user_study
from evaluation.user_study.study import load_study
from trace_bench.run_folder.index import read_index
from trace_bench.run_folder.reading import Run, read_json
from trace_bench.runs.run import make_asset
from trace_bench.sweeps.planning import make_plan
from trace_bench.system.config_path import conf_dir

CONF = str(Path(__file__).resolve().parents[2] / "conf")
STEPS, VIEWS, PX = 4, 4, 32
SMALL = [
    "prior=analytic", f"steps={STEPS}", "log_every=1", f"rig.n_views={VIEWS}", f"rig.resolution={PX}",
    "resolution=8", "views_per_step=1",
]  # fmt: skip
GAUSSIANS = ["representation=gaussians", "init=toy_coarse"]
NERF = [
    "representation=nerf", "representation.hash_grid.levels=3", "representation.hash_grid.log2_size=10",
    "representation.samples_per_ray=48", "representation.occupancy.resolution=12",
    "representation.mesh.resolution=16",
]  # fmt: skip
METRICS = ["ground_truth"]
KEPT = {"method", "method.control", "prompt_set", "prompt", "rig.n_views", "rig.resolution", "output_root"}


def make(root: Path, *overrides: str) -> list[Path]:
    """Make the runs of a sweep."""
    asked = [*SMALL, *overrides, f"output_root={root}"]
    if "method=control" in overrides:  # distils nothing
        asked = [word for word in asked if word.partition("=")[0] in KEPT]
    outcomes = [make_asset(run) for run in make_plan(asked, multirun=True, config_dir=CONF)]
    assert [o.message for o in outcomes if o.status not in ("done", "skipped")] == []
    return [outcome.folder for outcome in outcomes]


def score(root: Path) -> None:
    """Score all runs and the renders of their single steps."""
    runs = [run for run in read_index(root).runs.values() if run.manifest.status == "done"]
    runs += [step for run in runs for step in run.steps_rendered.values()]
    assert score_all(runs, configured_metrics(METRICS)).problems == []


@contextmanager
def command_line(*words: str) -> Iterator[None]:
    before, sys.argv = sys.argv, list(words)
    try:
        yield
    finally:
        sys.argv = before


def methods_beside_each_other(root: Path) -> None:
    """Six methods with renders of single steps and snapshots; a tournament, and a study of two raters."""
    root.mkdir(parents=True)
    (root / "two.txt").write_text("a red cube\na blue torus\n")
    toy = ["prompt_set=file", f"prompt_set.file={root / 'two.txt'}", "prompt=0,1", *GAUSSIANS]
    make(root, "method=sds,vsd,trace", "seed=0,1", "renders_at=[0,2]", *toy)
    make(root, "method=csd,sdi,ism", *toy)
    against = ["+method@snapshots.against.sds=sds", "snapshots.against.sds.negative_prompt=''"]
    make(root, "method=trace", "snapshots.steps=[0,3]", *against, *toy)
    score(root)
    with command_line("evaluation.gpteval3d", f"output_root={root}", "judge=truth", "runs.prompts=2"):
        gpteval3d.main()
    with command_line(
        "evaluation.user_study", f"output_root={root}", "baselines=[sds,vsd]", "raters=2", "per_rater=null"
    ):
        user_study.main()
    study = load_study(root / "user_study" / "main")
    for rater in study.raters:
        answer_file(root / "answers" / f"{rater}.json", study, rater, attentive())
    with command_line(
        "evaluation.user_study", f"output_root={root}", "mode=import", f"answers={root / 'answers'}",
        "bootstrap.replicates=100",
    ):  # fmt: skip
        user_study.main()


def other_sweeps(root: Path) -> None:
    """A guidance sweep, images, NeRFs, native guesses, view phrases and controls."""
    make(root, "method=trace", "guidance_scale=5,10,20", "seed=0,1", "prompt_set=toy", "prompt=0", *GAUSSIANS)
    native = ["method=trace", "prompt_set=toy", "prompt=1", "representation=gaussians"]
    make(root, *native, "init=toy_coarse", "steps=1")
    make(root, *native, "init=toy_coarse")
    make(root, *native, "init=random", "init.n=200")
    make(root, "method=sds,vsd,trace", "prompt_set=toy", "prompt=2", *NERF)
    make(root, "method=sds,csd,vsd,trace", "prompt_set=toy", "prompt=3", "representation=image")
    phrases = ["prompt_set=toy_janus", "prompt=0,1", *GAUSSIANS]
    make(root, "method=sds,ism", "view_phrases=true,false", *phrases)
    make(root, "method=ism", "method.perp_neg=true", *phrases)
    make(root, "method=gaussiandreamer,trace", "prompt_set=toy", "prompt=4", *GAUSSIANS)
    make(root, "method=control", "method.control=truth,turned,half", "prompt_set=toy", "prompt=0,1")
    score(root)


class Figures:
    """Draws the figures of conf/figure/ from an output root, as `python -m evaluation.figures` does."""

    def __init__(self, root: Path) -> None:
        metrics = configured_metrics(METRICS)
        self.root, self.results = root, collect(root, metrics)
        assert self.results.problems == []
        order = list(composed().tables.order)
        self.data = Data(self.results, metrics, display_names(self.results.frame), order, root)
        self.runs = list(read_index(root).runs.values())

    def draw(self, name: str, **changes: Any) -> Drawing:
        drawing = draw(name, settings_of(name) | changes, self.data)
        drawing.figure.draw_without_rendering()
        return drawing

    def run(self, method: str, prompt: str = "0", **identity: Any) -> Run:
        """A run with this identity, with renders of single steps if there is one."""
        wanted = {"method": method, "prompt_id": prompt, "seed": 0} | identity
        found = [run for run in self.runs if all(getattr(run.identity, k) == v for k, v in wanted.items())]
        return min(found, key=lambda run: (not run.steps_rendered, str(run.folder)))


def value(run: Run, quantity: str = "match") -> float:
    """A number from the score file of a run, or of the renders of a step."""
    return float(read_json(score_path(run, "ground_truth"))["values"][quantity])


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        return compose("evaluation", overrides=list(overrides))


def settings_of(name: str) -> dict[str, Any]:
    """The settings of conf/figure/<name>.yaml."""
    from omegaconf import OmegaConf

    config = composed(f"figure=[{name}]")
    return OmegaConf.to_container(config.figures[name], resolve=True)  # type: ignore[return-value]


def pictures(drawing: Drawing) -> Sequence[Any]:
    """The pictures of a grid, row by row."""
    axes = [a for a in drawing.figure.axes if a.images]
    axes.sort(key=lambda a: (-round(a.get_position().y0, 3), a.get_position().x0))
    return [a.images[0].get_array() for a in axes]


def texts(drawing: Drawing) -> list[str]:
    """Headings and labels beside the pictures."""
    return [text.get_text() for text in drawing.figure.texts]
