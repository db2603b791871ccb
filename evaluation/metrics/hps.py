"""Human Preference Score v2.1: a CLIP ViT-H/14 trained on people's choices between generated pictures.

    hps = mean over views of 100 cos(picture, prompt)     (the authors' tables print 100 times the cosine)

Comparable for one prompt only, and never with version 2.0. The picture is resized as a tensor, as in the
authors' code, which gives other pixels than resizing the 8-bit picture (0.004 apart on average). Its longer
side gets the network's size; the rest is black.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics.base import Quantity
from evaluation.metrics.picture_model import PictureModel, from_hub, tensors
from trace_bench.system.errors import TraceBenchError, Unavailable

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class HPS(PictureModel):
    """
    Args:
        checkpoint: path of the weights; None: `file` of the hub repository `repo`.
        architecture: of the network, by open_clip's name.
        download: fetch missing weights.
    """

    name: ClassVar[str] = "hps"
    version: ClassVar[str] = "1"
    citation: ClassVar[str] = "Wu et al. 2023, Human Preference Score v2 (arXiv 2306.09341)"
    quantities: ClassVar[tuple[Quantity, ...]] = (
        Quantity("hps", "HPSv2.1", "100 cos by HPSv2.1, mean over views", True, 2),
    )
    model = "HPSv2.1"

    def __init__(
        self,
        checkpoint: str | None = None,
        repo: str = "xswu/HPSv2",
        file: str = "HPS_v2.1_compressed.pt",
        revision: str | None = None,
        download: bool = False,
        architecture: str = "ViT-H-14",
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        self.checkpoint, self.repo, self.file, self.revision = checkpoint, repo, file, revision
        self.download, self.architecture = download, architecture

    def parameters(self) -> dict[str, Any]:
        return {"architecture": self.architecture, "resize": "tensor, longer side, bicubic, antialias"}

    def weight_files(self) -> list[Path]:
        if self.checkpoint is None:
            return [from_hub(self.name, self.repo, self.file, self.revision, self.download, "2 GB")]
        path = Path(self.checkpoint).expanduser()
        if not path.is_file():
            raise Unavailable(f"HPSv2.1's checkpoint {path} does not exist: fix metrics.hps.checkpoint.")
        return [path]

    def is_cut(self, prompt: str) -> bool:
        tokens = self._network[1]([prompt])
        n = tokens.shape[1]
        return bool((tokens != self._network[1]([prompt], context_length=n + 1)[:, :n]).any())

    def rate(self, prompt: str, pictures: Sequence[Image]) -> NDArray[np.floating[Any]]:
        import torch

        network, tokenize = self._network
        found = []
        with torch.inference_mode():
            text = network.encode_text(tokenize([prompt]).to(self.torch_device), normalize=True)
            for batch in self.batches(pictures):
                pixels = torch.stack([self.pixels(picture) for picture in batch]).to(self.torch_device)
                found.append(100.0 * network.encode_image(pixels, normalize=True) @ text[0])
        return torch.cat(found).float().cpu().numpy()

    def pixels(self, picture: Image) -> torch.Tensor:
        """The network's input for an RGB picture: [3, side, side]."""
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms import functional as transform

        side = self._network[0].visual.image_size
        side = side if isinstance(side, int) else side[0]
        tensor = transform.to_tensor(picture)
        longest = max(picture.size)
        height, width = (round(length * side / longest) for length in tensor.shape[1:])
        if longest != side:
            tensor = transform.resize(tensor, [height, width], InterpolationMode.BICUBIC, antialias=True)
        left, top = (side - width) // 2, (side - height) // 2
        tensor = transform.pad(tensor, [left, top, side - width - left, side - height - top])
        return transform.normalize(tensor, _MEAN, _STD)

    @cached_property
    def _network(self) -> tuple[Any, Any]:
        import open_clip

        (path,) = self.weight_files()
        state = tensors(path, "HPSv2.1")
        network = open_clip.create_model(self.architecture, pretrained=None, precision="fp32")
        try:
            network.load_state_dict(state, strict=True)
        except RuntimeError as error:
            raise TraceBenchError(
                f"{path} does not have the tensors of open_clip's {self.architecture}: it is not HPSv2.1."
            ) from error
        return (
            network.to(self.torch_device).eval().requires_grad_(False),
            open_clip.get_tokenizer(self.architecture),
        )
