"""Init from Point-E (Nichol et al. 2022), as in LucidDreamer; needs OpenAI's `point_e` package."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import torch

from trace_bench.external.placement import Placement
from trace_bench.inits.cache import cached
from trace_bench.inits.random import near_grey
from trace_bench.representations.points import PointCloud
from trace_bench.system.cache import cache_dir
from trace_bench.system.errors import TraceBenchError

if TYPE_CHECKING:
    from trace_bench.seeding import StepRng

COLORS = ("grey", "model")
N_BASE, N_ALL = 1024, 4096  # points of the text model; points including the upsampler's
BALL_SEED = 0


@dataclass(frozen=True)
class PointE:
    """Point-E's 4096 points for the prompt, each replaced by several points in a small ball.

    base, upsampler: names of the package's models.
    guidance_scale: of the text model; the upsampler uses none.
    copies: points per Point-E point; all use the same offsets, as released.
    ball: radius of the ball.
    turn_deg: turn about the vertical axis, counter-clockwise from above; 90 turns the front from -y to +x.
    mirror_y, lift: LucidDreamer then mirrors the object left to right (y to -y), and moves it up.
    colors: `grey` as in LucidDreamer's default, or those of the `model`.
    """

    base: str = "base40M-textvec"
    upsampler: str = "upsample"
    guidance_scale: float = 3.0
    copies: int = 20
    ball: float = 0.05
    turn_deg: float = 90.0
    mirror_y: bool = True
    lift: float = 0.15
    colors: str = "grey"

    def __post_init__(self) -> None:
        if self.colors not in COLORS or self.copies < 1 or self.ball < 0.0:
            raise TraceBenchError(
                f"init=point_e needs colors from {', '.join(COLORS)}, copies >= 1 and ball >= 0, but got "
                f"{self.colors}, {self.copies} and {self.ball}."
            )
        if find_spec("point_e") is None:
            raise TraceBenchError(
                "init=point_e needs the package point_e, which is not on PyPI; install it with "
                "`pip install git+https://github.com/openai/point-e`, or use init=shap_e."
            )

    def __call__(self, rng: StepRng, device: torch.device | str = "cpu", prompt: str = "") -> PointCloud:
        models = {name: getattr(self, name) for name in ("base", "upsampler", "guidance_scale")}
        key = {**models, "prompt": prompt, "seed": rng.seed}
        made, seconds = cached("point_e", key, lambda: self._generate(rng, torch.device(device), prompt))
        placed, _ = Placement(turn_deg=self.turn_deg)(torch.from_numpy(made["positions"]).double())
        points = placed.numpy()
        points[:, 1] *= -1.0 if self.mirror_y else 1.0
        points[:, 2] += self.lift
        positions = torch.from_numpy((points[:, None] + self._offsets()[None]).reshape(-1, 3)).float()
        if self.colors == "model":
            colors = torch.from_numpy(np.repeat(made["colors"], self.copies, axis=0)).float()
        else:
            colors = near_grey(len(positions), 0.5 / 255.0, rng)
        notes = {"model": f"point_e {self.base}, {self.upsampler}"}
        return PointCloud(positions, colors, seconds=seconds, notes=notes).to(device)

    def _offsets(self) -> np.ndarray:
        """[copies, 3] in the ball: uniform in angles and distance, as released, so denser at the centre."""
        random = np.random.default_rng(BALL_SEED)
        theta, phi = np.pi * random.random(self.copies), 2.0 * np.pi * random.random(self.copies)
        distance = self.ball * random.random(self.copies)
        directions = [np.sin(theta) * np.sin(phi), np.sin(theta) * np.cos(phi), np.cos(theta)]
        return np.stack(directions, axis=-1) * distance[:, None]

    def _generate(self, rng: StepRng, device: torch.device, prompt: str) -> dict[str, np.ndarray]:
        """Positions [4096, 3], colours [4096, 3] in [0, 1]; the package uses torch's global random state."""
        from point_e.diffusion.configs import DIFFUSION_CONFIGS, diffusion_from_config
        from point_e.diffusion.sampler import PointCloudSampler
        from point_e.models.configs import MODEL_CONFIGS, model_from_config
        from point_e.models.download import load_checkpoint

        models, diffusions = [], []
        for name in (self.base, self.upsampler):
            if name not in MODEL_CONFIGS:
                raise TraceBenchError(f"Point-E has no model {name!r}; it has {', '.join(MODEL_CONFIGS)}.")
            model = model_from_config(MODEL_CONFIGS[name], device).eval()
            model.load_state_dict(load_checkpoint(name, device, cache_dir=str(cache_dir() / "point_e")))
            models.append(model)
            diffusions.append(diffusion_from_config(DIFFUSION_CONFIGS[name]))
        sampler = PointCloudSampler(
            device=device,
            models=models,
            diffusions=diffusions,
            num_points=[N_BASE, N_ALL - N_BASE],
            aux_channels=["R", "G", "B"],
            guidance_scale=[self.guidance_scale, 0.0],
            model_kwargs_key_filter=("texts", ""),  # the upsampler gets no text
        )
        devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            torch.manual_seed(int(torch.randint(2**62, (), generator=rng.generator("point_e"))))
            samples = sampler.sample_batch(batch_size=1, model_kwargs={"texts": [prompt]})
        cloud = sampler.output_to_point_clouds(samples)[0]
        colors = np.stack([cloud.channels[name] for name in ("R", "G", "B")], axis=-1)
        return {"positions": np.asarray(cloud.coords, np.float32), "colors": colors.astype(np.float32)}
