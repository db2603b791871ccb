"""An open_clip model, loaded on first use; embeds pictures and texts to unit length in float32."""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import logging
import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trace_bench.system.cache import entry_path, keep, kept
from trace_bench.system.errors import TraceBenchError, Unavailable
from trace_bench.system.flops import tflop_of

if TYPE_CHECKING:
    from PIL.Image import Image

log = logging.getLogger(__name__)

LOCAL, PACKAGED = "local-dir:", "pkg://"
_COUNT = 1  # increase when the counting of operations changes
Array = NDArray[np.float32]


class ClipModel:
    """`model` is an open_clip name, or a folder with open_clip_config.json, open_clip_model.safetensors and
    tokenizer.

    A folder is written `local-dir:FOLDER`, or `pkg://package/folder` if an installed package contains it.
    `pretrained` is an open_clip tag or a weights file. `quick_gelu: true` means that the weights were trained
    with QuickGELU; a model built without it is an error here (open_clip only warns). For messages, `setting`
    is where the command line sets the model, and `fetch` a command that downloads it.
    """

    def __init__(
        self,
        name: str,
        model: str,
        pretrained: str | None = None,
        quick_gelu: bool = False,
        device: str = "auto",
        setting: str | None = None,
        fetch: str = "python -m evaluation.score",
    ) -> None:
        self.fetch = fetch
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
        raise Unavailable(
            f"The CLIP model '{self.key}' has no {folder / 'open_clip_config.json'}: "
            f"set its folder with {self.setting}.model=local-dir:FOLDER."
        )

    @property
    def is_local(self) -> bool:
        """Whether the model is a folder, or its weights are a named file."""
        return self.model.startswith(LOCAL) or bool(self.pretrained and Path(self.pretrained).is_file())

    @cached_property
    def weights_file(self) -> Path:
        """The weights file; a tag is downloaded, or read from the cache when offline."""
        return self._weights_file(download=True)

    def _weights_file(self, download: bool) -> Path:
        if self.model.startswith(LOCAL):
            folder = Path(self.model.removeprefix(LOCAL))
            weights = folder / "open_clip_model.safetensors"
            if not weights.is_file():
                raise Unavailable(f"The CLIP model '{self.key}' has no weights {weights}: reinstall it.")
            return weights
        if self.pretrained and Path(self.pretrained).is_file():
            return Path(self.pretrained)
        return self._tagged_weights(download)

    def _tagged_weights(self, download: bool) -> Path:
        import open_clip.pretrained as weights

        config = weights.get_pretrained_cfg(self.model, self.pretrained or "")
        if not config:
            raise TraceBenchError(
                f"open_clip has no weights '{self.pretrained}' for the model '{self.model}'."
            )
        how = f"run `{self.fetch}` once with a network, or set {self.setting}.pretrained=FILE."
        if not download:
            if found := _cached(config):
                return found
            raise Unavailable(f"The weights of {self.name} are not on this machine: {how}")
        try:
            return Path(weights.download_pretrained(config))
        except Exception as error:
            raise Unavailable(
                f"The weights of {self.name} are not on this machine and could not be downloaded "
                f"({type(error).__name__}): {how}"
            ) from error

    def files(self, download: bool) -> list[Path]:
        """The weights; of a folder also its configuration and tokenizer. `download`: fetch missing ones."""
        weights = self._weights_file(download)
        if not self.model.startswith(LOCAL):
            return [weights]
        return [weights, *sorted(p for p in weights.parent.iterdir() if p.suffix in {".json", ".txt"})]

    @cached_property
    def weights_hash(self) -> str:
        """SHA-256 of `files`."""
        digest = hashlib.sha256()
        for path in self.files(download=True):
            with path.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        return digest.hexdigest()

    def tflop(self) -> float:
        """TFLOP of embedding one picture, counted without weights and kept in the cache."""
        config = Path(self.model.removeprefix(LOCAL)) / "open_clip_config.json"
        asked = config.read_text(encoding="utf-8") if self.model.startswith(LOCAL) else self.model
        path = entry_path("flops", f"{_COUNT} clip {asked}")
        found = kept(path, json.loads)
        if found is None:
            found = self._count()
            keep(path, json.dumps(found).encode())
        return float(found)

    def _count(self) -> float:
        import open_clip
        import torch

        logging.disable(logging.WARNING)  # it would warn of random weights
        try:
            network = open_clip.create_model(self.model, load_weights=False, device="meta")
        finally:
            logging.disable(logging.NOTSET)
        size = network.visual.image_size
        height, width = (size, size) if isinstance(size, int) else size
        with torch.inference_mode():
            return tflop_of(
                lambda: network.encode_image(torch.empty(1, 3, height, width, device="meta"), normalize=True)
            )

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


def _cached(config: Mapping[str, Any]) -> Path | None:
    """The weights of an open_clip tag where open_clip would have put them; None if they are not there."""
    from huggingface_hub import try_to_load_from_cache

    repo, _, name = str(config.get("hf_hub") or "").rpartition("/")
    if not repo:
        path = Path("~/.cache/clip").expanduser() / str(config.get("url", "")).rpartition("/")[2]
        return path if path.is_file() else None
    names = [name] if name else ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]
    names += [f"{Path(each).stem}.safetensors" for each in names if each.endswith((".bin", ".pth"))]
    found = (try_to_load_from_cache(repo, each) for each in names)
    return next((Path(path) for path in found if isinstance(path, str)), None)
