"""Field to triangle mesh with vertex colours: marching cubes (scikit-image), files by trimesh."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trace_bench.system.errors import TraceBenchError
from trace_bench.system.srgb import to_linear

FORMATS = ("ply", "obj", "glb")
_UNSIGNED_SHORT, _UNLIT = 5123, "KHR_materials_unlit"
CHUNK = 1 << 16  # points per evaluation
EMPTY = 1e-5  # densities up to this are excluded from the mean that sets the threshold
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MeshSettings:
    """The surface lies where the density is `density`; null uses the mean of all densities that are not close
    to 0, as in Stable-DreamFusion (Tang 2022) and threestudio's `auto`."""

    resolution: int = 256  # lattice points a side
    density: float | None = None
    formats: tuple[str, ...] = FORMATS

    def __post_init__(self) -> None:
        object.__setattr__(self, "formats", tuple(self.formats))
        unknown = [name for name in self.formats if name not in FORMATS]
        if unknown or self.resolution < 4 or (self.density is not None and self.density <= 0):
            raise TraceBenchError(
                f"representation.mesh needs formats among {', '.join(FORMATS)}, resolution of at least 4 and "
                f"density above 0 or null, but has {vars(self)}."
            )


@dataclass(frozen=True)
class Mesh:
    """A mesh in world units, z up; the winding of the faces makes normals point outwards."""

    vertices: np.ndarray  # float32 [V, 3]
    faces: np.ndarray  # int [F, 3]
    colors: np.ndarray  # uint8 [V, 3]


@torch.no_grad()
def extract(
    density: Callable[[Tensor], Tensor],
    color: Callable[[Tensor], Tensor],
    radius: float,
    settings: MeshSettings,
    device: torch.device | str,
) -> Mesh | None:
    """The isosurface in the cube of half side `radius`; None if there is none.

    A border of zeros around the lattice closes the mesh where the field reaches the cube's faces.
    """
    from skimage.measure import marching_cubes

    n = settings.resolution
    ticks = torch.linspace(-radius, radius, n, device=device)
    lattice = torch.cartesian_prod(ticks, ticks, ticks)
    volume = _chunked(density, lattice).reshape(n, n, n)
    level = settings.density
    if level is None:
        inside = volume[volume > EMPTY]
        level = float(inside.mean()) if len(inside) else 0.0
    if not 0.0 < level < float(volume.max()):
        return None
    step = 2.0 * radius / (n - 1)
    padded = np.pad(volume, 1)
    vertices, faces, _, _ = marching_cubes(padded, level, spacing=(step,) * 3, gradient_direction="ascent")
    vertices = (vertices - radius - step).clip(-radius, radius).astype(np.float32)
    colors = _chunked(color, torch.from_numpy(vertices).to(device)).reshape(-1, 3)
    return Mesh(vertices, faces, (colors.clip(0.0, 1.0) * 255.0).round().astype(np.uint8))


def _chunked(function: Callable[[Tensor], Tensor], points: Tensor) -> np.ndarray:
    return torch.cat([function(part) for part in points.split(CHUNK)]).float().cpu().numpy()


def write(mesh: Mesh | None, folder: Path, settings: MeshSettings) -> list[Path]:
    """Write asset.ply, asset.obj and asset.glb as configured; if there is no mesh, warn and write none."""
    import trimesh

    if not settings.formats:
        return []
    if mesh is None:
        log.warning("The field has no surface at the chosen density; no mesh is written.")
        return []
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in settings.formats:
        made = trimesh.Trimesh(mesh.vertices, mesh.faces, vertex_colors=mesh.colors, process=False)
        paths.append(folder / f"asset.{name}")
        if name == "glb":
            made.apply_transform(_Y_UP)
            made.export(paths[-1], buffer_postprocessor=_as_gltf_has_colours, tree_postprocessor=_unlit)
        else:
            made.export(paths[-1])
    return paths


def _as_gltf_has_colours(buffers: dict[Any, bytes], tree: dict[str, Any]) -> None:
    """trimesh writes colours as they are in images; glTF 2.0 (3.7.2.1) has them in linear light."""
    (mesh,) = tree["meshes"]
    accessor = list(tree["accessors"].values())[mesh["primitives"][0]["attributes"]["COLOR_0"]]
    place = list(buffers)[accessor["bufferView"]]
    linear = to_linear(np.frombuffer(buffers[place], np.uint8).reshape(-1, 4) / 255.0)
    linear[:, 3] = 1.0
    buffers[place] = np.round(linear * 65535).astype("<u2").tobytes()  # 8 bits would show steps in the dark
    accessor["componentType"] = _UNSIGNED_SHORT


def _unlit(tree: dict[str, Any]) -> None:
    """The colours have the light of the scene in them; without a material, glTF takes them for metal."""
    tree["asset"]["generator"] = "trace_bench"
    plain = {"metallicFactor": 0.0, "roughnessFactor": 1.0}
    tree["materials"] = [{"pbrMetallicRoughness": plain, "extensions": {_UNLIT: {}}}]
    tree["extensionsUsed"] = [_UNLIT]
    for primitive in tree["meshes"][0]["primitives"]:
        primitive["material"] = 0


#: in glTF, y is up and the front faces +z; in our world frame, z is up and the front faces +x
_Y_UP = np.array([[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
