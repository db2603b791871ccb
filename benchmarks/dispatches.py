"""What the host does in one step of each method at SD 2.1's shapes: `python -m benchmarks.dispatches`.

Runs without a GPU, on the meta device (`benchmarks.on_meta`). Prints for each method: kernels that the host
starts (a compiled graph counts as one), graphs, reads of device values by the host, transfers, those from
memory that is not pinned, and casts.

Views of a tensor start nothing on the device and do not count, and neither does what is inside a compiled
graph. gsplat is one operation each way here (`benchmarks.on_meta`).
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self
from unittest import mock

import torch
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.aot_autograd import make_boxed_func
from torch.fx.experimental import _config as fx_config
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from benchmarks.arguments import parser_of
from benchmarks.on_meta import META, points, sd21_on_meta, stand_ins
from benchmarks.step import compose_job
from trace_bench.cameras import CameraRange
from trace_bench.distill import distill
from trace_bench.methods.base import Method
from trace_bench.priors.base import Prior
from trace_bench.representations.base import Representation
from trace_bench.representations.gaussians import Gaussians
from trace_bench.runs.build import make_method
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
        self.steps = 0  # for `count_step`
        self._inside = 0  # a compiled graph, or a transfer that is counted already

    def __enter__(self) -> Self:
        self._patch = mock.patch.object(transfer, "copy_across", self._counted(transfer.copy_across))
        self._patch.start()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._patch.stop()

    def forget(self) -> None:
        """Start again from zero."""
        self.counts.clear()
        self.where.clear()

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
        if ours and self._reads(name, tensors, kwargs):
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

    def _reads(self, name: Any, tensors: list[Tensor], kwargs: Mapping[str, Any]) -> bool:
        """Whether the host waits for a result."""
        if name is aten._to_copy:
            to = kwargs.get("device")
            return to is not None and torch.device(to).type == "cpu"
        masks = any(x.dtype == torch.bool for x in tensors[1:])
        return name in READS or (name in (aten.index, aten.index_put_, aten.index_put) and masks)

    def _copy(self, name: Any, tensors: list[Tensor], out: Tensor) -> None:
        source = tensors[1] if name is aten.copy_ else tensors[0]
        on_device = out.device.type == self.device.type
        from_device = source.device.type == self.device.type
        if on_device and (not from_device or name is aten.lift_fresh):
            self.counts["transfers"] += 1
            self.counts["unpinned"] += 1
            self.where[f"unpinned: {name}"] += 1
        elif on_device and source.dtype != out.dtype:
            self.counts["casts"] += 1

    @staticmethod
    def _made_up(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An answer where the meta device has none: 1, True, or "never" of the loop's check for NaN."""
        source = args[0]
        one = torch.iinfo(torch.int64).max if source.dtype == torch.int64 else 1
        if func.overloadpacket is aten._to_copy:
            return torch.full(source.shape, one, dtype=kwargs.get("dtype") or source.dtype)
        if func.overloadpacket in (aten._local_scalar_dense, aten.item):
            return float(one) if source.is_floating_point() else one
        with fx_config.patch(meta_nonzero_assume_all_nonzero=True):  # type: ignore[attr-defined]
            return func(*args, **kwargs)

    def _counted(self, copy: Callable[..., Any]) -> Callable[..., Any]:
        """A transfer through pinned memory, counted."""

        def counted(*args: Any) -> Any:
            self.counts["transfers"] += 1
            self.counts["kernels"] += 1
            with self.inside():
                return copy(*args)

        return counted

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

        return make_boxed_func(call)

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


@dataclass(frozen=True)
class StepCounts:
    """What `Dispatches` counted in one step, and where."""

    kernels: int
    graphs: int
    reads: int
    transfers: int
    unpinned: int
    casts: int
    where: Mapping[str, int]


def count_step(
    prior: Prior,
    method: Method,
    counter: Dispatches,
    *,
    views: int = 1,
    gaussians: int = 4096,
    step: int = 500,
) -> StepCounts:
    """One step in the middle of a run of 1000, after one that is not counted; no row of the log is due."""
    representation = Gaussians(points(gaussians), 512, prior.latent_shape, seed=0, device=prior.device)

    names = ("kernels", "graphs", "reads", "transfers", "unpinned", "casts")
    counted: list[StepCounts] = []

    def stop() -> bool:
        if counter.steps == 1:
            counter.forget()
        elif counter.steps == 2:  # before the loop ends, which reads values
            found = {name: counter.counts[name] for name in names}
            counted.append(StepCounts(**found, where=dict(counter.where)))
        counter.steps += 1
        return counter.steps > 2

    counter.steps = 0
    resolution = prior.resolution
    with stand_ins(), counter:
        run_steps(
            prior, method, representation, 1000, first=500, views=views, resolution=resolution,
            log_every=10**6, should_stop=stop,
        )  # fmt: skip
    return counted[0]


def build(name: str, prior: Prior) -> Method:
    """`method=name` with the settings for SD 2.1."""
    job, _ = compose_job(name, ["prior=sd21", "prompt_set=paper"])
    method = make_method(job, prior)
    # The tokenizer here knows only letters, so that a suffix would leave no room for the prompt.
    method.prompt_suffixes = {key: value and ", x" for key, value in method.prompt_suffixes.items()}
    return method


def main(arguments: Sequence[str]) -> None:
    parser = parser_of("dispatches", __doc__)
    parser.add_argument("methods", nargs="*", default=METHODS, metavar="METHOD", help="by default all")
    parser.add_argument("--eager", action="store_true", help="run the networks without torch.compile")
    given = parser.parse_args(arguments)
    columns = ("kernels", "graphs", "reads", "transfers", "unpinned", "casts")
    print("method  " + " ".join(f"{name:>10}" for name in columns))
    counter = Dispatches()
    compiler = Compiler(counter)
    with tempfile.TemporaryDirectory() as folder, compiler.installed():
        prior = sd21_on_meta(Path(folder), compile=not given.eager)
        for name in given.methods:
            counts = count_step(prior, build(name, prior), counter)
            print(f"{name:8}" + " ".join(f"{getattr(counts, column):10}" for column in columns), flush=True)
    for reason, times in compiler.breaks.items():
        print(f"graph break, {times} times: {reason}")


if __name__ == "__main__":
    main(sys.argv[1:])
