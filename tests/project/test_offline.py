"""The network block in conftest.py works: no external connections, loopback allowed."""

from __future__ import annotations

import os
import socket
import urllib.error
import urllib.request

import pytest


@pytest.mark.parametrize("address", [("192.0.2.1", 80), ("10.0.0.1", 443)])
def test_foreign_addresses_are_refused(address):
    with socket.socket() as plug, pytest.raises(OSError, match="tests are offline"):
        plug.connect(address)


def test_names_are_not_looked_up():
    with pytest.raises(urllib.error.URLError, match="tests are offline"):
        urllib.request.urlopen("http://example.invalid/")


def test_loopback_connects():
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname(), timeout=5) as plug:
            plug.sendall(b"hello")
            peer, _ = server.accept()
        with peer:
            assert peer.recv(5) == b"hello"


def test_the_hub_is_offline():
    assert os.environ["HF_HUB_OFFLINE"] == "1"
