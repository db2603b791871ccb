"""Time of a NeRF training step, and the savings from empty-space skipping and the CPU kernels.

    python -m benchmarks.nerf                          # the toy world's settings, a 64 x 64 view, one thread
    python -m benchmarks.nerf --protocol paper --device cuda

Four variants of the same step (forward, backward, optimiser) alternate in one process, so that a busy machine
slows all of them: as it is; with normals, as for shading or the orientation loss; without skipping; and, on
the CPU, with the encoding in plain PyTorch. Prints medians and ratios. The field is first trained towards a
ball, so that there is empty space to skip.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from benchmarks.arguments import parser_of
from trace_bench.cameras import CameraRange, sample_cameras
from trace_bench.progress import Progress
from trace_bench.representations.nerf import NeRF, hash_grid
from trace_bench.seeding import Rng
from trace_bench.settings.config import build
from trace_bench.system.config_path import conf_dir

WARM_UP = 60  # training steps towards the ball
PRIOR = {"toy": "tiny", "paper": "sd21"}


def make(protocol: str, device: str) -> tuple[NeRF, CameraRange]:
    """The NeRF of `representation=nerf method=sds` under this protocol, and its cameras."""
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose("config", ["representation=nerf", "method=sds", f"prior={PRIOR[protocol]}"])
    spec = OmegaConf.to_container(cfg.representation, resolve=True)
    shapes = {"points": None, "resolution": cfg.resolution, "latent_shape": (4, 16, 16)}
    nerf = build("representation", spec, **shapes, seed=0, device=device)  # type: ignore[arg-type]
    return nerf, CameraRange.of(OmegaConf.to_container(cfg.cameras))  # type: ignore[arg-type]


class Bench:
    """Training steps of one NeRF, and their variants."""

    def __init__(self, protocol: str, device: str, resolution: int) -> None:
        self.nerf, self.cameras = make(protocol, device)
        self.device, self.resolution, self.k = device, resolution, 0
        self.samples = 0

    def step(self, with_normals: bool = False) -> None:
        """One step towards a grey ball of radius 0.5 over white."""
        view = sample_cameras(1, Rng(0).at(self.k), self.cameras, self.resolution, self.resolution)
        progress = Progress(self.k, 10_000)
        render = self.nerf.render(view.to(self.device), torch.ones(3, device=self.device), with_normals)
        assert render.rgb is not None
        rays, samples = render.info["directions"], render.info["samples"]
        self.samples = len(samples.t)
        origin = view.c2w[0, :3, 3].to(self.device)
        miss = (origin - (rays @ origin)[:, None] * rays).norm(dim=-1).view(render.alpha.shape)
        loss = ((render.alpha - (miss < 0.5).float()) ** 2).sum() + ((render.rgb - 0.5) ** 2).mean()
        loss.backward()
        self.nerf.post_backward(render, progress, torch.ones(()))
        self.k += 1

    def without_skipping(self) -> None:
        kept = self.nerf.occupancy.occupied.clone()
        self.nerf.occupancy.occupied.fill_(True)
        self.step()
        self.nerf.occupancy.occupied = kept

    def in_plain_torch(self) -> None:
        kept = hash_grid.encode_on_cpu, hash_grid.encode_vjp_on_cpu
        hash_grid.encode_on_cpu, hash_grid.encode_vjp_on_cpu = hash_grid.encode, hash_grid.encode_vjp  # type: ignore[assignment]
        self.step()
        hash_grid.encode_on_cpu, hash_grid.encode_vjp_on_cpu = kept


def median_ms(ways: dict[str, Callable[[], None]], repeats: int, device: str) -> dict[str, float]:
    """Median milliseconds of each variant; variants alternate."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, call in ways.items():
            if device.startswith("cuda"):
                torch.cuda.synchronize()
            start = time.perf_counter()
            call()
            if device.startswith("cuda"):
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - start)
    return {name: 1e3 * statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    """Print one line per variant."""
    parser = parser_of("nerf", __doc__)
    parser.add_argument("--protocol", choices=sorted(PRIOR), default="toy")
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    bench = Bench(args.protocol, args.device, args.resolution)
    for _ in range(WARM_UP):
        bench.step()
    ways: dict[str, Callable[[], None]] = {"as it is": bench.step}
    ways["with normals"] = lambda: bench.step(with_normals=True)
    ways["no skipping"] = bench.without_skipping
    if args.device == "cpu":
        ways["plain torch"] = bench.in_plain_torch
    found = median_ms(ways, args.repeats, args.device)
    rays = args.resolution**2
    share = float(bench.nerf.occupancy.occupied.float().mean())
    print(f"{rays} rays, {100 * share:.0f} % of the cells occupied, {bench.nerf.n_primitives} parameters")
    for name, ms in found.items():
        print(f"{name:14} {ms:8.1f} ms   {ms / found['as it is']:5.2f} x")


if __name__ == "__main__":
    main()
