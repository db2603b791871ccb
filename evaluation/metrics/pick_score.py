"""PickScore: a CLIP ViT-H/14 trained on the choices of users of a text-to-image service.

pick_score = mean over views of exp(logit_scale) cos(picture, prompt)     (about 20 for a good picture)
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics.base import Quantity
from evaluation.metrics.picture_model import PictureModel
from trace_bench.system.errors import TraceBenchError, Unavailable

if TYPE_CHECKING:
    from PIL.Image import Image

TOKENS = 77
_WEIGHTS = ["*.safetensors", "*.bin", "*.json", "*.txt"]


class PickScore(PictureModel):
    """
    Args:
        repo: folder or hub repository of the CLIPModel, in transformers' format.
        processor: folder or hub repository of its tokenizer and picture processor.
        revision, processor_revision: commits on the hub.
        download: fetch missing files.
    """

    name: ClassVar[str] = "pick_score"
    version: ClassVar[str] = "1"
    citation: ClassVar[str] = "Kirstain et al. 2023, Pick-a-Pic (arXiv 2305.01569)"
    quantities: ClassVar[tuple[Quantity, ...]] = (
        Quantity("pick_score", "PickScore", "exp(logit scale) cos, mean over views", True, 2),
    )
    model = "PickScore_v1"

    def __init__(
        self,
        repo: str = "yuvalkirstain/PickScore_v1",
        processor: str = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
        revision: str | None = None,
        processor_revision: str | None = None,
        download: bool = False,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        self.repo, self.processor = repo, processor
        self.revision, self.processor_revision, self.download = revision, processor_revision, download

    def weight_files(self) -> list[Path]:
        model, processor = self._folders
        weights = sorted(model.glob("*.safetensors")) or sorted(model.glob("*.bin"))
        if not weights:
            raise Unavailable(f"{model} has no weights of PickScore: fix metrics.pick_score.repo.")
        return [*weights, *sorted(model.glob("config.json")), *sorted(processor.glob("*.json"))]

    @cached_property
    def _folders(self) -> tuple[Path, Path]:
        return (
            self._folder(self.repo, self.revision, _WEIGHTS),
            self._folder(self.processor, self.processor_revision, ["*.json", "*.txt"]),
        )

    def _folder(self, name: str, revision: str | None, patterns: list[str]) -> Path:
        if Path(name).expanduser().is_dir():
            return Path(name).expanduser()
        from huggingface_hub import snapshot_download

        try:
            return Path(
                snapshot_download(
                    name, revision=revision, allow_patterns=patterns, local_files_only=not self.download
                )
            )
        except Exception as error:
            raise Unavailable(
                f"PickScore's {name} is not on this machine (the weights have 4 GB): with a network, run "
                "`python -m trace_bench.prefetch metric=pick_score`, or set metrics.pick_score.download=true."
            ) from error

    def is_cut(self, prompt: str) -> bool:
        return len(self._network[1].tokenizer(prompt).input_ids) > TOKENS

    def rate(self, prompt: str, pictures: Sequence[Image]) -> NDArray[np.floating[Any]]:
        import torch

        network, processor = self._network
        device, found = self.torch_device, []
        with torch.inference_mode():
            words = processor(
                text=prompt, padding=True, truncation=True, max_length=TOKENS, return_tensors="pt"
            )
            text = _features(network.get_text_features(**words.to(device)))
            for batch in self.batches(pictures):
                pixels = processor(images=list(batch), return_tensors="pt").to(device)
                found.append(_features(network.get_image_features(**pixels)) @ text[0])
            return (network.logit_scale.exp() * torch.cat(found)).float().cpu().numpy()

    @cached_property
    def _network(self) -> tuple[Any, Any]:
        from transformers import AutoProcessor, CLIPModel

        model, processor = self._folders
        self.weight_files()
        try:
            network, info = CLIPModel.from_pretrained(model, output_loading_info=True)
        except Exception as error:
            raise TraceBenchError(
                f"{model} is no CLIP model of transformers ({type(error).__name__}): "
                "fix metrics.pick_score.repo."
            ) from error
        lacking = sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"]]))
        if lacking:
            raise TraceBenchError(
                f"{model} lacks {lacking[0]}, so it is not PickScore: fix metrics.pick_score.repo."
            )
        return (
            network.float().to(self.torch_device).eval().requires_grad_(False),
            AutoProcessor.from_pretrained(processor),
        )


def _features(found: Any) -> Any:
    """Unit features [N, D]; transformers 5 returns an output with the projected vector as `pooler_output`."""
    vector = getattr(found, "pooler_output", found)
    return vector / vector.norm(dim=-1, keepdim=True)
