"""Ask the pods for a scan of everything now, as `holdfast admin heal scan` does, and wait until it is done."""

from __future__ import annotations

import asyncio
import time

import msgspec

from holdfast_server.contract import names
from holdfast_server.contract.admin import HealStatus
from holdfast_server.testing.faults.ledger import PromiseBroken
from holdfast_server.testing.faults.s3_session import NoAnswer, S3Session
from holdfast_server.testing.pods import PodProcesses

SCAN_TIMEOUT_SECONDS = 240.0
_HEAL = names.ADMIN_PREFIX.strip("/") + "/heal"


async def scan_everything(session: S3Session, pods: PodProcesses) -> HealStatus:
    """Returns what the pods say when every drive has completed a pass begun after this call.  All pods must be up.
    Raises PromiseBroken if they do not come to an end."""
    began_ms = time.time_ns() // 1_000_000
    try:
        async with asyncio.timeout(SCAN_TIMEOUT_SECONDS):
            for _ in range(2):
                # A pass that was under way ends first; only the one after it has begun late enough.
                await _ask(session, pods, "POST", _HEAL + "/scan")
                status = await _all_ended(session, pods, began_ms)
                began_ms = time.time_ns() // 1_000_000
            return status
    except TimeoutError:
        raise PromiseBroken(f"no complete scan within {SCAN_TIMEOUT_SECONDS:.0f} s") from None


async def heal_status(session: S3Session, pods: PodProcesses) -> HealStatus:
    """As every pod sees it.  Raises NoAnswer."""
    return msgspec.json.decode(await _ask(session, pods, "GET", _HEAL), type=HealStatus)


async def _all_ended(session: S3Session, pods: PodProcesses, began_ms: int) -> HealStatus:
    while True:
        status = await heal_status(session, pods)
        if len(status.drives) == pods.servers * pods.volumes and all(
            drive.scanner.last_pass_ended_ms >= began_ms for drive in status.drives
        ):
            return status
        await asyncio.sleep(0.3)


async def _ask(session: S3Session, pods: PodProcesses, method: str, path: str) -> bytes:
    while True:
        try:
            answer = await session.exchange(pods.endpoint(0), method, path, keep=True)
            if answer.ok:
                return answer.body
        except NoAnswer:
            pass
        await asyncio.sleep(0.5)
