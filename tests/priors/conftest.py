from __future__ import annotations

from pathlib import Path

import pytest
from sd_checkpoint import make_checkpoint

from trace_bench.priors.stable_diffusion import StableDiffusionPrior


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An epsilon-prediction base and a v-prediction model for the adapter, like SD 2.1-base and SD 2.1."""
    folder = tmp_path_factory.mktemp("checkpoints")
    return make_checkpoint(folder / "base"), make_checkpoint(folder / "v", "v_prediction", seed=1)


@pytest.fixture
def prior(checkpoints: tuple[Path, Path]) -> StableDiffusionPrior:
    base, v = checkpoints
    return StableDiffusionPrior(str(base), resolution=16, adapter_repo=str(v))
