"""gsplat's CUDA kernels: compiled once for a whole cluster, under a lock, then only loaded.

gsplat compiles its kernels on first use and clears the build folder before that. Jobs that start at the same
time would therefore destroy each other's builds. Here the kernels are kept in a folder named by everything
they depend on (`scripts/build_kernels` can fill it in advance). If they are missing, one job compiles them
while the others wait; a job that waits too long gets an error that says what to do.
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
from trace_bench.system.files import sha256_of

NAME = "gsplat_cuda"
ARCHITECTURES = "8.0;9.0+PTX"  # A100, H100 and later
WAIT_S = 1800.0
_STAMP, _LOCK = "built.json", "lock"


def folder() -> Path:
    """The folder of this installation's kernels, in the cache shared by all nodes."""
    torch = importlib.util.find_spec("torch")  # not imported, because that is slow
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
    """Make gsplat's kernels importable; compiles them if needed. Can be called repeatedly."""
    if "gsplat.csrc" in sys.modules or importlib.util.find_spec("gsplat.csrc") is not None:
        return  # already loaded, or included in the wheel
    library = build(wait_s=wait_s)
    spec = importlib.util.spec_from_file_location(NAME, library)
    if spec is None or spec.loader is None:
        raise TraceBenchError(
            f"{library} is not a Python extension; remove {library.parent} and build it again."
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
    """The compiled library; if it is missing, this process or another compiles it now."""
    target = folder()
    library = target / NAME / f"{NAME}.so"
    if _is_built(target, library):
        return library
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TraceBenchError(
            f"gsplat's kernels cannot be stored in {target} ({error.strerror}); set TRACE_BENCH_CACHE to a "
            "writable folder that all nodes share."
        ) from error
    with _locked(target, wait_s):
        if not _is_built(target, library):  # another process may have built it during the wait
            (compiler or compile_gsplat)(target, architectures)
            if not library.is_file():
                raise TraceBenchError(
                    f"Compiling gsplat's kernels did not create {library}; see the messages above."
                )
            partial = target / f".{_STAMP}.partial"
            stamp = {"architectures": architectures, "sha256": sha256_of(library)}
            partial.write_text(json.dumps(stamp), encoding="utf-8")
            partial.replace(target / _STAMP)
    return library


def _is_built(target: Path, library: Path) -> bool:
    """Whether the library is complete and as it was compiled."""
    try:
        return bool(json.loads((target / _STAMP).read_bytes())["sha256"] == sha256_of(library))
    except (OSError, ValueError, KeyError, TypeError):
        return False  # not there, damaged, or compiled by an earlier version


def compile_gsplat(target: Path, architectures: str) -> None:
    """Let gsplat compile into `target`; under the lock, its clearing of the build folder is harmless."""
    os.environ |= {"TORCH_EXTENSIONS_DIR": str(target), "TORCH_CUDA_ARCH_LIST": architectures}
    try:
        from gsplat.cuda._backend import _C
    except Exception as error:  # RuntimeError from the compiler; other types if there is no compiler
        raise TraceBenchError(
            f"gsplat's kernels cannot be compiled here ({type(error).__name__}: "
            f"{str(error).splitlines()[0]}); this needs a CUDA toolkit that fits torch and a C++ compiler: "
            "load your cluster's modules for them."
        ) from error
    if _C is None:
        raise TraceBenchError(
            "gsplat's kernels are not compiled, and there is no CUDA toolkit to compile them; run "
            "scripts/build_kernels on a machine with nvcc (on many clusters after `module load cuda`)."
        )


@contextlib.contextmanager
def _locked(target: Path, wait_s: float) -> Iterator[None]:
    """Hold the folder's lock, which is released if the process dies; TraceBenchError after `wait_s`."""
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
                        f"{_holder(descriptor)} is still compiling gsplat's kernels after "
                        f"{wait_s:.0f} s; run scripts/build_kernels once before a sweep to avoid the wait."
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
