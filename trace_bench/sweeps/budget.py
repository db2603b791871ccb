"""budget=equal_work: the number of steps of a method that cost as much as another method's run.

The work of a step is what the method declares (each run compares this with what the networks count), plus the
VAE work of encoding its views. The cost per item of work is computed from the prior's architecture, without
loading weights.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from trace_bench.system.errors import TraceBenchError

if TYPE_CHECKING:  # imports torch
    from trace_bench.priors.analytic import AnalyticPrior
    from trace_bench.settings.config import Job

_SEED = 0  # for the methods' draws here; a run's seed must not change its number of steps


@dataclass(frozen=True)
class Setting:
    """Everything that the cost of a step depends on, as JSON, so that results can be cached."""

    method: str
    views_per_step: int
    prior: str
    is_encoded: bool  # False if the representation is itself a latent


def equal_work_steps(root: DictConfig) -> int:
    """The number of steps of `root.method`, with the run's views, whose TFLOP are closest to a run of
    `budget.against`."""
    own = int(root.budget.own.steps)
    if not root.method.get("distils", True):
        return own
    setting = setting_of(root, root.views_per_step)
    target = equal_work_tflop(root)
    total = tflop_of_run(setting, own)
    steps = own
    for _ in range(3):  # schedules depend on the run's length, so its cost is only nearly linear in the steps
        if total == 0.0:
            return own
        steps = max(1, round(steps * target / total))
        total = tflop_of_run(setting, steps)
    return steps


def equal_work_tflop(root: DictConfig) -> float:
    """TFLOP of a run of the method `budget.against` at its own number of steps and views."""
    other = _instead(root, root.budget.against)
    if root.budget.get("prior"):
        other.prior = root.budget.prior
    own = other.budget.own
    return round(tflop_of_run(setting_of(other, own.views_per_step), int(own.steps)), 6)


def _instead(root: DictConfig, method: DictConfig) -> DictConfig:
    """The config with `method` in place of its own method."""
    other = copy.deepcopy(root)
    OmegaConf.set_struct(other, False)
    OmegaConf.set_readonly(other, False)
    other.method = copy.deepcopy(method)
    return other


def setting_of(root: DictConfig, views_per_step: int) -> Setting:
    """What the price of the config's steps depends on.

    Raises:
        TraceBenchError: that is no number of views.
    """
    from trace_bench.settings.config import RULES, settings_of
    from trace_bench.system.targets import locate

    RULES["views_per_step"].check("views_per_step", views_per_step)

    def plain(key: str) -> str:
        return json.dumps(OmegaConf.to_container(root[key], resolve=True), sort_keys=True)

    representation = json.loads(plain("representation"))
    cls = locate("representation", representation)
    is_latent: bool = cls.is_latent(settings_of(representation))  # type: ignore[attr-defined]
    return Setting(plain("method"), views_per_step, plain("prior"), not is_latent)


def tflop_of_job(job: Job) -> float | None:
    """TFLOP of a run; 0 if it distils nothing, None if the prior's work cannot be computed in advance."""
    from trace_bench.settings.config import settings_of
    from trace_bench.system.targets import locate

    if not job.distils:
        return 0.0
    cls: Any = locate("representation", job.representation)
    method, prior = (json.dumps(part, sort_keys=True) for part in (job.method, job.prior))
    try:
        setting = Setting(
            method, job.views_per_step, prior, not cls.is_latent(settings_of(job.representation))
        )
        return tflop_of_run(setting, job.steps)
    except TraceBenchError:
        return None


def cost_of(job: Job) -> float:
    """The declared cost of a run in TFLOP; 0 where the prior's work is not known in advance."""
    return tflop_of_job(job) or 0.0


@lru_cache(maxsize=1024)
def tflop_of_run(setting: Setting, steps: int) -> float:
    """TFLOP of a complete run."""
    from trace_bench.priors.base import Work

    views = setting.views_per_step
    work = declared_work(setting.method, views, steps)
    if setting.is_encoded:
        work = work + Work(vae_enc_fwd=views * steps, vae_enc_bwd=views * steps)
    unit = unit_costs(setting.prior)
    prior = sum(getattr(work, name) * cost for name, cost in unit.items())
    return float(prior + (work.reward * _built(setting.method).reward.tflop() if work.reward else 0.0))


def prior_without_networks() -> AnalyticPrior:
    """A prior to build a method on, for what the method declares."""
    import torch

    from trace_bench.priors.analytic import AnalyticPrior, Gaussian

    return AnalyticPrior({"": Gaussian(torch.zeros(1), torch.eye(1))}, (1, 1, 1), torch.float32)


@lru_cache(maxsize=1024)
def declared_work(method: str, views: int, steps: int) -> Any:
    """The work that the method declares for its steps, built on a prior without networks."""
    from trace_bench.priors.base import Work
    from trace_bench.progress import Progress
    from trace_bench.seeding import Rng

    made = _built(method)
    total, rng = Work(), Rng(_SEED)
    for k in range(steps):
        total = total + made.cost(Progress(k, steps), views, rng.at(k))
    return total


def _built(method: str) -> Any:
    """The method on a prior without networks."""
    from trace_bench.settings.config import build

    spec = json.loads(method)
    scale = spec.get("guidance_scale")
    return build("method", spec, prior_without_networks(), guidance_scale=scale, seed=_SEED)


@lru_cache(maxsize=64)
def unit_costs(prior: str) -> dict[str, float]:
    """TFLOP per item of each kind of work, from the configs of network and VAE; needs no weights."""
    from trace_bench.priors.flops import unit_tflop

    spec = json.loads(prior)
    architecture = _architecture(spec)
    return unit_tflop(
        json.dumps(architecture.get("transformer") or architecture["unet"], sort_keys=True),
        json.dumps(architecture["vae"], sort_keys=True),
        int(architecture["text_length"]),
        int(spec["resolution"]),
    )


def _architecture(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The architecture from the prior's YAML, or from the configs in its folder or hub repository."""
    from trace_bench.system.model_files import is_folder, resolve

    repo = spec.get("repo")
    if spec.get("architecture") and not (repo and is_folder(repo)):
        return dict(spec["architecture"])
    if not repo:
        raise TraceBenchError("The work of this prior cannot be computed in advance; use budget=own.")
    from trace_bench.system.targets import locate

    cls = locate("prior", spec)
    files = [
        f"{getattr(cls, 'NETWORK', 'unet')}/config.json",
        "vae/config.json",
        "tokenizer/tokenizer_config.json",
    ]
    folder = resolve(repo, spec.get("revision"), files)
    config, vae, tokenizer = (_read(folder / name) for name in files)
    length = tokenizer["model_max_length"] + getattr(cls, "MORE_TOKENS", 0)
    return {"unet": config, "vae": vae, "text_length": length}


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise TraceBenchError(f"budget=equal_work needs {path}, which cannot be read: {error}.") from error
