"""One asset: skip, resume or make it, and leave a folder that records the outcome."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from PIL import Image

from trace_bench.cameras import CameraRange, EvaluationRig
from trace_bench.distill import NonFiniteError, Observation, distill
from trace_bench.external.assets import External
from trace_bench.external.controls import ControlAsset
from trace_bench.methods.base import Method
from trace_bench.priors.base import Prior, Work
from trace_bench.priors.text import PromptText
from trace_bench.progress import Progress
from trace_bench.representations.base import Representation
from trace_bench.representations.points import PointCloud
from trace_bench.run_folder.live import Live
from trace_bench.run_folder.rendering import PREVIEW, write_renders
from trace_bench.run_folder.tracking import Tracker
from trace_bench.runs.build import (
    adapters_made,
    describe_prior,
    describe_reward,
    free_memory,
    load_prior,
    make_init,
    make_method,
    make_representation,
    peak_memory_gb,
    resolve_device,
    speed_of,
    start_memory_count,
    tflop_of,
)
from trace_bench.runs.checkpoint import (
    Checkpoint,
    first_non_finite,
    save_checkpoint,
    settings_differ,
    state_differs,
)
from trace_bench.runs.claim import BusyError, claim
from trace_bench.runs.identity import RunSpec
from trace_bench.runs.lane import Lane, Mode
from trace_bench.runs.open_run import CONFIG, LOG, OpenRun
from trace_bench.runs.reporter import METRICS, Reporter
from trace_bench.runs.snapshots import Snapshots, in_bytes, make_snapshots
from trace_bench.runs.step_renders import StepRenders
from trace_bench.runs.threads import own_threads, use_threads
from trace_bench.runs.warm_up import warm_up
from trace_bench.seeding import Rng
from trace_bench.settings.config import build
from trace_bench.system.errors import TraceBenchError

_EXPORT = ".export.partial"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """Result of a run; `skipped` means that it was already done."""

    status: Literal["done", "skipped", "failed", "preempted", "busy"]
    folder: Path
    message: str = ""


def make_asset(
    spec: RunSpec, should_stop: Callable[[], bool] = lambda: False, lane: Lane | None = None
) -> Outcome:
    """Make the asset of `spec` unless it exists; errors are recorded, not raised.

    lane: of a process in which several runs are made side by side.
    """
    folder, lane = spec.folder, lane or Lane()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with claim(folder):
            open_run = OpenRun(spec, lane.clock)
            if open_run.is_finished():
                open_run.live.close()  # a kill between the last write and this left it
                return Outcome("skipped", folder)
            with open_run.logging(), own_threads():
                return _attempt(open_run, should_stop, lane)
    except BusyError as busy:
        log.warning("%s", busy)
        return Outcome("busy", folder, str(busy))
    except Exception as error:  # noqa: BLE001  a folder that is not writable must not stop other runs
        log.error("%s: %s", folder, sentence(error))
        return Outcome("failed", folder, sentence(error))
    finally:
        free_memory()


def _attempt(open_run: OpenRun, should_stop: Callable[[], bool], lane: Lane) -> Outcome:
    """Make the asset in the claimed folder and record the outcome."""
    attempt = (Attempt if open_run.spec.job.distils else ExternalAttempt)(open_run, should_stop, lane)
    try:
        finished = attempt.make()
        open_run.close("done" if finished else "preempted", lane.away)
    except Exception as error:  # a failed run must not stop others
        log.error("Failed at step %d: %s: %s", attempt.step, open_run.folder, sentence(error))
        if not isinstance(error, TraceBenchError):
            log.debug("Traceback", exc_info=error)
        open_run.fail(error, attempt.step)
        return Outcome("failed", open_run.folder, sentence(error))
    except BaseException:  # a second Ctrl-C
        if open_run.manifest.status == "running":
            open_run.close("preempted")
        raise
    finally:
        attempt.tracker.close()
        open_run.live.close()
    if finished:
        log.info("%s: %s", open_run.manifest.run.prompt, open_run.folder)
    return Outcome("done" if finished else "preempted", open_run.folder)


class Exportable(Protocol):
    """An asset that can write its files into a folder."""

    def export(self, folder: Path) -> list[Path]: ...


class Attempt:
    """One attempt at an asset in a claimed folder, from step 0 or from its checkpoint."""

    def __init__(self, open_run: OpenRun, should_stop: Callable[[], bool], lane: Lane) -> None:
        self.open_run, self.watch, self.folder = open_run, open_run.watch, open_run.folder
        self.spec, self.job = open_run.spec, open_run.spec.job
        self.should_stop, self.lane = should_stop, lane
        self.mode: Mode = lane.mode
        self.tracker = Tracker(self.job.tracker, self.folder, open_run.manifest)
        self.step = 0  # steps done
        self.cost = Work()  # of the steps done
        self.snapshots: Snapshots
        self.step_renders = StepRenders(self.folder, self.job, lane.away)

    def make(self) -> bool:
        """Build, distil, render; False if asked to stop before the last step."""
        device = resolve_device(self.job.device)
        self.open_run.begin(str(device))
        checkpoint = self.open_run.checkpoint()
        self._join(checkpoint)
        start_memory_count(device)
        prior = self._load_prior(device)
        with self.watch.phase("init"):
            points = make_init(self.job, self.spec.prompt.text, device)
        with self.watch.phase("load"):
            warm_up(self.job, prior, self.spec.prompt.text, points, device)
        self.snapshots = make_snapshots(self.job, prior, self.spec.prompt.text, self.folder)
        adapters = adapters_made(prior)
        method, representation = self._parts(prior, points, device)
        if checkpoint is not None and not self._restore(checkpoint, method, representation):
            checkpoint = None
            method, representation = self._parts(prior, points, device)
        self._account_for(points, charge=checkpoint is None)
        with self.watch.phase("load"):
            prior.check_prompt(method.negative_prompt)
            for suffix in method.prompt_suffixes.values():
                prior.check_prompt(suffix or "")
            text = method.embed(self.spec.prompt.text, self.job.view_phrases)
        self.open_run.manifest.prompt_cut = text.cut
        try:
            is_finished = self._distil(prior, method, representation, text)
        except Exception as error:
            if checkpoint is None or self.step > checkpoint.step or not _may_be_the_state(error):
                raise
            self._start_over(checkpoint, error)
            method, representation = self._parts(prior, points, device)
            self._account_for(points, charge=True)
            is_finished = self._distil(prior, method, representation, text)
        if not is_finished:
            return False
        with self.watch.phase("render"):
            self.open_run.live.enter("export")
            exported = self._export(representation)
            rig = EvaluationRig(**self.job.rig)
            rendered, views = write_renders(
                representation, rig, prior.decode, device, self.folder, self._on_views, self.lane.away
            )
        with self.watch.phase("load", shown=False):  # both are computed once per process
            self.open_run.manifest.prior = describe_prior(prior, adapters_made(prior) > adapters)
            self.open_run.manifest.batch_sizes = self.lane.sizes
            self._account_for_work(prior, method)
        files = [METRICS, *self.snapshots.files(), *self.step_renders.files(), *exported, *rendered]
        self._sum_up(representation.n_primitives, files, views, device)
        return True

    def _load_prior(self, device: torch.device) -> Prior:
        """The prior as this run's lane sees it."""
        with self.watch.phase("load"):
            shared = load_prior(self.job, device)
            self.open_run.manifest.environment |= {"torch_threads": use_threads(shared)}
            prior = self.lane.prior(shared, self.mode)
            prior.check_prompt(self.spec.prompt.text)
        return prior

    def _join(self, checkpoint: Checkpoint | None) -> None:
        """Go on in the mode of the checkpoint, whatever this process does with new runs."""
        if checkpoint is not None:
            self.mode = checkpoint.mode
        self.open_run.manifest.mode = self.mode
        self.open_run.manifest.lanes = self.lane.lanes

    def _sum_up(self, n_primitives: int | None, files: list[str], views: int, device: torch.device) -> None:
        """Fill in the manifest of a finished asset, our own or external."""
        manifest = self.open_run.manifest
        manifest.n_primitives, manifest.peak_memory_gb = n_primitives, peak_memory_gb(device)
        manifest.files = list(dict.fromkeys([CONFIG, LOG, *files]))
        manifest.views = views
        self.tracker.picture(manifest.run.steps, "preview", self._preview)

    def _preview(self) -> np.ndarray:
        with Image.open(self.folder / PREVIEW) as picture:
            return np.asarray(picture.convert("RGB"))

    def _parts(
        self, prior: Prior, points: PointCloud | None, device: torch.device
    ) -> tuple[Method, Representation]:
        with self.watch.phase("init"):
            return make_method(self.job, prior), make_representation(self.job, prior, points, device)

    def _account_for(self, points: PointCloud | None, charge: bool) -> None:
        """Record the init. Time spent on it elsewhere is added to this run, because otherwise the first run
        of a sweep would pay for all runs that share it.
        """
        if points is None:
            return
        seconds = {"seconds_elsewhere": round(points.seconds, 3)}
        self.open_run.manifest.init = {"points": len(points), **seconds, **points.notes}
        if charge:
            self.watch.charge("init", points.seconds)

    def _account_for_work(self, prior: Prior, method: Method) -> None:
        """Record the work of prior and reward, and how fast it went."""
        manifest, tflop = self.open_run.manifest, tflop_of(prior, self.cost, method)
        manifest.reward = describe_reward(method)
        manifest.cost = {**self.cost.as_dict(), "tflop": tflop}
        speed = speed_of(tflop, self.watch["distill"], self.job, manifest.environment.get("gpu"))
        manifest.tflop_per_s, manifest.mfu = speed["tflop_per_s"], speed["mfu"]
        if manifest.tflop_per_s is not None:
            share = "" if manifest.mfu is None else f", {100 * manifest.mfu:.0f} % of the GPU's peak"
            log.info("%.3g TFLOP at %.3g TFLOP/s%s", tflop, manifest.tflop_per_s, share)

    def _restore(self, checkpoint: Checkpoint, method: Method, representation: Representation) -> bool:
        """Resume from a checkpoint; if another version of the code wrote it, remove it and return False."""
        try:
            self._take_over(checkpoint, method, representation)
        except Exception as error:  # noqa: BLE001  a state of another form may raise anything
            self.open_run.distrust_checkpoint(
                f"The checkpoint does not fit this version ({sentence(error)})."
            )
            return False
        self.watch.go_on_from(checkpoint.seconds)
        self.open_run.manifest.lanes = max(checkpoint.lanes, self.lane.lanes)
        self._compare_sizes(checkpoint.batch_sizes)
        self.step, self.cost = checkpoint.step, Work(**checkpoint.cost)
        log.info("Resuming at step %d of %d: %s", self.step, self.job.steps, self.folder)
        return True

    def _compare_sizes(self, before: dict[str, list[int]]) -> None:
        """Say if this machine computes in batches of other sizes, which changes the last bits."""
        if differing := [name for name, found in self.lane.sizes.items() if found != before.get(name, found)]:
            log.warning("Batches of other sizes than before: %s; the last bits may differ.", differing)

    def _take_over(self, checkpoint: Checkpoint, method: Method, representation: Representation) -> None:
        """Load the checkpoint's states.

        Raises:
            ValueError: a part did not take over its state, or the counted work is not that of the steps.
        """
        job, rng = self.job, Rng(self.job.seed)
        for name, part in (("method", method), ("representation", representation)):
            state = getattr(checkpoint, name)
            if wrong := settings_differ(part.state_dict(), state, name):
                raise ValueError(f"{wrong} has other settings")
            part.load_state_dict(deepcopy(state))
            if wrong := state_differs(part.state_dict(), state, name):
                raise ValueError(f"{wrong} has another form")
        steps = (
            method.cost(Progress(k, job.steps), job.views_per_step, rng.at(k)) for k in range(checkpoint.step)
        )
        wanted, found = sum(steps, Work()), Work(**checkpoint.cost)
        if (wanted.unet_fwd, wanted.unet_bwd) != (found.unet_fwd, found.unet_bwd):
            raise ValueError(f"its UNet items are not those of {checkpoint.step} steps")

    def _start_over(self, checkpoint: Checkpoint, error: Exception) -> None:
        """Forget a checkpoint whose very first step failed, so that the run does not fail for ever."""
        self.open_run.distrust_checkpoint(f"The first step after the checkpoint failed ({sentence(error)}).")
        self.watch.forget(checkpoint.seconds)
        self.open_run.manifest.lanes = self.lane.lanes
        self.step, self.cost = 0, Work()

    def _distil(self, prior: Prior, method: Method, representation: Representation, text: PromptText) -> bool:
        """Distil from `self.step` to the end or until asked to stop, then write a checkpoint."""
        job, done_before, counted = self.job, self.cost, replace(prior.counter)
        label = f"{self.spec.identity.method}: {self.spec.prompt.text[:40]}"
        live = self.open_run.live
        spent = self.watch["distill"], self.lane.clock
        with Reporter(self.folder, label, job.steps, self.step, *spent, live=live) as reporter:
            kept_step, kept_time = self.step, time.monotonic()

            def render_step() -> None:
                if not self.step_renders.is_due(self.step):
                    return
                with reporter.pause(), self.watch.phase("render", shown=False):
                    work = done_before + (prior.counter - counted)
                    self._on_step_views(0, 0)
                    self.step_renders(self.step, representation, prior, work, method, self._on_step_views)

            def keep() -> None:
                nonlocal kept_step, kept_time
                self.cost = done_before + (prior.counter - counted)
                self.watch.set("distill", reporter.seconds)
                self._save(method, representation)
                kept_step, kept_time = self.step, time.monotonic()

            def on_step(k: int, values: dict[str, float]) -> None:
                self.step = k + 1
                reporter.step(k, values)
                self.tracker.follow()
                render_step()
                # On a GPU, steps are only checked for NaN up to the last one with a log.
                is_checked = bool(values) or prior.device.type == "cpu"
                if is_checked and self._is_due(self.step - kept_step, time.monotonic() - kept_time):
                    keep()

            render_step()
            result = distill(
                prior,
                method,
                representation,
                text,
                CameraRange.of(job.cameras),
                steps=job.steps,
                views_per_step=job.views_per_step,
                resolution=job.resolution,
                background=job.background,
                rng=Rng(job.seed),
                first_step=self.step,
                log_every=job.log_every,
                on_step=on_step,
                should_stop=self.should_stop,
                observe=self._observe,
            )
            keep()
        return not result.stopped

    def _observe(self, seen: Observation) -> None:
        self.snapshots(seen)
        rgb, step = seen.render.rgb, seen.progress.k
        if rgb is not None and step in self.snapshots.steps:
            self.tracker.picture(step, "render", lambda: in_bytes(rgb[0]))

    def _on_views(self, done: int, total: int) -> None:
        self.open_run.live.update(Live("render", done, total))

    def _on_step_views(self, done: int, total: int) -> None:
        part = self.step / max(self.job.steps, 1)
        self.open_run.live.update(Live("render_step", done, total, part_of_steps=part))

    def _is_due(self, steps: int, seconds: float) -> bool:
        every_steps, every_seconds = self.job.checkpoint["every_steps"], self.job.checkpoint["every_seconds"]
        return (every_steps is not None and steps >= every_steps) or (
            every_seconds is not None and seconds >= every_seconds
        )

    def _save(self, method: Method, representation: Representation) -> None:
        checkpoint = Checkpoint(
            self.spec.fingerprint,
            self.step,
            representation.state_dict(),
            method.state_dict(),
            self.cost.as_dict(),
            self.watch.snapshot(),
            self.mode,
            self.lane.sizes,
            self.open_run.manifest.lanes,
        )
        for name in ("representation", "method"):
            if bad := first_non_finite(getattr(checkpoint, name), name):
                raise NonFiniteError(self.step - 1, bad)
        save_checkpoint(self.folder, checkpoint)

    def _export(self, asset: Exportable) -> list[str]:
        """The asset's files; they appear in the run folder only when complete."""
        partial = self.folder / _EXPORT
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        names = [str(path.relative_to(partial)) for path in asset.export(partial)]
        for name in names:
            (partial / name).replace(self.folder / name)
        partial.rmdir()
        return sorted(names)


