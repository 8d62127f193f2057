"""A port that is free stays so until it is listened on."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from holdfast_server.testing.free_ports import free_port


def test_it_is_none_that_the_system_gives_to_clients() -> None:
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    if first < 20_000:
        pytest.skip("this system gives nearly all ports to clients")
    assert not any(first <= free_port() <= last for _ in range(100))


def test_one_that_is_listened_on_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as listening:
        taken, other = listening.getsockname()[1], free_port()
        drawn = [taken - 10_000, taken - 10_000, other - 10_000]
        monkeypatch.setattr("secrets.randbelow", lambda _: drawn.pop(0))
        assert free_port() == other
