"""A damaged embedding in the cache is computed again; it never makes another asset."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from trace_bench.system.cache import cache_dir


def flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :]


def tensors(embedding):
    return [(name, value) for name, value in vars(embedding).items() if value is not None]


def test_another_config_of_the_same_weights_has_its_own_embeddings(prior, tmp_path, monkeypatch):
    """Such as an encoder that skips its last layer."""
    monkeypatch.setenv("TRACE_BENCH_CACHE", str(tmp_path / "cache"))
    folder = shutil.copytree(prior.folder, tmp_path / "model")
    monkeypatch.setattr(prior, "folder", folder)
    before = prior.embed(["a red cube"]).tokens
    path = folder / "text_encoder" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"num_hidden_layers": config["num_hidden_layers"] - 1}))
    assert not torch.equal(prior.embed(["a red cube"]).tokens, before)


@pytest.mark.parametrize(
    "damage", [flip, lambda data: b"", lambda data: data[:100], lambda data: b"{}"],
    ids=["flipped bit", "empty", "cut", "another format"],
)  # fmt: skip
def test_it_is_computed_again(prior, tmp_path, monkeypatch, damage):
    monkeypatch.setenv("TRACE_BENCH_CACHE", str(tmp_path))
    texts = ["a red cube", "a blue ball"]
    right = prior.embed(texts)
    entries = [path for path in (cache_dir() / "embeddings").rglob("*") if path.is_file()]
    assert len(entries) == 2
    entries[0].write_bytes(damage(entries[0].read_bytes()))
    asked = []
    encode = prior._encode_text
    monkeypatch.setattr(prior, "_encode_text", lambda texts: asked.append(list(texts)) or encode(texts))
    for _ in range(2):
        again = prior.embed(texts)
        assert all(torch.equal(value, getattr(right, name)) for name, value in tensors(again))
    assert [len(texts) for texts in asked] == [1]
