"""The parts of a run: the prior (loaded once per process), the method, the representation."""

from __future__ import annotations

import gc
import json
import logging
import resource
from typing import Any

import torch

from trace_bench.methods.base import Method
from trace_bench.priors.base import Prior, Work
from trace_bench.representations.base import Representation
from trace_bench.representations.points import PointCloud
from trace_bench.seeding import Rng
from trace_bench.settings.config import Job, build, check_init
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.peak import mfu
from trace_bench.system.uncollected import keep_for_good, uncollected

log = logging.getLogger(__name__)
_priors: dict[str, Prior | TraceBenchError] = {}


def resolve_device(name: str) -> torch.device:
    """The torch device for `device=...`; `auto` is the GPU if there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise TraceBenchError(
            f"device={name} does not exist (torch sees {torch.cuda.device_count()} CUDA devices); "
            "use device=auto or device=cpu."
        )
    return device


def load_prior(job: Job, device: torch.device) -> Prior:
    """The job's prior, loaded once per process; a failed load is not retried for the next prompt."""
    key = json.dumps([job.prior, str(device)], sort_keys=True)
    if key not in _priors:
        log.info("Loading prior=%s on %s", job.choices["prior"], device)
        try:
            with uncollected():
                _priors[key] = build("prior", job.prior, device=device)
        except TraceBenchError as error:
            _priors[key] = error
        keep_for_good()  # torch, diffusers and transformers are imported now
    prior = _priors[key]
    if isinstance(prior, TraceBenchError):
        raise prior.with_traceback(None)
    return prior


def make_method(job: Job, prior: Prior) -> Method:
    """The job's method with its guidance scale."""
    return build("method", job.method, prior, guidance_scale=job.scale, seed=job.seed)


def make_init(job: Job, prompt: str, device: torch.device) -> PointCloud | None:
    """The result of the job's init; its random numbers belong to step -1."""
    check_init(job)
    return build("init", job.init)(Rng(job.seed).at(-1), device, prompt)


def make_representation(
    job: Job, prior: Prior, points: PointCloud | None, device: torch.device
) -> Representation:
    """The job's representation with its initial points."""
    return build(
        "representation",
        job.representation,
        points=points,
        resolution=job.resolution,
        latent_shape=prior.latent_shape,
        seed=job.seed,
        device=device,
    )


def describe_prior(prior: Prior, adapter: bool) -> dict[str, Any]:
    """Repositories, revisions and hash for the manifest, if the prior provides them.

    adapter: whether the run has an adapter, whose base is then part of the description.
    """
    describe = getattr(prior, "describe", None)
    return {} if describe is None else dict(describe(adapter))


def adapters_made(prior: Prior) -> int:
    """How many adapters a prior has made so far; 0 if it does not count."""
    return int(getattr(prior, "adapters_made", 0))


def tflop_of(prior: Prior, work: Work, method: Method) -> float | None:
    """The work of the prior and of the method's reward in TFLOP; None if the prior cannot compute it."""
    tflop = getattr(prior, "tflop", None)
    if tflop is None:
        return None
    rated = work.reward * method.reward.tflop() if method.reward is not None and work.reward else 0.0
    return float(tflop(work)) + rated


def describe_reward(method: Method) -> dict[str, Any]:
    """The manifest's entry on the method's reward: metrics that show it, and its settings; {} without one."""
    reward = method.reward
    return {} if reward is None else {"metrics": list(reward.metrics), **reward.identity()}


def speed_of(tflop: float | None, seconds: float, job: Job, gpu: str | None) -> dict[str, float | None]:
    """`tflop_per_s` and `mfu` of the manifest; None where they are not known."""
    if tflop is None or seconds <= 0.0:
        return {"tflop_per_s": None, "mfu": None}
    share = mfu(tflop / seconds, gpu, str(job.prior.get("dtype")))
    return {
        "tflop_per_s": float(f"{tflop / seconds:.4g}"),
        "mfu": None if share is None else round(share, 4),
    }


def start_memory_count(device: torch.device) -> None:
    """Reset the peak memory of earlier runs."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_gb(device: torch.device) -> float:
    """Peak memory in GiB: of the run on a GPU, of the process so far on a CPU."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**30, 3)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3)


def free_memory() -> None:
    """Free the GPU memory of the last run, so that an error does not keep it allocated."""
    if torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()