class ExternalAttempt(Attempt):
    """An attempt for an external asset: it is opened and rendered, nothing is distilled."""

    def make(self) -> bool:
        """Open the asset and render it on the same rig as all other assets."""
        device = resolve_device(self.job.device)
        self.open_run.begin(str(device))
        start_memory_count(device)
        external: External | ControlAsset = build("method", self.job.method)
        log.info("Using %s unchanged (%s)", external.asset, external.source)
        with self.watch.phase("load"):
            asset = external.open(device, self.spec.prompt.text)
        with self.watch.phase("render"):
            exported = self._export(asset)
            rendered, views = asset.write_renders(EvaluationRig(**self.job.rig), device, self.folder)
        self.open_run.manifest.declared = external.declared(self.job.method.get("display_name"))
        self._sum_up(asset.n_primitives, [*exported, *rendered], views, device)
        return True


def _may_be_the_state(error: Exception) -> bool:
    """Whether an odd state can have caused the error, and not the machine or the method."""
    machine = (OSError, MemoryError, TraceBenchError, torch.OutOfMemoryError)
    return not isinstance(error, machine) and "CUDA" not in str(error)


def sentence(error: BaseException) -> str:
    """An error in one line: the message of a TraceBenchError, else type and message."""
    text = " ".join(str(error).split())
    return text if isinstance(error, TraceBenchError) else f"{type(error).__name__}: {text}"
