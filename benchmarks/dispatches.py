"""What the host does in one step of each method at SD 2.1's shapes: `python -m benchmarks.dispatches`.

Runs without a GPU, on the meta device (`benchmarks.on_meta`). Prints for each method: operations outside
compiled graphs (a graph counts as one), graphs, reads of device values by the host, transfers, those from
memory that is not pinned, and casts. `eager` as an argument runs the networks without torch.compile.

Views of a tensor cost the host time too and count. Inside a compiled graph nothing is counted.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd
from torch.fx.experimental import _config as fx_config
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from benchmarks.on_meta import META, points, stand_ins, sd21_on_meta
from trace_bench.cameras import CameraRange
from trace_bench.distill import distill
from trace_bench.methods.base import Method
from trace_bench.priors.base import Prior
from trace_bench.representations.base import Representation
from trace_bench.representations.gaussians import Gaussians
from trace_bench.seeding import Rng
from trace_bench.system import transfer

aten = torch.ops.aten
#: The host waits for their result: for a value, or for a shape that depends on values.
READS = {
    aten._local_scalar_dense, aten.item, aten.is_nonzero, aten.equal, aten.nonzero, aten.masked_select,
    aten.unique_dim, aten._unique2, aten.allclose,
}  # fmt: skip
#: They start nothing on the device: views, and memory without values.
NO_KERNEL = {
    aten._unsafe_view, aten.detach, aten.new_empty, aten.empty, aten.empty_like, aten.empty_strided,
    aten.new_empty_strided, aten.set_, aten._reshape_alias, aten.lift_fresh,
}  # fmt: skip
COPIES = {aten._to_copy, aten.copy_, aten.lift_fresh}
METHODS = ("sds", "vsd", "trace")


class Dispatches(TorchDispatchMode):
    """Counts operations on tensors of `device`, and on none, while it is active.

    counts: `operations`, `graphs` (also among the operations), `reads`, `transfers` from CPU memory to the
    device, `unpinned` ones among them, `casts` of a device tensor to another dtype.
    where: the operations by name.
    """

    def __init__(self, device: torch.device = META) -> None:
        super().__init__()
        self.device = device
        self.counts: Counter[str] = Counter()
        self.where: Counter[str] = Counter()
        self._inside = 0  # a compiled graph, or a transfer that is counted already

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        return True  # else torch.compile does nothing while a mode is active

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._inside:
            return func(*args, **kwargs)
        name = func.overloadpacket
        tensors = [x for x in tree_iter((args, kwargs)) if isinstance(x, Tensor)]
        ours = [x for x in tensors if x.device.type == self.device.type]
        if name in READS and ours:
            self.counts["reads"] += 1
            self.where[f"read: {name}"] += 1
            if self.device == META:
                return self._made_up(func, args, kwargs)
        out = func(*args, **kwargs)
        made = [x for x in tree_iter(out) if isinstance(x, Tensor) and x.device.type == self.device.type]
        if (ours or made) and not (func.is_view or name in NO_KERNEL):
            self.counts["kernels"] += 1
            self.where[str(name)] += 1
        if name in COPIES:
            self._copy(name, tensors, out)
        elif ours and any(x.device.type == "cpu" and x.dim() for x in tensors):
            self.counts["transfers"] += 1  # for example an index on the CPU
            self.counts["unpinned"] += 1
            self.where[f"unpinned: {name}"] += 1
        return out

    def _copy(self, name: Any, tensors: list[Tensor], out: Tensor) -> None:
        source = tensors[1] if name is aten.copy_ else tensors[0]
        on_device = out.device.type == self.device.type
        from_device = source.device.type == self.device.type
        if from_device and not on_device:
            self.counts["reads"] += 1
        elif on_device and (not from_device or name is aten.lift_fresh):
            self.counts["transfers"] += 1
            self.counts["unpinned"] += 1
            self.where[f"unpinned: {name}"] += 1
        elif on_device and source.dtype != out.dtype:
            self.counts["casts"] += 1

    @staticmethod
    def _made_up(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An answer where the meta device has none: 1 or True."""
        source = args[0]
        if func.overloadpacket in (aten._local_scalar_dense, aten.item):
            return 1.0 if source.is_floating_point() else 1
        with fx_config.patch(meta_nonzero_assume_all_nonzero=True):
            return func(*args, **kwargs)

    def transfer(self, send: Callable[..., Any], *args: Any) -> Any:
        """A transfer through pinned memory."""
        self.counts["transfers"] += 1
        self.counts["kernels"] += 1
        with self.inside():
            return send(*args)

    def graph(self, call: Callable[..., Any], *args: Any) -> Any:
        """A compiled graph."""
        self.counts["graphs"] += 1
        self.counts["kernels"] += 1
        with self.inside():
            return call(*args)

    @contextmanager
    def inside(self) -> Iterator[None]:
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1


class Compiler:
    """A backend for torch.compile that runs graphs as they are and tells `counter` of each call.

    compiled: forward and backward graphs that were compiled.
    breaks: why torch left a graph, if it did.
    """

    def __init__(self, counter: Dispatches | None = None) -> None:
        self.counter = counter
        self.compiled: Counter[str] = Counter()
        self.backend = aot_autograd(
            fw_compiler=partial(self._compile, "forward"), bw_compiler=partial(self._compile, "backward")
        )

    def _compile(self, kind: str, graph: torch.fx.GraphModule, inputs: Any) -> Callable[..., Any]:
        self.compiled[kind] += 1

        def call(*args: Any) -> Any:
            if self.counter is None:
                return graph(*args)
            return self.counter.graph(graph, *args)

        return call

    @property
    def breaks(self) -> dict[str, int]:
        return dict(torch._dynamo.utils.counters["graph_break"])

    @contextmanager
    def installed(self) -> Iterator[Compiler]:
        """torch.compile uses this backend; graphs of before are forgotten, before and after."""
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        with mock.patch.object(torch, "compile", partial(torch.compile, backend=self.backend)):
            yield self
        torch._dynamo.reset()


def run_steps(
    prior: Prior, method: Method, representation: Representation, steps: int, *, first: int = 0,
    views: int = 1, resolution: int = 512, **settings: Any,
) -> None:  # fmt: skip
    """Steps `first` to `steps` - 1 of a run of length `steps`."""
    distill(
        prior, method, representation, method.embed("a red cube"), CameraRange(), steps=steps,
        first_step=first, views_per_step=views, resolution=resolution, background="random", rng=Rng(0),
        **settings,
    )  # fmt: skip


def count_step(
    build: Callable[[Prior], Method], prior: Prior, views: int = 1, n_gaussians: int = 4096
) -> Dispatches:
    """The counts of one step in the middle of a run, without a row of the log and without densification."""
    method = build(prior)
    representation = Gaussians(points(n_gaussians), 512, prior.latent_shape, seed=0, device=META)
    counter = Dispatches()
    with stand_ins(), counter.inside():
        counter_on = _CountOne(counter, 3)
        run_steps(
            prior, method, representation, 1000, first=0, views=views, log_every=10**6, should_stop=counter_on
        )
    return counter
