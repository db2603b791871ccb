"""Rendering time of one training step: our CPU kernels, plain torch, and gsplat if CUDA is available.

    python -m benchmarks.rasteriser                       # 4000 Gaussians, one 64x64 view, one thread
    python -m benchmarks.rasteriser --gaussians 20000 --resolution 256 --cameras 4 --threads 2
    python -m benchmarks.rasteriser --gaussians 100000 --against COMMIT   # ours here and there, CPU ms

Forward and backward to every parameter, colours and depth, random background. All implementations alternate
in one process, so that a busy machine slows all of them. Prints medians and ratios.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.arguments import parser_of
from trace_bench.cameras import make_cameras
from trace_bench.representations.splat_cpu import rasterization as cpu_rasterization
from trace_bench.representations.splat_cpu.projection import ALPHA_THRESHOLD, Projection

Rasterization = Callable[..., tuple[Tensor, Tensor, dict]]


def ball(n: int, seed: int = 0) -> list[Tensor]:
    """means, quats, scales, opacities and colors of n Gaussians in a ball of radius 0.8."""
    rng = torch.Generator().manual_seed(seed)
    direction = torch.nn.functional.normalize(torch.randn(n, 3, generator=rng), dim=-1)
    means = 0.8 * direction * torch.rand(n, 1, generator=rng) ** (1 / 3)
    scales = 0.03 * torch.exp(0.3 * torch.randn(n, 3, generator=rng))
    opacities = torch.sigmoid(torch.randn(n, generator=rng))
    return [means, torch.randn(n, 4, generator=rng), scales, opacities, torch.rand(n, 3, generator=rng)]


def torch_rasterization(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor,
    viewmats: Tensor, Ks: Tensor, width: int, height: int, backgrounds: Tensor, **_: object,
) -> tuple[Tensor, Tensor, dict]:  # fmt: skip
    """Plain torch: one row per (Gaussian, pixel) pair, sorted by pixel and depth; gradients by autograd.

    It uses our projection, so that only the compositing is compared.
    """
    limits = (float(width), float(height), 0.01, 1e10, 0.0, 0.3)
    means2d, depths, conics, radii = Projection.apply(means, quats, scales, opacities, viewmats, Ks, limits)
    channels = torch.cat([colors.expand(len(viewmats), -1, -1), depths[..., None]], dim=-1)
    images = []
    for c in range(len(viewmats)):
        gaussian, pixel = covered_pixels(means2d[c].detach(), radii[c], width, height)
        alpha = pair_alpha(means2d[c][gaussian], conics[c][gaussian], opacities[gaussian], pixel, width)
        keep = alpha.detach() >= ALPHA_THRESHOLD
        gaussian, pixel, alpha = gaussian[keep], pixel[keep], alpha[keep]
        order = torch.argsort(depths[c].detach()[gaussian], stable=True)
        order = order[torch.argsort(pixel[order], stable=True)]
        gaussian, pixel, alpha = gaussian[order], pixel[order], alpha[order]
        log_left = torch.log1p(-alpha.double()).cumsum(0)
        before = torch.cat([log_left.new_zeros(1), log_left[:-1]])
        first = torch.searchsorted(pixel, pixel)  # start of this pixel's list
        weight = alpha * torch.exp(before - before[first]).to(alpha.dtype)
        image = channels.new_zeros(height * width, channels.shape[-1])
        image = image.index_add(0, pixel, weight[:, None] * channels[c][gaussian])
        covered = channels.new_zeros(height * width).index_add(0, pixel, weight)
        behind = torch.cat([backgrounds[c], backgrounds.new_zeros(1)])
        images.append((image + (1 - covered)[:, None] * behind).reshape(height, width, -1))
    return torch.stack(images), torch.empty(0), {}


def covered_pixels(means2d: Tensor, radii: Tensor, width: int, height: int) -> tuple[Tensor, Tensor]:
    """All pixels in the bounding box of each Gaussian: (Gaussian, row-major pixel) indices."""
    size = torch.tensor([width, height])
    low = (means2d - radii).floor().long().clamp(min=0).minimum(size)
    extent = ((means2d + radii).ceil().long().clamp(min=0).minimum(size) - low) * (radii > 0)
    count = extent.prod(dim=-1)
    gaussian = torch.repeat_interleave(torch.arange(len(count)), count)
    within = torch.arange(len(gaussian)) - (count.cumsum(0) - count)[gaussian]
    columns = extent[gaussian, 0]
    return gaussian, (low[gaussian, 1] + within // columns) * width + low[gaussian, 0] + within % columns


def pair_alpha(mean: Tensor, conic: Tensor, opacity: Tensor, pixel: Tensor, width: int) -> Tensor:
    dx, dy = pixel % width + 0.5 - mean[:, 0], pixel // width + 0.5 - mean[:, 1]
    sigma = 0.5 * (conic[:, 0] * dx * dx + conic[:, 2] * dy * dy) + conic[:, 1] * dx * dy
    return (opacity * torch.exp(-sigma)).clamp(max=0.999)


def make_step(rasterization: Rasterization, args: argparse.Namespace, device: str) -> Callable[[], None]:
    """One forward and backward pass, synchronised."""
    params = [x.to(device).requires_grad_() for x in ball(args.gaussians)]
    n, r = args.cameras, args.resolution
    cameras = make_cameras(torch.full((n,), 15.0), torch.arange(n) * 137.5, 2.65, 42.5, r, r).to(device)
    backgrounds, target = torch.rand(n, 3, device=device), torch.rand(n, r, r, 4, device=device)

    def step() -> None:
        views = (cameras.viewmats, cameras.Ks, r, r)
        image, _, _ = rasterization(
            *params, *views, backgrounds=backgrounds, render_mode="RGB+D", packed=False
        )
        torch.autograd.grad((image * target).sum(), params)
        if device == "cuda":
            torch.cuda.synchronize()

    return step


def main() -> None:
    parser = parser_of("rasteriser", __doc__)
    defaults = {"gaussians": 4000, "resolution": 64, "cameras": 1, "threads": 1, "repeats": 30}
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--against", help="compare our kernels with those of another commit")
    parser.add_argument("--measure", action="store_true", help="only our kernels, for --against")
    args = parser.parse_args()
    if args.against and not args.measure:
        from benchmarks.against import compare  # other commits may lack it, and they only measure

        given = [f"--{name}={getattr(args, name)}" for name in defaults]
        compare("rasteriser", given, args.against, repeats=3)
        return
    torch.set_num_threads(args.threads)
    if args.measure:
        step, times = make_step(cpu_rasterization, args, "cpu"), []
        step()
        for _ in range(args.repeats):
            start = time.process_time()
            step()
            times.append(time.process_time() - start)
        print(f"splat_cpu, {args.gaussians} Gaussians (CPU ms)\t{1e3 * statistics.median(times):.3f}")
        return
    steps = {
        "splat_cpu": make_step(cpu_rasterization, args, "cpu"),
        "plain torch": make_step(torch_rasterization, args, "cpu"),
    }
    if torch.cuda.is_available():
        from gsplat import rasterization

        steps["gsplat (CUDA)"] = make_step(rasterization, args, "cuda")
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():  # compile, load, warm up
        step()
    for _ in range(args.repeats):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)
    ours = statistics.median(seconds["splat_cpu"])
    print(f"{args.gaussians} Gaussians, {args.cameras} x {args.resolution}^2, {args.threads} threads")
    for name, times in seconds.items():
        middle = statistics.median(times)
        best = 1e3 * min(times)
        print(f"{name:14s} median {1e3 * middle:8.2f} ms   best {best:8.2f} ms   {middle / ours:6.2f} x ours")


if __name__ == "__main__":
    main()
