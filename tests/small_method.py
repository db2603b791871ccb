"""A method that keeps every rule, on any prior, and the same with a wrong declaration."""

from __future__ import annotations

from typing import Any

import torch

from trace_bench.methods.base import Distilled, Method
from trace_bench.priors.base import Work


class Good(Method):
    """SDS without weights, and with a count of its steps, so that there is a state."""

    def __init__(self, prior: Any, **common: Any) -> None:
        super().__init__(prior, **common)
        self.seen = torch.zeros(())

    def step(self, latents: Any, text: Any, view: Any, progress: Any, rng: Any) -> Distilled:
        self.seen += 1
        t = rng.randint("t", 20, 980, len(latents))
        eps = rng.randn("eps", latents.shape, dtype=latents.dtype)
        x_t = (latents + eps).to(self.prior.alphas_cumprod.dtype)
        found = self.prior.eps(x_t, t, text.plain.expand(len(latents))).to(latents)
        return Distilled(self.seen * (found - eps), {"seen": self.seen.clone()}, target=latents)

    def cost(self, progress: Any, batch: int, rng: Any) -> Work:
        return Work(unet_fwd=batch)

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen.copy_(state["seen"])


class WrongCost(Good):
    def cost(self, progress: Any, batch: int, rng: Any) -> Work:
        return Work(unet_fwd=3 * batch)
