"""Clients of `PodProcesses` that say exactly what a test wants, and what pods hold while they do.

Everything goes to one pod, signed as root, with or without TLS as the pods have it.
"""

from __future__ import annotations

import asyncio
import collections
import re
import ssl
import time
import urllib.request
from collections.abc import Awaitable, Iterable
from pathlib import Path

from holdfast_server.contract import names
from holdfast_server.drives.shard_files import staged_names
from holdfast_server.memory.limits import KIB, MIB
from holdfast_server.s3.signing import KeyPair, sign_headers
from holdfast_server.testing.pods import PEERS_AUTHORITY, PodProcesses

Outcomes = collections.Counter[str]


class Wire:
    """One connection."""

    def __init__(self, pods: PodProcesses, pod: int = 0) -> None:
        self._host = pods.address(pod)
        self._pair = KeyPair(pods.access_key, pods.secret_key)
        self._trust = None if pods.tls is None else trust(pods)

    async def __aenter__(self) -> Wire:
        self.reader, self.writer = await asyncio.open_connection(
            self._host, names.S3_PORT, limit=MIB, ssl=self._trust
        )  # fmt: skip
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.transport.abort()

    def head(self, method: str, path: str, query: str = "", **headers: str) -> bytes:
        """A request's, signed; underscores in names of headers stand for hyphens."""
        given = {
            "host": f"{self._host}:{names.S3_PORT}",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        now_ms = time.time_ns() // 1_000_000
        payload_hash = given.pop("x-amz-content-sha256", "UNSIGNED-PAYLOAD")
        signed = sign_headers(self._pair, method, path, query, given, now_ms, payload_hash)
        lines = "".join(f"{name}: {value}\r\n" for name, value in signed.items())
        return f"{method} {path}{'?' + query if query else ''} HTTP/1.1\r\n{lines}\r\n".encode()

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and, of what is no 2xx, the body."""
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        status = int(lines[0].split()[1])
        body = await self.reader.readexactly(int(headers.get("content-length", "0"))) if status >= 300 else b""
        return status, headers, body

    async def take(self, size: int) -> None:
        """Read so many bytes of a body and forget them."""
        while size:
            data = await self.reader.read(min(size, MIB))
            assert data, "the answer ended early"
            size -= len(data)


def trust(pods: PodProcesses) -> ssl.SSLContext:
    """For clients of pods whose certificate is of the authority that vouches for the pods."""
    assert pods.tls is not None
    return ssl.create_default_context(cadata=pods.tls[PEERS_AUTHORITY])


async def put(pods: PodProcesses, path: str, size: int, *, patient: bool = False) -> str:
    """What came of it: the status, or the error's code.  `patient` as SDKs are: nothing is sent before it is wanted, so
    that a refusal is not lost where sending the rest takes this side longer than the pod waits."""
    async with Wire(pods) as wire:
        more = {"expect": "100-continue"} if patient else {}
        wire.writer.write(wire.head("PUT", path, content_length=str(size), **more))
        if patient:
            first = await wire.answer()
            if first[0] != 100:
                return outcome(*first)
        wire.writer.write(bytes(size))
        return outcome(*await wire.answer())


async def get(pods: PodProcesses, path: str, size: int) -> str:
    """The same."""
    async with Wire(pods) as wire:
        wire.writer.write(wire.head("GET", path))
        status, headers, body = await wire.answer()
        if status == 200:
            await wire.take(size)
        return outcome(status, headers, body)


def outcome(status: int, headers: dict[str, str], body: bytes) -> str:
    """Success, or being told to slow down in the form that is promised; anything else fails."""
    if status == 200:
        return "200"
    assert status == 503, (status, body)
    assert headers["retry-after"] == "1"
    return re.search(rb"<Code>(\w+)</Code>", body)[1].decode()  # type: ignore[index]


async def counted(work: Iterable[Awaitable[str]]) -> Outcomes:
    """All at once."""
    return collections.Counter(await asyncio.gather(*work))


def peak_bytes(pods: PodProcesses) -> list[int]:
    """The greatest resident size of every pod so far."""
    found = []
    for process in pods.processes.values():
        status = Path(f"/proc/{process.pid}/status").read_text()
        found.append(int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * KIB)  # type: ignore[index]
    return found


def in_flight(pods: PodProcesses) -> float:
    """Requests that some pod works on."""
    total = 0.0
    for pod in pods.processes:
        with urllib.request.urlopen(f"{pods.probe_endpoint(pod)}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        total += float(re.search(r"^holdfast_s3_requests_in_flight (\S+)", text, re.MULTILINE)[1])  # type: ignore[index]
    return total


def staged(pods: PodProcesses) -> list[str]:
    """Shards that no record names."""
    drives = [pods.drive_path(pod, volume) for pod in pods.processes for volume in range(pods.volumes)]
    return [name for drive in drives for name in staged_names(drive)]
