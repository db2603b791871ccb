"""Init from Shap-E (Jun and Nichol 2023), as in GaussianDreamer: its mesh, grown into a point cloud."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from trace_bench.external.placement import Placement
from trace_bench.inits.cache import cached, is_cached
from trace_bench.inits.growth import grow
from trace_bench.inits.shap_e_weights import load_into
from trace_bench.representations.points import PointCloud
from trace_bench.settings.inputs import contents
from trace_bench.system.errors import TraceBenchError
from trace_bench.system.model_files import check_complete, resolve

if TYPE_CHECKING:
    from diffusers import ShapEPipeline

    from trace_bench.seeding import StepRng

COLORS = ("linear", "srgb")


@dataclass(frozen=True)
class ShapE:
    """Shap-E's mesh for the prompt, and points around its vertices.

    repo, revision: a folder in the format of diffusers' ShapEPipeline, or a hub repository and its revision.
    variant: variant of the weight files, if the repository has it.
    weights: a checkpoint in OpenAI's format that replaces the repository's text model, such as Cap3D's
        finetuned model; None keeps the repository's.
    dtype: float16 or float32; a CPU always uses float32.
    guidance_scale, steps, sigma_min, sigma_max: of the sampler (Heun, Karras's noise levels, no churn).
    grid: vertices a side of the lattice for extracting the mesh.
    candidates, reach, brighten: see `grow`; in Shap-E's coordinates, where the object fills [-1, 1].
    scale: factor on Shap-E's coordinates.
    turn_deg: turn about the vertical axis, counter-clockwise from above; 90 turns the front from -y to +x.
    colors: `linear` uses the mesh's colours unchanged, in linear light, as released; `srgb` converts them to
        sRGB.
    max_points: choose this many at random; None keeps all.
    """

    repo: str = "openai/shap-e"
    revision: str = "main"
    variant: str | None = "fp16"
    weights: str | None = None
    dtype: str = "float16"
    guidance_scale: float = 15.0
    steps: int = 64
    sigma_min: float | None = 1e-3
    sigma_max: float | None = 160.0
    grid: int = 128
    candidates: int = 1_000_000
    reach: float = 0.01
    brighten: float = 0.2
    scale: float = 1.6
    turn_deg: float = 90.0
    colors: str = "linear"
    max_points: int | None = None

    def __post_init__(self) -> None:
        if self.colors not in COLORS or self.dtype not in ("float16", "float32"):
            raise TraceBenchError(
                f"init=shap_e needs colors from {', '.join(COLORS)} and dtype from float16, float32, but got "
                f"{self.colors} and {self.dtype}."
            )
        if min(self.steps, self.grid - 1, self.candidates, self.reach, self.scale) <= 0:
            raise TraceBenchError(
                "init=shap_e needs steps, candidates, reach and scale above 0 and grid above 1."
            )

    def __call__(self, rng: StepRng, device: torch.device | str = "cpu", prompt: str = "") -> PointCloud:
        key = self._key(prompt, rng.seed)
        made, seconds = cached("shap_e", key, lambda: self._generate(rng, torch.device(device), prompt))
        vertices, colors = made["vertices"], made["colors"]
        if self.colors == "srgb":
            colors = np.where(colors <= 0.0031308, 12.92 * colors, 1.055 * colors ** (1 / 2.4) - 0.055)
        positions, colors = grow(vertices, colors, self.candidates, self.reach, self.brighten)
        placed, _ = Placement(turn_deg=self.turn_deg)(torch.from_numpy(self.scale * positions))
        cloud = PointCloud(
            placed.float(),
            torch.from_numpy(colors).float(),
            seconds=seconds,
            notes={"model": self.repo, "commit": str(made["commit"])},
        )
        return cloud.subset(self.max_points, rng).to(device)

    def check_files(self, wanted: Sequence[tuple[str, int]], *, download: bool) -> None:
        """Check that the model's files are on this machine, unless every mesh is in the cache.

        Args:
            wanted: the (prompt, seed) of every mesh.
            download: fetch missing files from the hub; False only looks into the local cache.

        Raises:
            TraceBenchError: names the file or the repository.
        """
        if all(is_cached("shap_e", self._key(prompt, seed)) for prompt, seed in wanted):
            return
        folder = resolve(self.repo, self.revision, file_patterns(self.variant), download)
        check_complete(folder, _COMPONENTS, self.repo, self.revision)

    def _key(self, prompt: str, seed: int) -> dict[str, Any]:
        """What the mesh depends on."""
        return {
            **contents("init", {"repo": self.repo, "weights": self.weights, "inputs": _INPUTS}),
            **{name: getattr(self, name) for name in _SAMPLING},
            "prompt": prompt,
            "seed": seed,
        }

    def _generate(self, rng: StepRng, device: torch.device, prompt: str) -> dict[str, np.ndarray]:
        """Vertices [V, 3] of the prompt's mesh in [-1, 1] and their colours [V, 3] in linear light."""
        folder = resolve(self.repo, self.revision, file_patterns(self.variant))
        pipe = self._pipeline(folder, device)
        latents = pipe(
            prompt,
            guidance_scale=self.guidance_scale,
            num_inference_steps=self.steps,
            generator=rng.generator("shap_e"),
            output_type="latent",
        ).images
        with torch.no_grad():
            mesh = pipe.shap_e_renderer.decode_to_mesh(latents[:1], device, grid_size=self.grid)
        colors = torch.stack([mesh.vertex_channels[name] for name in ("R", "G", "B")], dim=-1)
        if len(mesh.verts) == 0:
            raise TraceBenchError(f'Shap-E generated an empty mesh for "{prompt}"; try another seed.')
        return {
            "vertices": mesh.verts.float().cpu().numpy(),
            "colors": colors.float().cpu().numpy(),
            "commit": np.array(folder.name if folder.parent.name == "snapshots" else ""),
        }

    def _pipeline(self, folder: Path, device: torch.device) -> ShapEPipeline:
        from diffusers import ShapEPipeline

        has_variant = self.variant and any(folder.glob(f"*/*.{self.variant}.*"))
        options: dict[str, Any] = {"variant": self.variant} if has_variant else {}
        dtype = torch.float32 if device.type == "cpu" else getattr(torch, self.dtype)
        try:
            pipe = ShapEPipeline.from_pretrained(folder, local_files_only=True, torch_dtype=dtype, **options)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise TraceBenchError(
                f"{self.repo} cannot be loaded as a ShapEPipeline ({' '.join(str(error).split())[:200]})."
            ) from error
        if self.weights is not None:
            load_into(pipe.prior, Path(self.weights).expanduser())
        levels = {"sigma_min": self.sigma_min, "sigma_max": self.sigma_max}
        given = {name: value for name, value in levels.items() if value is not None}
        pipe.scheduler.register_to_config(**given)
        pipe.set_progress_bar_config(disable=True)
        return pipe.to(device)


_COMPONENTS = ("prior", "text_encoder", "tokenizer", "scheduler", "shap_e_renderer")
_INPUTS = {"repo": "model", "weights": "file"}
#: Settings that change the mesh; the cache key contains these, not the later ones.
_SAMPLING = ("revision", "variant", "dtype", "guidance_scale", "steps", "sigma_min", "sigma_max", "grid")


def file_patterns(variant: str | None) -> list[str]:
    """Files to download from the hub repository; the renderer's weights have no variant there."""
    weights = f"*.{variant}.safetensors" if variant else "*.safetensors"
    always = ["model_index.json", "*/*.json", "*/*.txt", "shap_e_renderer/*"]
    return [*always, f"prior/{weights}", f"text_encoder/{weights}"]
