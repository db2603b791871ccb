"""The methods configured in conf/, built as in a run."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from trace_bench.methods.base import Method
from trace_bench.priors.base import Prior
from trace_bench.settings.config import build

CONF = Path(__file__).resolve().parents[1] / "conf"
#: Methods for flow priors only.
FLOW = ("rfds", "rfds_rev")
#: All others that distil.
NAMES = sorted(
    path.stem
    for path in (CONF / "method").glob("*.yaml")
    if OmegaConf.load(path).get("distils", True) and path.stem not in FLOW
)


@cache
def composed(name: str, prior: str) -> dict[str, Any]:
    """The method's part of the config that `method=name prior=prior` composes to, with a small reward."""
    reward = ["reward=tiny_clip"] if name == "reward_sds" else []
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", overrides=[f"method={name}", f"prior={prior}", *reward])
    spec = OmegaConf.to_container(cfg.method, resolve=True)
    assert isinstance(spec, dict)
    return {str(key): value for key, value in spec.items()}


def configured(name: str, prior: Prior, world: str = "sd21", **changes: Any) -> Method:
    """`name` with the paper's settings (world sd21) or the toy world's (world tiny)."""
    spec = composed(name, world) | changes
    return build("method", spec, prior, guidance_scale=spec["guidance_scale"], seed=0)
