"""3D Gaussian splatting: the representation, its densification, its losses and its .ply files."""

from trace_bench.representations.gaussians.gaussians import Gaussians

__all__ = ["Gaussians"]
