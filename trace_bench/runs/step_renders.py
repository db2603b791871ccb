"""Renders of the evaluation rig after chosen numbers of steps, to score an asset while it is made.

Rendering changes neither the asset nor the counted work; its time belongs to the phase `render`.
"""

from __future__ import annotations

from pathlib import Path

from trace_bench.cameras import EvaluationRig
from trace_bench.methods.base import Method
from trace_bench.priors.base import Prior, Work
from trace_bench.representations.base import Representation
from trace_bench.run_folder.reading import STEP, STEP_RENDERS
from trace_bench.run_folder.rendering import Away, OnViews, write_bare_renders
from trace_bench.runs.build import tflop_of
from trace_bench.runs.snapshots import uncounted
from trace_bench.settings.config import Job
from trace_bench.system.files import write_json


class StepRenders:
    """Writes renders_at/<steps>/renders/ and, when they are complete, renders_at/<steps>/step.json.

    step.json: `step`, the number of steps done; `cost`, the work counted until then; `tflop`, the same in
    10^12 operations, null if the prior cannot count them. Numbers after the end of the run are ignored.
    """

    def __init__(self, folder: Path, job: Job, away: Away) -> None:
        self.away = away
        self.folder, self.steps = folder / STEP_RENDERS, set(job.renders_at)
        self.rig = EvaluationRig(**job.rig)

    def is_due(self, step: int) -> bool:
        """Whether renders after these many steps were requested."""
        return step in self.steps

    def __call__(
        self,
        step: int,
        representation: Representation,
        prior: Prior,
        work: Work,
        method: Method,
        on_views: OnViews,
    ) -> None:
        """Render the asset after `step` steps."""
        folder = self._path(step)
        folder.mkdir(parents=True, exist_ok=True)
        with uncounted(prior.counter):
            write_bare_renders(
                representation, self.rig, prior.decode, prior.device, folder, on_views, self.away
            )
            tflop = tflop_of(prior, work, method)
        record = {"step": step, "cost": work.as_dict(), "tflop": tflop}
        write_json(folder / STEP, record)

    def files(self) -> list[str]:
        """The files that exist, relative to the run folder."""
        found = []
        for step in sorted(self.steps):
            folder = self._path(step)
            if (folder / STEP).is_file():
                paths = [folder / STEP, *sorted((folder / "renders").iterdir())]
                found += [path.relative_to(self.folder.parent).as_posix() for path in paths]
        return found

    def _path(self, step: int) -> Path:
        return self.folder / f"{step:05d}"
