"""gsplat's kernels are compiled by one process; the others wait, or stop with an error."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path

import pytest

from trace_bench.system import kernels
from trace_bench.system.errors import TraceBenchError

FORK = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACE_BENCH_CACHE", str(tmp_path))


def fake_compiler(target: Path, architectures: str) -> None:
    """Slow, and writes one line per call."""
    with (target / "calls").open("a") as calls:
        calls.write(f"{architectures}\n")
    time.sleep(0.3)
    (target / kernels.NAME).mkdir(exist_ok=True)
    (target / kernels.NAME / f"{kernels.NAME}.so").write_bytes(b"")


def test_many_at_once_compile_once():
    def work(results):
        results.put(kernels.build(compiler=fake_compiler, wait_s=30))

    results = FORK.SimpleQueue()
    processes = [FORK.Process(target=work, args=(results,)) for _ in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 8
    assert {results.get() for _ in processes} == {kernels.folder() / kernels.NAME / "gsplat_cuda.so"}
    assert (kernels.folder() / "calls").read_text() == f"{kernels.ARCHITECTURES}\n"


def test_waiting_too_long_is_a_sentence_that_names_who_compiles():
    def slow(target, architectures):
        time.sleep(60)

    builder = FORK.Process(target=kernels.build, kwargs={"compiler": slow})
    builder.start()
    lock = kernels.folder() / "lock"
    while not (lock.exists() and lock.read_text()):
        time.sleep(0.01)
    with pytest.raises(
        TraceBenchError, match=rf"pid {builder.pid} on host .* is still compiling .*scripts/build_kernels"
    ):
        kernels.build(compiler=fake_compiler, wait_s=0.2)
    builder.kill()  # its lock dies with it
    builder.join()
    assert kernels.build(compiler=fake_compiler, wait_s=5).is_file()


def test_a_compilation_that_was_cut_off_does_not_count():
    def cut_off(target, architectures):
        fake_compiler(target, architectures)
        raise TraceBenchError("killed")

    with pytest.raises(TraceBenchError, match="killed"):
        kernels.build(compiler=cut_off)
    kernels.build(compiler=fake_compiler)
    assert (kernels.folder() / "calls").read_text().count("\n") == 2


@pytest.mark.parametrize("damage", ["library", "stamp"])
def test_a_damaged_library_is_compiled_again(damage):
    library = kernels.build(compiler=fake_compiler)
    path = library if damage == "library" else kernels.folder() / "built.json"
    path.write_bytes(b"x")
    kernels.build(compiler=fake_compiler)
    kernels.build(compiler=fake_compiler)
    assert (kernels.folder() / "calls").read_text().count("\n") == 2


def test_a_compiler_that_leaves_nothing(tmp_path):
    with pytest.raises(TraceBenchError, match="did not create"):
        kernels.build(compiler=lambda target, architectures: None)


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TRACE_BENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(TraceBenchError, match="set TRACE_BENCH_CACHE"):
        kernels.build(compiler=fake_compiler)


def test_versions_never_share_a_folder(monkeypatch):
    before = kernels.folder()
    monkeypatch.setattr(kernels.metadata, "version", lambda name: "9.9")
    assert kernels.folder() != before
