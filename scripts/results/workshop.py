"""Where results are made: a folder of pages to write, a folder of runs, and the commands between them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path

import pandas as pd
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from evaluation.metrics.base import Metric
from evaluation.metrics.load import load_metrics
from evaluation.metrics.score import score_all
from evaluation.results.collect import Results, collect
from scripts.results.document import keep_times, replace_block
from trace_bench.run_folder.index import failure, read_index
from trace_bench.run_folder.reading import Run
from trace_bench.runs.identity import RunSpec
from trace_bench.settings.typed_text import readable_overrides
from trace_bench.sweeps.planning import make_plan
from trace_bench.system.config_path import conf_dir
from trace_bench.system.errors import TraceBenchError

ROOT = Path(__file__).resolve().parents[2]
METRICS = "metric=[ground_truth,clip_score]"
_WORDS = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
Sweep = tuple[str, ...]


def word(count: int) -> str:
    """A count in words, up to ten."""
    return _WORDS[count] if count < len(_WORDS) else str(count)


@dataclass(frozen=True)
class Workshop:
    """Settings of one call of the command."""

    folder: Path  # holds README.md and docs/
    output_root: Path  # holds the runs
    overrides: tuple[str, ...] = ()  # added to every sweep
    times: bool = True  # False: leave what depends on the machine as it is
    failures: bool = False  # True: a run that failed by its method or settings is a result, and is left out

    def command(self, module: str, *arguments: str) -> None:
        """Run one of our own commands; its output is the user's to see."""
        self._call("-m", module, *arguments, f"output_root={self.output_root}")

    def script(self, name: str, *arguments: str) -> None:
        """Run a script of scripts/."""
        self._call(str(ROOT / "scripts" / name), *arguments)

    def _call(self, *arguments: str) -> None:
        done = subprocess.run([sys.executable, *arguments], cwd=ROOT, check=False)
        if done.returncode:
            raise TraceBenchError(
                f"{' '.join(['python', *arguments])} ended with {done.returncode}; the pages are as before."
            )

    def plan(self, sweep: Sweep) -> list[RunSpec]:
        """The runs that a sweep asks for."""
        return _plan((*sweep, *self.overrides, f"output_root={self.output_root}"))

    def make(self, sweep: Sweep, scored: bool = True) -> None:
        """Make the runs of a sweep that are missing, then the scores that are missing."""
        names = self._names(sweep)
        missing = names.keys() - self.done().keys() - self.failed(sweep).keys()
        print(f"{' '.join(sweep)}: {len(names) - len(missing)} of {len(names)} runs are there", flush=True)
        if missing:
            try:
                self.command("trace_bench", "-m", *sweep, *self.overrides, "hydra/launcher=local")
            except TraceBenchError:
                if not self.failed(sweep):
                    raise
        if scored:
            self._score(sweep)

    def _score(self, sweep: Sweep) -> None:
        """Compute the scores that are missing, or that are of other settings or weights: all metrics of the
        runs, and the ground truth of renders after single steps, which is all that a figure shows of them."""
        runs = self.runs(sweep)
        steps = [step for run in runs for step in run.steps_rendered.values()]
        of_steps = {"ground_truth": self.metrics["ground_truth"]}
        problems = score_all(runs, self.metrics).problems
        problems += score_all(steps, of_steps, what="steps").problems
        if problems:
            raise TraceBenchError(problems[0])

    def runs(self, sweep: Sweep) -> list[Run]:
        """The finished runs of a sweep, in its order; all must be there, but for those of `failed`."""
        done, failed = self.done(), self.failed(sweep)
        names = [name for name in self._names(sweep) if name not in failed]
        if missing := [name for name in names if name not in done]:
            raise TraceBenchError(f"{self.output_root / missing[0]} is not finished, but should be.")
        return [done[name] for name in names]

    def failed(self, sweep: Sweep) -> dict[str, tuple[Run, str]]:
        """With `failures`, the runs of a sweep that a TraceBenchError ended, and why; else none."""
        if not self.failures:
            return {}
        names, kind, found = self._names(sweep), f"{TraceBenchError.__name__}: ", {}
        for name, run in read_index(self.output_root).runs.items():
            if name in names and run.manifest.status == "failed":
                why = failure(run.folder)
                if why.startswith(kind):
                    found[name] = run, why.removeprefix(kind)
        return found

    def results(self, sweep: Sweep) -> Results:
        """The tidy frame of a sweep alone; all its runs must be there."""
        self.runs(sweep)
        everything, names = collect(self.output_root, self.metrics), self._names(sweep).keys()

        def is_mine(folder: str) -> bool:  # of a run, or of the renders of a step in it
            return not names.isdisjoint([folder, *map(str, Path(folder).parents)])

        def mine(frame: pd.DataFrame) -> pd.DataFrame:
            return frame if frame.empty else frame[frame["folder"].map(is_mine)].reset_index(drop=True)

        return replace(
            everything,
            frame=mine(everything.frame),
            controls=mine(everything.controls),
            steps=mine(everything.steps),
        )

    def write_file(self, name: str, content: str) -> bool:
        """Write a file of results; True if that changed it."""
        path = self.folder / name
        before = path.read_text(encoding="utf-8") if path.is_file() else ""
        if content != before:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
        return content != before

    def write(self, page: str, block: str, make: Callable[[str], str]) -> bool:
        """Make one block of a page anew; True if that changed it."""
        path = self.folder / page
        before = path.read_text(encoding="utf-8")
        after = replace_block(
            before, block, lambda old: make(old) if self.times else keep_times(old, make(old))
        )
        if after != before:
            path.write_text(after, encoding="utf-8")
        return after != before

    def _names(self, sweep: Sweep) -> dict[str, None]:
        root = self.output_root.absolute()  # run folders may be links
        return {str(run.folder.absolute().relative_to(root)): None for run in self.plan(sweep)}

    def done(self) -> dict[str, Run]:
        found = read_index(self.output_root).runs
        return {name: run for name, run in found.items() if run.manifest.status == "done"}

    @cached_property
    def config(self) -> DictConfig:
        """conf/evaluation.yaml."""
        return _evaluation()

    @cached_property
    def metrics(self) -> dict[str, Metric]:
        return load_metrics(self.config)


@cache
def _plan(asked: tuple[str, ...]) -> list[RunSpec]:
    return make_plan(readable_overrides(asked, multirun=True), multirun=True)


@cache
def _evaluation(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("evaluation", overrides=[METRICS, *overrides])


def machine(runs: Sequence[Run]) -> str:
    """Where runs were made, as far as it matters for their time."""
    gpus = {str(run.manifest.environment["gpu"]) for run in runs if run.manifest.environment.get("gpu")}
    if gpus:
        return " and ".join(f"one {gpu}" for gpu in sorted(gpus))
    counts = sorted({int(run.manifest.environment["cpus"]) for run in runs})
    if counts == [1]:
        return "one core"
    cores = " or ".join(word(count) for count in counts)
    lanes = sorted({run.manifest.lanes for run in runs})
    beside = "one run" if lanes == [1] else f"{' or '.join(map(word, lanes))} runs side by side"
    return f"{cores} cores, with {beside} on each core"


def figure_settings(name: str) -> dict[str, object]:
    """conf/figure/<name>.yaml."""
    return settings(_evaluation(f"figure=[{name}]").figures, name)


def settings(config: DictConfig, key: str) -> dict[str, object]:
    """A node of the config as plain data."""
    return OmegaConf.to_container(config[key], resolve=True)  # type: ignore[return-value]
