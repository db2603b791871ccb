"""Gaussian splatting on the CPU: `rasterization` with gsplat's signature, conventions and `info` dict.

projection.py   3D Gaussians -> screen-space ellipses, and its gradient
bands.py        ellipses -> pixels, front to back, and its gradient
compositing.py  the same as an autograd function
api.py          gsplat's function around the two

The kernels compute in float64 whatever the tensors' dtype, do no more work than there are covered pixels, and
give the same bits for any number of threads.
"""

from trace_bench.representations.splat_cpu.api import rasterization

__all__ = ["rasterization"]
