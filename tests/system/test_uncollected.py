"""No garbage is collected while imports run; what they made is kept, once."""

from __future__ import annotations

import gc

import pytest

from trace_bench.system import uncollected as module
from trace_bench.system.uncollected import keep_for_good, uncollected


def test_nothing_is_collected_in_the_block_and_errors_pass():
    assert gc.isenabled()
    with uncollected():
        assert not gc.isenabled()
        with uncollected():
            pass
        assert not gc.isenabled()  # the outer block goes on
    assert gc.isenabled()
    with pytest.raises(ValueError, match="mine"), uncollected():
        raise ValueError("mine")
    assert gc.isenabled()


def test_only_the_first_call_keeps_objects(monkeypatch):
    kept = []
    monkeypatch.setattr(module, "_frozen", [])
    monkeypatch.setattr(gc, "freeze", lambda: kept.append("frozen"))
    monkeypatch.setattr(module.atexit, "register", kept.append)
    keep_for_good()
    keep_for_good()
    assert kept == ["frozen", gc.unfreeze]
