"""External assets, made by another system: opened to be rendered, scored and listed in tables like our own.

An asset is a 3D Gaussian .ply, a mesh, or a folder of images from the cameras of the evaluation rig.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from trace_bench.run_folder.manifest import RunIdentity
from trace_bench.run_folder.pictures import normals_in, pictures_in
from trace_bench.system.errors import TraceBenchError

if TYPE_CHECKING:
    import numpy as np
    import torch

    from trace_bench.cameras import EvaluationRig
    from trace_bench.external.mesh_render import VisibleMesh
    from trace_bench.external.placement import Placement
    from trace_bench.render import Renderable
    from trace_bench.representations.gaussians.gaussians import Gaussians

Kind = Literal["gaussians", "mesh", "renders"]
_HEADER_BYTES = 1 << 16


class ExternalAsset(Protocol):
    """An asset that can be exported to a run folder and rendered from the rig."""

    n_primitives: int | None

    def export(self, folder: Path) -> list[Path]: ...

    def write_renders(
        self, rig: EvaluationRig, device: torch.device, folder: Path
    ) -> tuple[list[str], int]: ...


@dataclass(frozen=True)
class External:
    """`method=external`: the asset, what made it, and how long it took.

    asset: a .ply of 3D Gaussians, a mesh (.ply, .obj, .glb, .stl, .off), or a folder of images.
    source: what made it: system, version, where it ran.
    minutes: wall-clock minutes it took, as declared by its makers; None if unknown.
    up, turn_deg, radius: placement in the world frame (`Placement`); images are not changed.
    """

    asset: str
    source: str
    minutes: float | None
    up: str = "z"
    turn_deg: float = 0.0
    radius: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.source, str) or not self.source.strip():
            raise TraceBenchError("method.source must say what made the asset.")
        number = isinstance(self.minutes, (int, float)) and not isinstance(self.minutes, bool)
        if self.minutes is not None and not (number and 0.0 <= self.minutes < float("inf")):
            raise TraceBenchError(
                f"method.minutes must be a number of at least 0, or null, but is {self.minutes!r}."
            )

    def declared(self, name: str | None) -> dict[str, Any]:
        """The asset's entry in the manifest; `name` is its name in tables."""
        return {
            "name": name or "External",
            "source": self.source,
            "minutes": self.minutes,
            "asset": Path(self.asset).name,
        }

    def open(self, device: torch.device, prompt: str = "") -> ExternalAsset:
        """The placed asset on a device; it is the same for every prompt."""
        from trace_bench.external.placement import (
            Placement,  # imports torch, which sweep planning must not load
        )

        path, placement = Path(self.asset), Placement(self.up, self.turn_deg, self.radius)
        kind = asset_kind(path)
        if kind == "renders":
            return _Pictures(path)
        return _Splats(path, placement, device) if kind == "gaussians" else _Mesh(path, placement)


def external_identity(identity: RunIdentity, method: Mapping[str, Any]) -> RunIdentity:
    """The identity with the external asset's own name, and its kind as the representation."""
    name = re.sub(r"[^a-z0-9]+", "-", str(method.get("display_name") or "").lower()).strip("-")
    own = identity.method if name in ("", identity.method) else f"{identity.method}-{name[:40]}"
    return replace(identity, method=own, representation=asset_kind(Path(method["asset"])), resolution=0)


def asset_kind(path: Path) -> Kind:
    """The kind of an asset, from its name and, for a .ply, its header."""
    if path.is_dir():
        return "renders"
    if not path.is_file():
        raise TraceBenchError(f"{path} does not exist; set method.asset to an existing file or folder.")
    suffix = path.suffix.lower()
    if suffix != ".ply":
        if suffix not in (".obj", ".glb", ".stl", ".off"):
            raise TraceBenchError(
                f"{path} cannot be rendered; use a 3DGS .ply, a mesh (.ply, .obj, .glb, .stl, "
                ".off) or a folder of images."
            )
        return "mesh"
    with path.open("rb") as stream:
        header = stream.read(_HEADER_BYTES).partition(b"end_header")[0].decode("ascii", errors="replace")
    if " f_dc_0" in header:
        return "gaussians"
    if not re.search(r"^element face [1-9]", header, re.MULTILINE):
        raise TraceBenchError(
            f"{path} has neither 3D Gaussians nor triangles; points alone have no surface to render."
        )
    return "mesh"


