"""What a failed probe says in a pod's events: the words of a real kubelet."""

from __future__ import annotations

import socket
from typing import Any

import aiohttp
import pytest

from holdfast_local.apiserver.definitions import KUBERNETES_VERSION
from holdfast_local.kubelet.node import node_status
from holdfast_local.kubelet.probe_runner import ProbeResult, ProbeTarget, attempt


async def no_exec(command: Any, timeout_seconds: float) -> ProbeResult:
    raise AssertionError("not asked for")


@pytest.mark.parametrize("kind", ["httpGet", "tcpSocket"])
async def test_a_refused_connection_is_said_in_plain_words(kind: str) -> None:
    with socket.socket() as taken:  # bound and not listening: nobody else can answer there
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        async with aiohttp.ClientSession() as session:
            target = ProbeTarget("127.0.0.1", {"name": "c"}, no_exec, session)
            result = await attempt(target, {kind: {"port": port}})
    assert result == ProbeResult(False, f"dial tcp 127.0.0.1:{port}: connect: Connection refused")


def test_the_node_is_of_the_version_of_the_api_server() -> None:
    info = node_status("local", True, "2026-01-01T00:00:00Z")["nodeInfo"]
    assert info["kubeletVersion"].startswith(f"v{KUBERNETES_VERSION}")
