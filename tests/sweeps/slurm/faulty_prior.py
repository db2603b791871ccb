"""The tiny prior with injected faults: $FAULTS is a JSON file {prompt: "raise", "nan" or seconds per step}.

The file is read at every step, so that a test can end a fault during a run. A slow run computes the same as a
fast one.
"""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path

from torch import Tensor

from trace_bench.priors.base import TextEmbedding
from trace_bench.priors.stable_diffusion import StableDiffusionPrior


class FaultyPrior(StableDiffusionPrior):
    """The shipped prior, unless a fault is requested."""

    prompt = ""

    def check_prompt(self, text: str) -> None:
        self.prompt = text or self.prompt  # the negative prompt of the toy protocol is empty
        super().check_prompt(text)

    def eps(self, latents: Tensor, t: Tensor, text: TextEmbedding) -> Tensor:
        fault = self.fault()
        if fault == "raise":
            raise RuntimeError("the GPU has fallen off the bus")
        if isinstance(fault, (int, float)):
            time.sleep(fault)
        eps = super().eps(latents, t, text)
        return eps * math.nan if fault == "nan" else eps

    def fault(self) -> str | float | None:
        """The current fault of this run."""
        path = os.environ.get("FAULTS")
        return json.loads(Path(path).read_text()).get(self.prompt) if path else None
