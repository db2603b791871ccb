"""What a process pays once before its first steps: compiling, and loading libraries."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from itertools import count

import torch

from trace_bench.cameras import CameraRange
from trace_bench.distill import distill
from trace_bench.priors.base import Prior
from trace_bench.representations.points import PointCloud
from trace_bench.runs.build import free_memory, make_method, make_representation
from trace_bench.runs.snapshots import uncounted
from trace_bench.seeding import Rng
from trace_bench.settings.config import Job
from trace_bench.system.compiled import shared

log = logging.getLogger(__name__)
_done: set[tuple[object, ...]] = set()


def warm_up(job: Job, prior: Prior, prompt: str, points: PointCloud | None, device: torch.device) -> None:
    """Run one step that is thrown away, once per process for a prior, method, representation and size.

    torch.compile, numba and CUDA then compile here, and not in the time of whichever run comes first. Changes
    neither the asset nor the counted work. A step that fails is not reported: the run's own first step fails
    in the same way.
    """
    chosen = (job.choices[group] for group in ("prior", "method", "representation"))
    key = (*chosen, job.views_per_step, job.resolution, str(device), id(getattr(prior, "shared", prior)))
    if key in _done:
        return
    _done.add(key)
    steps_asked = count()
    compiles = job.prior.get("compile") and device.type == "cuda"
    batched = getattr(prior, "is_batched", False)  # lanes have other sizes of batches
    parts = (job.prior, job.method, job.views_per_step, job.resolution, batched)
    with uncounted(prior.counter), shared(parts, device) if compiles else nullcontext():
        try:
            method = make_method(job, prior)
            distill(
                prior,
                method,
                make_representation(job, prior, points, device),
                method.embed(prompt, job.view_phrases),
                CameraRange.of(job.cameras),
                steps=job.steps,
                views_per_step=job.views_per_step,
                resolution=job.resolution,
                background=job.background,
                rng=Rng(job.seed),
                log_every=job.log_every,
                should_stop=lambda: next(steps_asked) > 0,
            )
        except Exception as error:
            log.debug("The warm-up failed", exc_info=error)
    free_memory()
