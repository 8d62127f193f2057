"""Asks each storage pod what it sees: GET /health/cluster.

A pod that does not answer within the limit counts as silent; that is an observation, not an error.  Bodies are
read up to a bound: a pod is not trusted to be well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import aiohttp
import msgspec

from holdfast_operator.observe.pods import PodState
from holdfast_operator.observe.trust import PLAIN, Reach
from holdfast_server.contract import names
from holdfast_server.contract.health import ClusterHealth

ANSWER_TIMEOUT_SECONDS = 3.0
MAX_BODY_SIZE_BYTES = 8 * 1024 * 1024
CONCURRENT_QUESTIONS = 32


@dataclass(frozen=True, slots=True)
class PodView:
    """What one pod answered."""

    pool: str
    ordinal: int
    health: ClusterHealth


class HealthProbe(Protocol):
    """Asks pods; never raises for a pod that does not answer."""

    async def ask_all(self, pods: Iterable[PodState], reach: Reach = PLAIN) -> tuple[PodView, ...]:
        """The views of those that answered."""

    async def bears_absence(self, pod: PodState, reach: Reach = PLAIN) -> bool:
        """Whether this pod says that all sets keep their write quorum without it."""


class HttpHealthProbe:
    """See `HealthProbe`."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self._slots = asyncio.Semaphore(CONCURRENT_QUESTIONS)

    async def ask_all(self, pods: Iterable[PodState], reach: Reach = PLAIN) -> tuple[PodView, ...]:
        reachable = [pod for pod in pods if pod.ip and not pod.deleting]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._ask(pod, reach)) for pod in reachable]
        return tuple(view for task in tasks if (view := task.result()) is not None)

    async def bears_absence(self, pod: PodState, reach: Reach = PLAIN) -> bool:
        answer = await self._get(pod, reach, "?maintenance=true")
        return answer is not None and answer[0] == 200

    async def _ask(self, pod: PodState, reach: Reach) -> PodView | None:
        answer = await self._get(pod, reach)
        if answer is None:
            return None
        try:
            health = msgspec.json.decode(answer[1], type=ClusterHealth)
        except msgspec.MsgspecError:
            return None
        return PodView(pod.pool, pod.ordinal, health)

    async def _get(self, pod: PodState, reach: Reach, query: str = "") -> tuple[int, bytes] | None:
        host = f"[{pod.ip}]" if ":" in pod.ip else pod.ip
        url = f"{reach.scheme}://{host}:{names.S3_PORT}{names.HEALTH_CLUSTER_PATH}{query}"
        try:
            async with (
                self._slots,
                asyncio.timeout(ANSWER_TIMEOUT_SECONDS),
                self._session.get(url, allow_redirects=False, **reach.request_options()) as response,
            ):
                body = await _bounded(response)
                return None if body is None else (response.status, body)
        except (TimeoutError, aiohttp.ClientError, OSError):
            return None


async def _bounded(response: aiohttp.ClientResponse) -> bytes | None:
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > MAX_BODY_SIZE_BYTES:
            return None
    return bytes(body)
