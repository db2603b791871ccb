"""Gaussian splatting on the CPU: `rasterization` with gsplat's signature, conventions and `info` dict.

projection.py   3D Gaussians -> screen-space ellipses, and its gradient
bands.py        ellipses -> pixels, front to back, and its gradient
compositing.py  bands.py as an autograd function
api.py          gsplat's `rasterization` on top of these

The kernels compute in float64 for every tensor dtype, do work only for covered pixels, and give bitwise equal
results for any number of threads.
"""

from trace_bench.representations.splat_cpu.api import rasterization

__all__ = ["rasterization"]
