"""An open_clip model, loaded on first use; embeds pictures and texts to unit length in float32."""

from __future__ import annotations

import hashlib
import importlib.resources
import logging
import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics.base import MetricUnavailable
from trace_bench.system.errors import TraceBenchError

if TYPE_CHECKING:
    from PIL.Image import Image

log = logging.getLogger(__name__)

LOCAL, PACKAGED = "local-dir:", "pkg://"
Array = NDArray[np.float32]


class ClipModel:
    """`model` is an open_clip name, or a folder with open_clip_config.json, open_clip_model.safetensors and
    tokenizer.

    A folder is written `local-dir:FOLDER`, or `pkg://package/folder` if an installed package contains it.
    `pretrained` is an open_clip tag or a weights file. `quick_gelu: true` means that the weights were trained
    with QuickGELU; a model built without it is an error here (open_clip only warns). `setting` is where the
    command line sets the model, for messages.
    """

    def __init__(
        self,
        name: str,
        model: str,
        pretrained: str | None = None,
        quick_gelu: bool = False,
        device: str = "auto",
        setting: str | None = None,
    ) -> None:
        self.setting = setting or f"metrics.clip_score.models.{name}"  # where the command line sets it
        self.name = model if pretrained is None else f"{model} ({pretrained})"
        self.key, self.model, self.pretrained = name, model, pretrained
        self.quick_gelu, self.device = quick_gelu, device
        self._texts: dict[str, Array] = {}
        if model.startswith(LOCAL):
            self.model = LOCAL + str(self._local_folder(Path(model.removeprefix(LOCAL)).expanduser()))
        elif model.startswith(PACKAGED):
            package, _, inside = model.removeprefix(PACKAGED).partition("/")
            self.model = LOCAL + str(
                self._local_folder(Path(str(importlib.resources.files(package))) / inside)
            )

    def _local_folder(self, folder: Path) -> Path:
        if (folder / "open_clip_config.json").is_file():
            return folder
        raise MetricUnavailable(
            f"The CLIP model '{self.key}' has no {folder / 'open_clip_config.json'}: "
            f"set its folder with {self.setting}.model=local-dir:FOLDER."
        )

    @cached_property
    def weights_file(self) -> Path:
        """The weights file; a tag is downloaded, or read from the cache when offline."""
        if self.model.startswith(LOCAL):
            folder = Path(self.model.removeprefix(LOCAL))
            weights = folder / "open_clip_model.safetensors"
            if not weights.is_file():
                raise MetricUnavailable(
                    f"The CLIP model '{self.key}' has no weights {weights}: reinstall it."
                )
            return weights
        if self.pretrained and Path(self.pretrained).is_file():
            return Path(self.pretrained)
        return self._tagged_weights()

    def _tagged_weights(self) -> Path:
        import open_clip.pretrained as weights

        config = weights.get_pretrained_cfg(self.model, self.pretrained or "")
        if not config:
            raise TraceBenchError(
                f"open_clip has no weights '{self.pretrained}' for the model '{self.model}'."
            )
        try:
            return Path(weights.download_pretrained(config))
        except Exception as error:
            raise MetricUnavailable(
                f"The weights of {self.name} are not on this machine and could not be downloaded "
                f"({type(error).__name__}): run `python -m evaluation.score` once with a network, "
                f"or set {self.setting}.pretrained=FILE."
            ) from error

    @cached_property
    def weights_hash(self) -> str:
        """SHA-256 of the weights; for a local folder also of its configuration and tokenizer."""
        files = [self.weights_file]
        if self.model.startswith(LOCAL):
            files += sorted(p for p in self.weights_file.parent.iterdir() if p.suffix in {".json", ".txt"})
        digest = hashlib.sha256()
        for path in files:
            with path.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        return digest.hexdigest()

    @cached_property
    def _parts(self) -> tuple[Any, Any, Any, Any]:
        """(network, preprocessing, tokenizer, device)"""
        import open_clip
        import torch

        _ = self.weights_file  # raises a short error before open_clip raises a long one
        device = self.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        local = self.model.startswith(LOCAL)
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="QuickGELU mismatch")
            network, _, preprocess = open_clip.create_model_and_transforms(
                self.model,
                pretrained=None if local else self.pretrained,  # the tag selects the preprocessing
                precision="fp32",
                device=device,
                weights_only=True,
            )
        kinds = {type(module).__name__ for module in network.modules()}
        if self.quick_gelu != ("QuickGELU" in kinds):
            raise TraceBenchError(
                f"The CLIP model '{self.key}' is declared with quick_gelu={str(self.quick_gelu).lower()}, "
                f"but {self.model} is not and would give different scores: fix {self.setting}."
            )
        return (
            network.eval().requires_grad_(False),
            preprocess,
            open_clip.get_tokenizer(self.model),
            torch.device(device),
        )

    def embed_images(self, images: Sequence[Image], batch_size: int) -> Array:
        """Unit embeddings [N, D] of RGB pictures."""
        import torch

        network, preprocess, _, device = self._parts
        parts = []
        for start in range(0, len(images), batch_size):
            batch = torch.stack([preprocess(image) for image in images[start : start + batch_size]])
            with torch.inference_mode():
                parts.append(network.encode_image(batch.to(device), normalize=True).float().cpu())
        return torch.cat(parts).numpy()

    def is_cut(self, text: str) -> bool:
        """Whether the model reads only the beginning of a text: with room for one token more, the tokenizer
        puts another token in the last place."""
        import torch

        tokenize = self._parts[2]
        tokens = tokenize([text])  # [1, L]
        n = tokens.shape[1]
        return not torch.equal(tokens, tokenize([text], context_length=n + 1)[:, :n])

    def embed_texts(self, texts: Sequence[str]) -> Array:
        """Unit embeddings [N, D] of texts; cached."""
        import torch

        network, _, tokenize, device = self._parts
        missing = [text for text in dict.fromkeys(texts) if text not in self._texts]
        for text in missing:
            tokens = tokenize([text])
            if self.is_cut(text):
                log.warning("CLIP reads only the beginning of the prompt: %s", text)
            with torch.inference_mode():
                self._texts[text] = (
                    network.encode_text(tokens.to(device), normalize=True)[0].float().cpu().numpy()
                )
        return np.stack([self._texts[text] for text in texts])
