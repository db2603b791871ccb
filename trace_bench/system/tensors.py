"""Tensors in files: assets whose bytes are reproducible, and states of optimisers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a .safetensors file on whose bytes only the tensors and the metadata decide, in any order."""
    from safetensors.torch import save

    data = save(dict(sorted(tensors.items())), metadata=dict(metadata) or None)
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])  # safetensors writes the metadata in a random order
    text = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


def load_optimizer(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Restore an optimiser's `state_dict`.

    Raises:
        ValueError: a moment has another shape than its parameter; torch's fused kernels would read and write
            beyond its memory.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, values in state["state"].items():
        shape = parameters[index].shape
        for name, value in values.items():
            if getattr(value, "shape", None) != (() if name == "step" else shape):
                raise ValueError(f"{name} of parameter {index} is not a tensor of shape {list(shape)}")
    optimizer.load_state_dict(deepcopy(dict(state)))
