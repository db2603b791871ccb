"""Init from another run's asset: its Gaussians unchanged, or points on its mesh."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from trace_bench.external.assets import asset_kind
from trace_bench.external.mesh import load_mesh
from trace_bench.external.placement import Placement
from trace_bench.inits.mesh import surface_points
from trace_bench.inits.pointcloud import read_cloud
from trace_bench.representations.points import PointCloud
from trace_bench.run_folder.manifest import Manifest, changed_content, is_done, read_manifest
from trace_bench.system.errors import TraceBenchError

if TYPE_CHECKING:
    from trace_bench.seeding import StepRng

ASSET = "asset.ply"


@dataclass(frozen=True)
class PreviousRun:
    """The asset of the finished run in `folder`; that run's time is added to this run's.

    keep_splats: Gaussians keep their sizes, rotations and opacities; false uses only their centres.
    n: number of points drawn on the surface if the asset is a mesh.
    """

    folder: str
    keep_splats: bool = True
    n: int = 10_000

    def __call__(self, rng: StepRng, device: torch.device | str = "cpu", prompt: str = "") -> PointCloud:
        folder = Path(self.folder).expanduser()
        manifest = self._manifest(folder)
        asset = folder / ASSET
        if asset_kind(asset) == "gaussians":
            cloud = read_cloud(asset, Placement(), self.keep_splats)
        else:
            cloud = surface_points(load_mesh(asset), self.n, rng)
        notes = {
            "run": manifest.fingerprint,
            "method": manifest.run.method,
            "representation": manifest.run.representation,
            "cost": manifest.cost,
        }
        minutes = manifest.minutes or manifest.minutes_shared or 0.0
        return replace(cloud, seconds=60.0 * minutes, notes=notes).to(device)

    def _manifest(self, folder: Path) -> Manifest:
        manifest = read_manifest(folder)
        if manifest is None or not is_done(folder, manifest):
            raise TraceBenchError(f"There is no finished run in {folder}; set init.folder to a finished run.")
        if ASSET not in manifest.files:
            raise TraceBenchError(
                f"The run in {folder} has no {ASSET}: "
                f"representation={manifest.run.representation} does not write one."
            )
        if why := changed_content(folder, manifest, ASSET):
            raise TraceBenchError(
                f"{folder / ASSET} is not the file that its run made ({why}); repeat it with force=true."
            )
        return manifest
