"""No file of the cache can break anything: what does not hold is made again."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from trace_bench.inits.cache import cached
from trace_bench.priors import flops
from trace_bench.system import cache
from trace_bench.system.cache import cache_dir, entry_path, keep, kept, remember, remembered
from trace_bench.system.model_files import file_sha256
from trace_bench.system.tensors import write_tensors


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACE_BENCH_CACHE", str(tmp_path / "cache"))


def flip(data: bytes) -> bytes:
    return data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]


DAMAGE = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "flipped": flip,
    "of another format": lambda data: b'{"sha256": "0"}',
    "longer": lambda data: data + b"x",
}


def damage(how, kind):
    (path,) = [path for path in (cache_dir() / kind).rglob("*") if path.is_file() and path.suffix != ".lock"]
    path.write_bytes(DAMAGE[how](path.read_bytes()))


def test_every_flipped_bit_is_noticed():
    path = entry_path("things", "key")
    keep(path, b"content")
    whole = path.read_bytes()
    for position in range(len(whole)):
        for bit in range(8):
            data = bytearray(whole)
            data[position] ^= 1 << bit
            path.write_bytes(bytes(data))
            assert kept(path, bytes) is None
    path.write_bytes(whole)
    assert kept(path, bytes) == b"content"


def test_an_entry_under_another_name_is_noticed():
    keep(entry_path("things", "a"), b"of a")
    (cache_dir() / "things").joinpath(entry_path("things", "a").name).rename(entry_path("things", "b"))
    assert kept(entry_path("things", "b"), bytes) is None


def test_content_that_cannot_be_loaded_counts_as_missing():
    keep(entry_path("things", "key"), b"[1")
    assert kept(entry_path("things", "key"), json.loads) is None
    entry_path("things", "folder").mkdir(parents=True)
    assert kept(entry_path("things", "folder"), bytes) is None


@pytest.mark.parametrize("how", DAMAGE)
def test_hashes_of_files(tmp_path, how):
    (tmp_path / "weights").write_text("weights")
    value = file_sha256(tmp_path / "weights")
    damage(how, "sha256")
    assert file_sha256(tmp_path / "weights") == value
    assert file_sha256(tmp_path / "weights") == value


@pytest.mark.parametrize("how", DAMAGE)
def test_counted_work(monkeypatch, how):
    asked = []
    monkeypatch.setattr(flops, "_count", lambda *args: asked.append(args) or {"unet_fwd": 1.5})
    for times in (1, 1, 2):
        flops.unit_tflop.cache_clear()
        if times == 2:
            damage(how, "flops")
        assert flops.unit_tflop("{}", "{}", 77, 64) == {"unet_fwd": 1.5}
        assert len(asked) == times
    flops.unit_tflop.cache_clear()


@pytest.mark.parametrize("how", DAMAGE)
def test_inits(how):
    made = []

    def make():
        made.append(1)
        return {"points": np.arange(6.0)}

    for times in (1, 1, 2, 2):
        if times == 2 and len(made) == 1:
            damage(how, "inits")
        arrays, _ = cached("shap_e", {"prompt": "a crab"}, make)
        assert np.array_equal(arrays["points"], np.arange(6.0))
        assert len(made) == times


@pytest.mark.parametrize("how", DAMAGE)
def test_what_was_read_under_an_output_root(tmp_path, how):
    remember("index", tmp_path, 1, {"run": [1]})
    assert remembered("index", tmp_path, 1) == {"run": [1]}
    assert remembered("index", tmp_path, 2) == {}
    damage(how, "index")
    assert remembered("index", tmp_path, 1) == {}


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TRACE_BENCH_CACHE", str(tmp_path / "file"))
    keep(cache.entry_path("things", "key"), b"x")
    assert kept(cache.entry_path("things", "key"), bytes) is None


def test_tensors_and_metadata_decide_on_the_bytes(tmp_path):
    """The order of neither does; safetensors itself writes the metadata in a random order."""
    tensors = {name: torch.arange(float(i + 1)) for i, name in enumerate("dbca")}
    metadata = {f"key {i}": str(i) for i in range(20)}
    for i in range(8):
        pairs = list(tensors.items()), list(metadata.items())
        for items in pairs:
            items.sort(reverse=bool(i % 2))
        write_tensors(tmp_path / f"{i}.safetensors", *map(dict, pairs))
    assert len({path.read_bytes() for path in tmp_path.glob("*.safetensors")}) == 1
    from safetensors import safe_open

    with safe_open(tmp_path / "0.safetensors", "pt") as file:
        assert file.metadata() == metadata
        assert torch.equal(file.get_tensor("c"), tensors["c"])
