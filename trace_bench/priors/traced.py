"""A small network on the CPU as one TorchScript graph: the same operations, without Python between them.

The toy world's UNet starts 350 small operations, and Python goes through its modules for each of them
(`benchmarks.step` compares a step with and without graphs). torch calls TorchScript deprecated, but has
nothing else that takes Python out and keeps the bits: torch.compile needs a C++ compiler and fuses
operations. Where tracing fails, the network stays as it is.
"""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

#: Calls with tensors of the same shapes before a trace, which costs as much as many calls.
CALLS = 24
#: Graphs of a network; torch keeps each, with 3 to 40 MB in the toy world, until the process ends.
MOST = 32
#: Parameters; a larger network computes for so long that Python's time does not matter.
LARGEST = 50_000_000
log = logging.getLogger(__name__)


class Traced:
    """Runs functions of tensors alone, as a graph once tensors of the same shapes have come often enough.

    A graph must give the bits of the function when it is made; otherwise it is not used. Gradients have the
    same bits too, because a graph runs as it was recorded, unoptimised.

    Args:
        network: the functions use its parameters; those that others replace must be among the inputs.
    """

    def __init__(self, network: torch.nn.Module) -> None:
        parameters = list(network.parameters())
        self.works = (
            sum(p.numel() for p in parameters) <= LARGEST
            and all(p.device.type == "cpu" for p in parameters)
            and not getattr(network, "is_gradient_checkpointing", False)  # a graph would keep everything
        )
        self._calls: Counter[Hashable] = Counter()
        self._graphs: dict[Hashable, Callable[..., Any] | None] = {}

    def __call__(self, function: Callable[..., Any], name: Hashable, *inputs: Tensor) -> Any:
        """function(*inputs): a tensor or a tuple of tensors; `name` says which function it is."""
        if not self.works or torch.is_inference_mode_enabled():  # its tensors could not be trained on later
            return function(*inputs)
        key = (name, *((x.shape, x.dtype) for x in inputs))
        if (graph := self._graphs.get(key)) is not None:
            with torch.jit.optimized_execution(False):  # optimised, gradients are added up in another order
                return graph(*inputs)
        out = function(*inputs)
        self._calls[key] += 1
        is_due = self._calls[key] >= CALLS and key not in self._graphs and len(self._graphs) < MOST
        if is_due and _is_finite(out):
            self._graphs[key] = _trace(function, inputs, out)
        return out


def _is_finite(out: Any) -> bool:
    """Without NaN, which equals nothing, and so tells nothing of a graph."""
    return all(bool(x.isfinite().all()) for x in (out if isinstance(out, tuple) else (out,)))


def _trace(
    function: Callable[..., Any], inputs: tuple[Tensor, ...], expected: Any
) -> Callable[..., Any] | None:
    """The graph of a function, or None if there is none with the same result."""
    given = tuple(x.detach() for x in inputs)
    try:
        with warnings.catch_warnings(), torch.no_grad(), torch.jit.optimized_execution(False):
            warnings.simplefilter("ignore")  # of deprecation, and of shapes that become constants
            graph = torch.jit.trace(function, given, check_trace=False)
            out = graph(*given)
    except Exception as error:
        log.debug("The network cannot be traced", exc_info=error)
        return None
    pairs = zip(out, expected, strict=True) if isinstance(out, tuple) else [(out, expected)]
    return graph if all(torch.equal(a, b) for a, b in pairs) else None