class _Splats:
    """3D Gaussians; spherical harmonics above degree 0 are dropped."""

    def __init__(self, path: Path, placement: Placement, device: torch.device) -> None:
        from trace_bench.representations.gaussians.gaussians import Gaussians
        from trace_bench.representations.gaussians.ply import read_splat_ply
        from trace_bench.representations.points import PointCloud

        params = placement.place_splats(read_splat_ply(path))
        points = PointCloud(params["means"], params["sh0"][:, 0], splats=params)
        self.path = path
        self.gaussians: Gaussians = Gaussians(
            points, 0, (1, 1, 1), 0, device, densify={"mode": "off"}, colors="released"
        )
        self.n_primitives: int | None = len(points)

    def export(self, folder: Path) -> list[Path]:
        return self.gaussians.export(folder)

    def write_renders(self, rig: EvaluationRig, device: torch.device, folder: Path) -> tuple[list[str], int]:
        return _write_visible(self.gaussians, self.path, rig, device, folder)


class _Mesh:
    """Triangles, with the colours of the file."""

    def __init__(self, path: Path, placement: Placement) -> None:
        from trace_bench.external.mesh import load_mesh
        from trace_bench.external.mesh_render import VisibleMesh

        mesh = load_mesh(path).placed(placement)
        self.visible: VisibleMesh = VisibleMesh(mesh)
        self.path = path
        self.n_primitives: int | None = len(mesh.faces)

    def export(self, folder: Path) -> list[Path]:
        """Copy the file unchanged, without an .obj's materials."""
        return [Path(shutil.copyfile(self.path, folder / f"asset{self.path.suffix.lower()}"))]

    def write_renders(self, rig: EvaluationRig, device: torch.device, folder: Path) -> tuple[list[str], int]:
        return _write_visible(self.visible, self.path, rig, device, folder)


class _Pictures:
    """One image per camera of the rig, in camera order; optionally normal_<i>.png in the same folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.n_primitives: int | None = None

    def export(self, folder: Path) -> list[Path]:
        return []  # the images are the renders

    def write_renders(self, rig: EvaluationRig, device: torch.device, folder: Path) -> tuple[list[str], int]:
        import numpy as np

        from trace_bench.run_folder.rendering import RigRenders, write_views

        paths = pictures_in(self.folder)
        if len(paths) != rig.n_views:
            raise TraceBenchError(
                f"{self.folder} has {len(paths)} images, but the rig has {rig.n_views} cameras; render the "
                f"asset from the cameras in any run's renders/cameras.json, or set rig.n_views={len(paths)}."
            )
        rgb = np.stack([_over_white(path, rig.resolution) for path in paths])
        if (rgb == 255).all():
            raise TraceBenchError(f"The images in {self.folder} are all white; render them again.")
        normals = [_over_white(path, rig.resolution) for path in normals_in(self.folder)]
        views = RigRenders(rgb, np.stack(normals) if normals else np.full_like(rgb, 255), None, None)
        return write_views(views, rig.cameras(), folder)


def _write_visible(
    asset: Renderable, path: Path, rig: EvaluationRig, device: torch.device, folder: Path
) -> tuple[list[str], int]:
    """Render the rig and write the files; refuses an asset that no camera sees."""
    from trace_bench.run_folder.rendering import render_views, write_views

    views = render_views(asset, rig.cameras(), _nothing_to_decode, device)
    if views.alpha is None or not views.alpha.any():
        raise TraceBenchError(
            f"No camera of the rig sees anything of {path}; place it with method.radius (and method.up), or "
            "check that it is not transparent."
        )
    return write_views(views, rig.cameras(), folder)


def _over_white(path: Path, size: int) -> np.ndarray:
    """An image of size x size pixels, transparency over white: [size, size, 3] uint8."""
    import numpy as np
    from PIL import Image

    try:
        with Image.open(path) as picture:
            rgba = picture.convert("RGBA")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise TraceBenchError(f"{path} is not a readable image ({error}).") from error
    if rgba.size != (size, size):
        raise TraceBenchError(
            f"{path} has {rgba.width} x {rgba.height} pixels, but the rig has {size} x {size}; render it at "
            f"that size, or set rig.resolution={rgba.width}."
        )
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return np.asarray(Image.alpha_composite(white, rgba).convert("RGB"))


def _nothing_to_decode(latents: torch.Tensor) -> torch.Tensor:
    raise ValueError("an external asset has no latents")
