"""SD 2.1's full networks on the meta device: no weights, no memory, no GPU, and every call of a step.

Tensors on the meta device have shapes, types and a device, but no values. To mix them with tensors on the
CPU, or to read one, is an error. So it stands in for a GPU where the question is what is started.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.utils._foreach_utils import _get_fused_kernels_supported_devices

from benchmarks.full_size import TEXT_ENCODER, save_scheduler, save_tokenizer, sd21
from trace_bench.priors.base import TextEmbedding
from trace_bench.priors.stable_diffusion import StableDiffusionPrior
from trace_bench.representations.gaussians import gaussians
from trace_bench.representations.points import PointCloud

META = torch.device("meta")
TEXT_LENGTH = 77


class MetaPrior(StableDiffusionPrior):
    """Stable Diffusion without weights; texts have embeddings without values."""

    latent_shape: tuple[int, int, int]

    def _load(self, cls: Any, folder: Path, subfolder: str, dtype: torch.dtype) -> torch.nn.Module:
        with META:
            network = cls.from_config(cls.load_config(folder, subfolder=subfolder))
        torch.nn.Module.to(network, dtype)
        return network.eval().requires_grad_(False)

    def embed(self, texts: Sequence[str]) -> TextEmbedding:
        config: Any = self._denoiser.unet.config
        shape = (len(texts), self.tokenizer.model_max_length, config.cross_attention_dim)
        return TextEmbedding(torch.empty(shape, device=self.device))


#: Changes that make SD 2.1 small, for tests of what uses it.
SMALL_UNET = {
    "sample_size": 16,
    "block_out_channels": [16, 32],
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "attention_head_dim": [2, 4],
    "layers_per_block": 1,
    "cross_attention_dim": 16,
    "norm_num_groups": 8,
}
SMALL_VAE = {
    "block_out_channels": [8, 16],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "layers_per_block": 1,
    "norm_num_groups": 4,
}


def write_configs(folder: Path, small: bool = False) -> tuple[Path, Path]:
    """Folders of SD 2.1-base and of SD 2.1-v for the adapter, with empty weight files."""
    unet, vae = sd21()
    if small:
        unet, vae = unet | SMALL_UNET, vae | SMALL_VAE
    configs = {
        "unet": {"_class_name": "UNet2DConditionModel", **unet},
        "vae": {"_class_name": "AutoencoderKL", **vae},
        "text_encoder": TEXT_ENCODER,
    }
    models = {"base": "epsilon", "adapter": "v_prediction"}
    for name, prediction_type in models.items():
        for network, config in configs.items():
            (folder / name / network).mkdir(parents=True)
            (folder / name / network / "config.json").write_text(json.dumps(config))
            stem = "model" if network == "text_encoder" else "diffusion_pytorch_model"
            save_file({"empty": torch.zeros(1)}, folder / name / network / f"{stem}.safetensors")
        save_tokenizer(folder / name / "tokenizer", TEXT_LENGTH)
        save_scheduler(folder / name / "scheduler", prediction_type)
    return folder / "base", folder / "adapter"


def sd21_on_meta(folder: Path, **settings: Any) -> MetaPrior:
    """SD 2.1 in bfloat16 with its adapter's base; `folder` is empty, or one that this function filled."""
    if not (folder / "base").exists():
        write_configs(folder)
    given: dict[str, Any] = {"resolution": 512, "dtype": "bfloat16", "device": META} | settings
    return MetaPrior(str(folder / "base"), adapter_repo=str(folder / "adapter"), **given)


class _Splat(torch.autograd.Function):
    """Shapes of gsplat's kernels, one operation forward and one backward; the real ones are about thirty."""

    @staticmethod
    def forward(ctx: Any, means2d: Tensor, shape: tuple[int, ...], *inputs: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        ctx.shapes = (means2d.shape, *(x.shape for x in inputs))
        return means2d.new_empty(shape), means2d.new_empty((*shape[:-1], 1))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        first, *others = (grads[0].new_empty(shape) for shape in ctx.shapes)
        return (first, None, *others)


def rasterization(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor,
    viewmats: Tensor, Ks: Tensor, width: int, height: int, backgrounds: Tensor, **others: Any,
) -> tuple[Tensor, Tensor, dict[str, Any]]:  # fmt: skip
    """gsplat's `rasterization` with `render_mode="RGB+D"`: shapes only. Cameras must be on the device."""
    for name, tensor in {"viewmats": viewmats, "Ks": Ks, "backgrounds": backgrounds}.items():
        if tensor.device.type != "meta":
            raise ValueError(f"{name} is on {tensor.device}, not on the device of the Gaussians")
    views, n, channels = len(viewmats), len(means), colors.shape[-1] + 1
    means2d = means[None, :, :2].expand(views, n, 2) * 1.0
    image, alpha = _Splat.apply(means2d, (views, height, width, channels), quats, scales, opacities, colors)
    radii = torch.empty(views, n, 2, dtype=torch.int32, device=means.device)
    return image, alpha, {"means2d": means2d, "radii": radii, "width": width, "height": height}


@contextmanager
def stand_ins() -> Iterator[None]:
    """On the meta device 3D Gaussians render shapes, and torch's fused optimisers accept it."""
    fused = "torch.optim.optimizer._get_fused_kernels_supported_devices"
    devices = _get_fused_kernels_supported_devices()
    with (
        mock.patch.object(gaussians, "rasterization_on", return_value=rasterization),
        mock.patch(fused, side_effect=lambda: [*devices, "meta"]),  # torch changes the list
    ):
        yield


def points(n: int) -> PointCloud:
    """n points on a spiral around the unit sphere."""
    i = torch.arange(n) / n
    angle = i * n * 2.4
    positions = torch.stack([(1 - i) * angle.cos(), (1 - i) * angle.sin(), i], dim=-1)
    return PointCloud(positions, torch.full((n, 3), 0.5))
