"""Metrics that rate each picture by a network and average over views: HPSv2.1, PickScore, LAION aesthetic."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics.base import Metric, Score, finite
from evaluation.metrics.renders import chosen_views, open_rgb
from trace_bench.run_folder.reading import Run
from trace_bench.system.errors import TraceBenchError, Unavailable

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image


class WeightedMetric(Metric):
    """A metric of some views by a network whose weights may be missing; a subclass scores.

    Args:
        views: evenly spaced views, starting at the front.
        batch_size: pictures in one call; does not change the score.
        device: auto, cpu or cuda.
        skip_priors: priors whose runs are left out.
    """

    def __init__(
        self,
        views: int = 120,
        batch_size: int = 16,
        device: str = "auto",
        skip_priors: Sequence[str] = (),
    ) -> None:
        if views < 1 or batch_size < 1:
            raise TraceBenchError(f"metrics.{self.name} needs views >= 1 and batch_size >= 1.")
        self.views, self.batch_size, self.device = views, batch_size, device
        self.skip_priors = tuple(skip_priors)
        self.left_out = f"metrics.{self.name}.skip_priors has their prior ({', '.join(self.skip_priors)})"
        self._missing: Unavailable | None = None

    @property
    @abstractmethod
    def weights_hash(self) -> str:
        """Hash of the files that the score depends on; raises Unavailable, saying what helps."""

    def applies(self, run: Run) -> bool:
        return self.concerns(run.identity.prior)

    def concerns(self, prior: str) -> bool:
        return prior not in self.skip_priors

    def files(self, run: Run) -> list[Path]:
        return [run.rgb(view) for view in chosen_views(run, self.views)]

    def weights(self, run: Run) -> str:
        if self._missing is not None:
            raise self._missing
        try:
            return self.weights_hash
        except Unavailable as error:
            self._missing = error  # remembered: a failing download may take a minute
            raise


class PictureModel(WeightedMetric):
    """Base class; a subclass loads its network and rates pictures."""

    model: str  # what tables call the judge

    @abstractmethod
    def rate(self, prompt: str, pictures: Sequence[Image]) -> NDArray[np.floating[Any]]:
        """One number for each RGB picture: [N]."""

    @abstractmethod
    def weight_files(self) -> list[Path]:
        """The files that the score depends on; raises Unavailable, saying what helps, without one."""

    def parameters(self) -> dict[str, Any]:
        """Settings, beside the views, that the score depends on."""
        return {}

    def is_cut(self, prompt: str) -> bool:
        """Whether the network reads only the beginning of the prompt."""
        return False

    def settings(self, run: Run) -> dict[str, Any]:
        return {"model": self.model, "views": self.views} | self.parameters()

    def score(self, run: Run) -> Score:
        views = chosen_views(run, self.views)
        found = np.asarray(self.rate(run.prompt, [open_rgb(run.rgb(view)) for view in views]), np.float64)
        (quantity,) = self.quantities
        rows = [
            {
                "view": view,
                "azimuth_deg": finite(run.cameras[view]["azimuth_deg"], 4),
                quantity.name: finite(value),
            }
            for view, value in zip(views, found, strict=True)
        ]
        details = {"model": self.model, "prompt_cut": self.is_cut(run.prompt)}
        return Score({quantity.name: finite(float(found.mean()))}, rows, details)

    @cached_property
    def weights_hash(self) -> str:
        digest = hashlib.sha256()
        for path in self.weight_files():
            with path.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        return digest.hexdigest()

    @cached_property
    def torch_device(self) -> torch.device:
        import torch

        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return torch.device(self.device)

    def batches(self, pictures: Sequence[Image]) -> list[Sequence[Image]]:
        return [pictures[i : i + self.batch_size] for i in range(0, len(pictures), self.batch_size)]


def from_hub(metric: str, repo: str, file: str, revision: str | None, download: bool, size: str) -> Path:
    """One file of a hub repository: from the cache, or downloaded if allowed."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repo, file, revision=revision, local_files_only=not download))
    except Exception as error:
        raise Unavailable(
            f"The weights of {metric} ({size}) are not on this machine: with a network, run "
            f"`python -m trace_bench.prefetch metric={metric}`, or set metrics.{metric}.download=true."
        ) from error


def tensors(path: Path, metric: str) -> dict[str, torch.Tensor]:
    """The tensors of a PyTorch file, under `state_dict` or bare; nothing else in it is loaded."""
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise TraceBenchError(
            f"{path} is not a file of tensors ({type(error).__name__}): fetch the weights of {metric} again."
        ) from error
    found = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise TraceBenchError(f"{path} holds no network of {metric}: fetch its weights again.")
    return found
