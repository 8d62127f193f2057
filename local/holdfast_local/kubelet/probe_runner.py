"""Performing probes: one HTTP, TCP or exec attempt, and the loop that repeats it.

An attempt never raises: whatever goes wrong within the time limit is a failed probe with a reason, as with a
real kubelet.  Certificates are not verified, as there.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

import aiohttp

from holdfast_local.kubelet.probe_state import ProbeKind, ProbeState, ProbeTiming, Verdict

FAILURE_BODY_LIMIT_BYTES = 256


class ProbeResult(NamedTuple):
    success: bool
    message: str


Exec = Callable[[Sequence[str], float], Awaitable[ProbeResult]]
"""Runs a command inside the container: (command, timeout in seconds)."""


class ProbeTarget(NamedTuple):
    """Where a container's probes go."""

    address: str
    container: Mapping[str, Any]
    exec: Exec
    session: aiohttp.ClientSession


async def attempt(target: ProbeTarget, probe: Mapping[str, Any]) -> ProbeResult:
    """One attempt, within the probe's timeout."""
    timeout_seconds = ProbeTiming.from_manifest(probe).timeout_seconds
    try:
        if "httpGet" in probe:
            return await _http(target, probe["httpGet"], timeout_seconds)
        if "tcpSocket" in probe:
            return await _tcp(target, probe["tcpSocket"], timeout_seconds)
        if "exec" in probe:
            return await target.exec(probe["exec"]["command"], timeout_seconds)
        return ProbeResult(False, f"this kind of probe is not supported here: {', '.join(probe)}")
    except TimeoutError:
        return ProbeResult(False, f"no answer within {timeout_seconds:g} s")
    except aiohttp.ClientConnectorError as error:
        return ProbeResult(False, f"dial tcp {error.host}:{error.port}: connect: {_reason(error.os_error)}")
    except (aiohttp.ClientError, OSError, LookupError, ValueError) as error:
        return ProbeResult(False, str(error) or type(error).__name__)


def _reason(error: OSError) -> str:
    """`Connection refused`; the event loop hides it in a sentence of its own."""
    return os.strerror(error.errno) if error.errno else str(error)


async def follow(
    target: ProbeTarget,
    probe: Mapping[str, Any],
    kind: ProbeKind,
    on_verdict: Callable[[ProbeKind, Verdict, str], None],
    on_failure: Callable[[ProbeKind, str], None],
) -> None:
    """Probe until cancelled (a startup probe until it passed); `on_failure` hears of every failed attempt."""
    timing = ProbeTiming.from_manifest(probe)
    state = ProbeState(kind, timing)
    await asyncio.sleep(timing.initial_delay_seconds)
    while True:
        result = await attempt(target, probe)
        if not result.success:
            on_failure(kind, result.message)
        verdict = state.observe(result.success)
        if verdict is not Verdict.UNCHANGED:
            on_verdict(kind, verdict, result.message)
        if kind is ProbeKind.STARTUP and verdict is Verdict.PASSED:
            return
        await asyncio.sleep(timing.period_seconds)


def resolve_port(container: Mapping[str, Any], port: int | str) -> int:
    """A number, or the container's port of that name; LookupError where it has none."""
    if isinstance(port, int):
        return port
    for declared in container.get("ports") or []:
        if declared.get("name") == port:
            return int(declared["containerPort"])
    if port.isdigit():
        return int(port)
    raise LookupError(f"container {container['name']} has no port named {port!r}")


async def _http(target: ProbeTarget, action: Mapping[str, Any], timeout_seconds: float) -> ProbeResult:
    port = resolve_port(target.container, action["port"])
    scheme = str(action.get("scheme") or "HTTP").lower()
    url = f"{scheme}://{action.get('host') or target.address}:{port}/{action.get('path', '/').lstrip('/')}"
    headers = {h["name"]: h["value"] for h in action.get("httpHeaders") or []}
    async with target.session.get(
        url,
        headers=headers,
        ssl=False,
        allow_redirects=False,
        timeout=aiohttp.ClientTimeout(total=timeout_seconds),
    ) as response:
        if 200 <= response.status < 400:
            return ProbeResult(True, "")
        body = (await response.content.read(FAILURE_BODY_LIMIT_BYTES)).decode("utf-8", "replace")
        return ProbeResult(False, f"HTTP probe failed with statuscode: {response.status} {body}".strip())


async def _tcp(target: ProbeTarget, action: Mapping[str, Any], timeout_seconds: float) -> ProbeResult:
    port = resolve_port(target.container, action["port"])
    host = action.get("host") or target.address
    try:
        async with asyncio.timeout(timeout_seconds):
            _, writer = await asyncio.open_connection(host, port)
    except ConnectionError as error:
        return ProbeResult(False, f"dial tcp {host}:{port}: connect: {_reason(error)}")
    writer.close()
    return ProbeResult(True, "")
