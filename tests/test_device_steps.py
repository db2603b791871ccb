"""What a step asks of an accelerator, counted on the meta device: no waits, one transfer, few kernels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from configured import NAMES, configured
from sd_checkpoint import make_checkpoint

from benchmarks.dispatches import Compiler, Dispatches, StepCounts, build, count_step, run_steps
from benchmarks.on_meta import META, MetaPrior, points, sd21_on_meta, stand_ins
from trace_bench.representations.gaussians import Gaussians
from trace_bench.system import transfer

#: They look for the surface of the render on the CPU, so that the noise is equal on all devices.
READ_THE_RENDER = {"cfd"}
#: CSD's range of t changes with each step, and NFSD chooses rows by t: neither can be sent in advance.
SEND_TWICE = {"csd", "nfsd"}
#: A reward rates pictures, which the meta device does not have.
STEPS_ON_META = [name for name in NAMES if name != "reward_sds"]
#: Calls of compiled networks in one step: of UNets, one more for the backward pass of a call that trains, and
#: two of the encoder.
GRAPHS = {
    "asd": 7, "bsd": 3, "cfd": 3, "consistent3d": 4, "csd": 3, "dreamer_xl": 7, "gaussiandreamer": 3,
    "ism": 6, "nfsd": 3, "sctd": 6, "sdi": 11, "sds": 3, "sds_bridge": 3, "trace": 5, "trace_official": 4,
    "trace_official_trained": 5, "vsd": 6,
}  # fmt: skip

#: The others are slow tests.
QUICK = ("sds", "vsd", "trace", "sdi")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    return make_checkpoint(folder / "base"), make_checkpoint(folder / "v", "v_prediction", seed=1)


def load(checkpoints: tuple[Path, Path], compile: bool = False) -> MetaPrior:
    base, adapter = checkpoints
    return MetaPrior(str(base), resolution=16, adapter_repo=str(adapter), device=META, compile=compile)


def blank(checkpoints: tuple[Path, Path]) -> MetaPrior:
    """A prior whose UNets do next to nothing: what is around them is tested."""
    prior = load(checkpoints)
    unet, adapter = prior._denoiser.unet, prior._adapter_network.unet
    unet.forward = lambda sample, *args, **others: (sample * 1.0,)
    weights = prior._adapter_network.places.values()
    adapter.forward = lambda sample, *args, **others: (
        sample * sum(module._parameters[name].mean() for module, name in weights),
    )
    return prior


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in STEPS_ON_META]
)
def test_no_step_waits_and_one_transfer_brings_all(name, checkpoints):
    prior = blank(checkpoints)
    method = configured(name, prior)
    method.prompt_suffixes = {key: value and ", x" for key, value in method.prompt_suffixes.items()}
    counts = count_step(prior, method, Dispatches(), views=2, gaussians=64)
    if name in READ_THE_RENDER:
        assert counts.reads > 0
        return
    assert (counts.reads, counts.unpinned) == (0, 0), counts.where
    assert counts.transfers == 1 + (name in SEND_TWICE), counts.where


@pytest.mark.slow
def test_the_loop_reads_values_only_for_a_row_of_the_log(checkpoints):
    """20 steps in which the Gaussians densify twice."""
    prior = blank(checkpoints)
    method = configured("sds", prior)
    densify = {"start": 0, "every": 8, "stop": 20}
    counter, rows, reads = Dispatches(), [], []
    representation = Gaussians(
        points(64), 16, prior.latent_shape, 0, META, reference_steps=None, densify=densify
    )

    def on_step(k: int, log: dict[str, float]) -> None:
        rows.append(bool(log))
        reads.append(counter.counts["reads"])
        counter.forget()

    with stand_ins(), counter:
        run_steps(prior, method, representation, 20, resolution=16, log_every=10, on_step=on_step)
    assert rows == [(k + 1) % 10 == 0 for k in range(20)]
    events = {k for k in range(20) if k in (8, 16)}
    assert {k for k, n in enumerate(reads) if n} == events | {9, 19}


def graphs_of(name: str, prior: MetaPrior, compiler: Compiler) -> StepCounts:
    assert compiler.counter is not None
    counts = count_step(prior, build(name, prior), compiler.counter, gaussians=64)
    assert compiler.breaks == {}
    assert counts.graphs == GRAPHS[name]
    assert counts.kernels <= 130 + 40 * counts.graphs
    return counts


@pytest.mark.slow
def test_every_network_is_one_graph(checkpoints):
    compiler = Compiler(Dispatches())
    with compiler.installed():
        graphs_of("trace", load(checkpoints, compile=True), compiler)
    assert compiler.compiled == {"forward": 3, "backward": 2}


@pytest.mark.long
def test_kernels_of_sd21(tmp_path):
    compiler = Compiler(Dispatches())
    with compiler.installed():
        prior = sd21_on_meta(tmp_path, compile=True)
        for name in STEPS_ON_META:
            counts = graphs_of(name, prior, compiler)
            if name not in READ_THE_RENDER:
                assert (counts.reads, counts.unpinned) == (0, 0)
                assert counts.transfers == 1 + (name in SEND_TWICE)
                assert counts.casts <= 4 * counts.graphs


def test_what_is_sent_arrives_as_it_was():
    tensors = [torch.rand(3, 5), torch.arange(7), torch.rand((), dtype=torch.float64), torch.rand(2, 1) > 0.5]
    assert transfer.send(tensors, "cpu") == tensors
    there = transfer.send(tensors, META)
    assert [(x.shape, x.dtype, x.device) for x in there] == [(x.shape, x.dtype, META) for x in tensors]
    packed = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transfer, "copy_across", lambda memory, device: packed.append(memory) or memory)
        back = transfer.send(tensors, META)
    assert all(torch.equal(x, y) for x, y in zip(back, tensors, strict=True))
    assert len(packed) == 1


def test_waits_and_transfers_are_seen():
    """The counter itself: each of these makes a GPU wait."""
    x, mask = torch.empty(3, device=META), torch.empty(3, dtype=torch.bool, device=META)
    waits = {
        "reads": [lambda: float(x.sum()), lambda: bool(mask.any()), lambda: x[mask]],
        "unpinned": [
            lambda: x.new_tensor([1.0, 2.0]),
            lambda: torch.ones(3).to(META),
            lambda: x[torch.arange(2)],
        ],
    }
    for kind, calls in waits.items():
        for call in calls:
            with Dispatches() as counter:
                call()
            assert counter.counts[kind] == 1, (kind, counter.where)
