"""Equal work: how many steps of a method cost what another's run costs, known before anything is loaded.

The work of a step is what the method declares for it (tests hold that against what the networks count), and
the VAE work of encoding its views; the price of an item of work is counted on the prior's architecture.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from trace_bench.system.errors import TraceBenchError

_SEED = 0  # of the methods' draws here; a run's own seed must not change how long it is


@dataclass(frozen=True)
class Setting:
    """What the price of a step depends on, as JSON, so that it can be remembered."""

    method: str
    views_per_step: int
    prior: str
    is_encoded: bool  # False where the representation is a latent itself


def equal_work_steps(root: DictConfig) -> int:
    """Steps of `root.method` whose TFLOP come nearest to those of a run of `budget.against`."""
    own = int(root.budget.own.steps)
    if not root.method.get("distils", True):
        return own
    setting = setting_of(root)
    target = equal_work_tflop(root)
    total = tflop_of_run(setting, own)
    steps = own
    for _ in range(3):  # schedules follow the length of the run, so its cost is only nearly linear in it
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
    return round(tflop_of_run(setting_of(other), int(other.budget.own.steps)), 6)


def _instead(root: DictConfig, method: DictConfig) -> DictConfig:
    """The config with another method in the place of its own."""
    other = copy.deepcopy(root)
    OmegaConf.set_struct(other, False)
    OmegaConf.set_readonly(other, False)
    other.method = copy.deepcopy(method)
    return other


def setting_of(root: DictConfig) -> Setting:
    """What the price of the config's steps depends on."""

    def plain(key: str) -> str:
        return json.dumps(OmegaConf.to_container(root[key], resolve=True), sort_keys=True)

    from trace_bench.settings.config import locate, settings_of

    representation = json.loads(plain("representation"))
    cls = locate("representation", representation)
    is_latent: bool = cls.is_latent(settings_of(representation))  # type: ignore[attr-defined]
    return Setting(plain("method"), int(root.budget.own.views_per_step), plain("prior"), not is_latent)


@lru_cache(maxsize=1024)
def tflop_of_run(setting: Setting, steps: int) -> float:
    """TFLOP of a whole run."""
    from trace_bench.priors.base import Work

    views = setting.views_per_step
    work = declared_work(setting.method, views, steps)
    if setting.is_encoded:
        work = work + Work(vae_enc_fwd=views * steps, vae_enc_bwd=views * steps)
    unit = unit_costs(setting.prior)
    return sum(count * unit[name] for name, count in work.as_dict().items())


@lru_cache(maxsize=1024)
def declared_work(method: str, views: int, steps: int) -> Any:
    """What the method says that its steps cost; asked of one that stands on a prior without networks."""
    import torch

    from trace_bench.priors.analytic import AnalyticPrior, Gaussian
    from trace_bench.priors.base import Work
    from trace_bench.progress import Progress
    from trace_bench.seeding import Rng
    from trace_bench.settings.config import build

    spec = json.loads(method)
    prior = AnalyticPrior({"": Gaussian(torch.zeros(1), torch.eye(1))}, (1, 1, 1), torch.float32)
    made = build("method", spec, prior, guidance_scale=spec.get("guidance_scale"), seed=_SEED)
    total, rng = Work(), Rng(_SEED)
    for k in range(steps):
        total = total + made.cost(Progress(k, steps), views, rng.at(k))
    return total


@lru_cache(maxsize=64)
def unit_costs(prior: str) -> dict[str, float]:
    """TFLOP an item of each kind of work, from the configs of UNet and VAE; needs no weights."""
    from trace_bench.priors.flops import unit_tflop

    spec = json.loads(prior)
    architecture = _architecture(spec)
    return unit_tflop(
        json.dumps(architecture["unet"], sort_keys=True),
        json.dumps(architecture["vae"], sort_keys=True),
        int(architecture["text_length"]),
        int(spec["resolution"]),
    )


def _architecture(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What the prior's YAML says of it, or what stands in its folder or hub repository."""
    from trace_bench.system.model_files import is_folder, resolve

    repo = spec.get("repo")
    if spec.get("architecture") and not (repo and is_folder(repo)):
        return dict(spec["architecture"])
    if not repo:
        raise TraceBenchError("The work of this prior cannot be known beforehand; choose budget=own.")
    files = ["unet/config.json", "vae/config.json", "tokenizer/tokenizer_config.json"]
    folder = resolve(repo, spec.get("revision"), files)
    unet, vae, tokenizer = (_read(folder / name) for name in files)
    return {"unet": unet, "vae": vae, "text_length": tokenizer["model_max_length"]}


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise TraceBenchError(f"budget=equal_work needs {path}, which cannot be read: {error}.") from error
