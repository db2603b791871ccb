"""A setting of a method that is not one of its choices is refused by name."""

from __future__ import annotations

import pytest
from exact import exact_prior

from trace_bench.methods.trace import TraCe
from trace_bench.system.errors import TraceBenchError


@pytest.mark.parametrize("setting", ["grad_form", "weighting", "t_sampling", "lora_target", "lora_text"])
def test_unknown_choice(setting: str) -> None:
    with pytest.raises(TraceBenchError, match=f"method.{setting}='foo' is not one of"):
        TraCe(exact_prior(), guidance_scale=1.0, **{setting: "foo"})  # type: ignore[arg-type]
