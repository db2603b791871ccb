"""Tests run on a CPU without a network; tests that need more have a marker."""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MPLBACKEND": "Agg",
    "HYDRA_FULL_ERROR": "1",
}
# Set before torch, transformers or matplotlib is imported, and inherited by the processes that tests start.
os.environ.update(ENVIRONMENT)
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # pytest-xdist's workers share the cores

NETWORK_ALLOWED = os.environ.get("TRACE_BENCH_TEST_NETWORK") == "1"


class NetworkBlockedError(OSError):
    """A test tried to leave this machine."""


def _is_local(family: int, address: Any) -> bool:
    if family == socket.AF_UNIX:
        return True
    host = address[0]
    if host in {"", "localhost"}:
        return True
    try:
        return ipaddress.ip_address(host.split("%")[0]).is_loopback
    except ValueError:  # a host name, which cannot be resolved offline
        return False


@pytest.fixture(autouse=True, scope="session")
def _private_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the package's caches (embeddings, downloads) out of the user's home."""
    os.environ["TRACE_BENCH_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore what a command changes for its process: `prefetch` goes online."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """Restore logging: Hydra adds root handlers that write to a stream closed at the end of the test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(autouse=True)
def _no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow only loopback and Unix sockets, except in `network` tests."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # put back after a test of prefetch, which removes it
    if NETWORK_ALLOWED and request.node.get_closest_marker("network"):
        return

    def guarded(original: Any) -> Any:
        def connect(self: socket.socket, address: Any) -> Any:
            if not _is_local(self.family, address):
                raise NetworkBlockedError(f"tests are offline, this one wanted {address}")
            return original(self, address)

        return connect

    lookup = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name is not None and not _is_local(socket.AF_INET, (name,)):
            raise NetworkBlockedError(f"tests are offline, this one wanted to look up {name}")
        return lookup(host, *args, **kwargs)

    monkeypatch.setattr(socket.socket, "connect", guarded(socket.socket.connect))
    monkeypatch.setattr(socket.socket, "connect_ex", guarded(socket.socket.connect_ex))
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip `gpu` tests without a CUDA device, and `network` tests unless requested.

    The sweeps on Slurm come first: they mostly wait, and would be alone at the end.
    """
    items.sort(key=lambda item: "slurm/test_sweeps.py" not in item.nodeid)
    gpu = [item for item in items if item.get_closest_marker("gpu")]
    if gpu:
        import torch

        if not torch.cuda.is_available():
            for item in gpu:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
    for item in items:
        if item.get_closest_marker("network") and not NETWORK_ALLOWED:
            item.add_marker(pytest.mark.skip(reason="needs the internet: set TRACE_BENCH_TEST_NETWORK=1"))
