"""gsplat's CUDA kernels: compiled once for a whole cluster, under a lock, then only loaded.

gsplat compiles them when they are first used, and clears the build folder before: with many jobs that start
at a time each destroys what the others build. Here they are kept in a folder named from all that they depend
on (`scripts/build_kernels` fills it beforehand), a job that finds none compiles them while the others wait,
and who waits too long is told what to do.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import platform
import socket
import sys
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

from trace_bench.system.cache import cache_dir
from trace_bench.system.errors import TraceBenchError

NAME = "gsplat_cuda"
ARCHITECTURES = "8.0;9.0+PTX"  # A100, H100 and what comes after
WAIT_S = 1800.0
_STAMP, _LOCK = "built.json", "lock"


def folder() -> Path:
    """Where this installation's kernels lie, in the cache that all nodes see."""
    torch = importlib.util.find_spec("torch")  # not imported: this is asked before there is anything to do
    build_of_torch = (
        Path(torch.origin).with_name("version.py").read_bytes() if torch and torch.origin else b""
    )
    parts = [
        f"gsplat{metadata.version('gsplat')}",
        f"torch{metadata.version('torch')}-{hashlib.sha256(build_of_torch).hexdigest()[:8]}",
        f"py{platform.python_version()}",
        platform.machine(),
    ]
    return cache_dir() / "kernels" / "-".join(parts)


def load(wait_s: float = WAIT_S) -> None:
    """Make gsplat's kernels importable; compiles them where nobody has. Harmless to call again."""
    if "gsplat.csrc" in sys.modules or importlib.util.find_spec("gsplat.csrc") is not None:
        return  # loaded before, or a wheel that brings them along
    library = build(wait_s=wait_s)
    spec = importlib.util.spec_from_file_location(NAME, library)
    if spec is None or spec.loader is None:
        raise TraceBenchError(
            f"{library} is no Python extension; remove {library.parent} and build it again."
        )
    import gsplat

    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except ImportError as error:
        raise TraceBenchError(
            f"gsplat's kernels in {library.parent} cannot be loaded ({error}); remove that folder and run "
            "scripts/build_kernels on a machine like this one."
        ) from error
    sys.modules["gsplat.csrc"] = gsplat.csrc = module


def build(
    architectures: str = ARCHITECTURES,
    wait_s: float = WAIT_S,
    compiler: Callable[[Path, str], None] | None = None,
) -> Path:
    """The compiled library; compiled now, by this process or another, where there is none."""
    target = folder()
    library = target / NAME / f"{NAME}.so"
    if (target / _STAMP).is_file() and library.is_file():
        return library
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TraceBenchError(
            f"gsplat's kernels cannot be kept in {target} ({error.strerror}); set TRACE_BENCH_CACHE to a "
            "folder that can be written and that all nodes see."
        ) from error
    with _locked(target, wait_s):
        if not (target / _STAMP).is_file():  # unless the one that was waited for has done it
            (compiler or compile_gsplat)(target, architectures)
            if not library.is_file():
                raise TraceBenchError(
                    f"Compiling gsplat's kernels left no {library}; see the messages above."
                )
            partial = target / f".{_STAMP}.partial"
            partial.write_text(json.dumps({"architectures": architectures}), encoding="utf-8")
            partial.replace(target / _STAMP)
    return library


def compile_gsplat(target: Path, architectures: str) -> None:
    """Let gsplat compile into `target`; its own clearing of the build folder is harmless under the lock."""
    os.environ |= {"TORCH_EXTENSIONS_DIR": str(target), "TORCH_CUDA_ARCH_LIST": architectures}
    try:
        from gsplat.cuda._backend import _C
    except Exception as error:  # what the compiler says comes as RuntimeError, a lack of it as others
        raise TraceBenchError(
            f"gsplat's kernels cannot be compiled here ({type(error).__name__}: "
            f"{str(error).splitlines()[0]}); it takes a CUDA toolkit that fits torch and a C++ compiler: "
            "load your cluster's modules for them."
        ) from error
    if _C is None:
        raise TraceBenchError(
            "gsplat's kernels are not compiled, and there is no CUDA toolkit here to do it with; run "
            "scripts/build_kernels where nvcc is (on many clusters after `module load cuda`)."
        )


@contextlib.contextmanager
def _locked(target: Path, wait_s: float) -> Iterator[None]:
    """Hold the folder's lock, which dies with its process; TraceBenchError after waiting `wait_s`."""
    descriptor = os.open(target / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TraceBenchError(
                        f"gsplat's kernels are still being compiled by {_holder(descriptor)} after "
                        f"{wait_s:.0f} s; run scripts/build_kernels once before a sweep, then no job waits."
                    ) from None
                time.sleep(min(1.0, wait_s / 10))
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _holder(descriptor: int) -> str:
    try:
        who = json.loads(os.pread(descriptor, 4096, 0))
        return f"pid {who['pid']} on host {who['host']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
