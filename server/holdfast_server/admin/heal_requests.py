"""The admin API's requests about healing: how whole the tenant is, scan now, what is stuck and what becomes of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from holdfast_server.admin.heal_report import derive_heal_status, stuck_objects
from holdfast_server.admin.overview import Overview, TenantView
from holdfast_server.api import bucket_record
from holdfast_server.api.buckets_cache import BucketGone
from holdfast_server.api.services import Services
from holdfast_server.contract.admin import HealStatus, Resolve, Resolved, ScanStarted, StuckObject
from holdfast_server.drives.port import Register
from holdfast_server.heal.registers import KINDS
from holdfast_server.objects import record
from holdfast_server.objects.port import Conflict, Missing, ObjectError, Unavailable
from holdfast_server.s3.errors import S3Error

MAX_BUCKETS_LOOKED_AT = 10_000
PAGE_SIZE = 1000
_SPACES: dict[str, bytes] = {kind: space for space, kind in KINDS.items()}

Decide = Callable[[Register, bool], Awaitable[str]]
"""Carry out a decision about a stuck register (True: keep it); what came of it.  Raises Missing, Conflict,
Unavailable; `objects.resolving` has the meaning."""


class HealRequests:
    def __init__(self, services: Services, view: TenantView, decide: Decide) -> None:
        self._services, self._view, self._decide = services, view, decide

    async def status(self) -> HealStatus:
        """Raises nothing: this is asked when little works."""
        overview = await self._view.look()
        return derive_heal_status(overview, await self._bucket_names(overview))

    async def start_scan(self) -> ScanStarted:
        return await self._view.start_scan()

    async def stuck(self) -> list[StuckObject]:
        overview = await self._view.look()
        states = [answer.state for answer in overview.answers if answer.state is not None]
        return stuck_objects(states, await self._bucket_names(overview))

    async def resolve(self, body: bytes) -> Resolved:
        """Raises S3Error: 400 for a bad request, 404, 409 and 503 with the reason in the message."""
        try:
            request = msgspec.json.decode(body, type=Resolve)
        except msgspec.MsgspecError as error:
            raise S3Error("InvalidArgument", str(error)) from error
        register = await self._register(request)
        try:
            return Resolved(outcome=await self._decide(register, request.keep))
        except Missing as error:
            raise S3Error("NoSuchKey", str(error)) from error
        except Conflict as error:
            raise S3Error("OperationAborted", str(error)) from error
        except Unavailable as error:
            raise S3Error("SlowDown", str(error)) from error

    async def _register(self, request: Resolve) -> Register:
        space = _SPACES.get(request.kind)
        if space is None:
            raise S3Error("InvalidArgument", f"kind: {request.kind!r} is none of {', '.join(_SPACES)}")
        try:
            version = bytes.fromhex(request.version)
        except ValueError as error:
            raise S3Error("InvalidArgument", f"version: {request.version!r} is not hexadecimal") from error
        if request.kind == "document":
            return Register(space + record.SYSTEM_ID, request.key, version)
        return Register(space + await self._bucket_id(request.bucket), request.key, version)

    async def _bucket_id(self, bucket: str) -> bytes:
        try:
            return (await self._services.buckets.get(bucket)).id
        except BucketGone:
            pass
        try:
            bucket_id = bytes.fromhex(bucket)
        except ValueError:
            bucket_id = b""
        if len(bucket_id) != record.BUCKET_ID_SIZE_BYTES:
            raise S3Error("NoSuchBucket", f"there is no bucket {bucket!r}, and it is no bucket's id")
        return bucket_id

    async def _bucket_names(self, overview: Overview) -> dict[str, str]:
        """By hexadecimal id, if any register is stuck; as many as can be read."""
        states = [answer.state for answer in overview.answers if answer.state is not None]
        if not any(held.stuck_samples for state in states for held in state.healing.sets):
            return {}
        names: dict[str, str] = {}
        after: str | None = ""
        try:
            while after is not None and len(names) < MAX_BUCKETS_LOOKED_AT:
                page = await self._services.objects.list_documents(
                    bucket_record.DOCUMENT_PREFIX, after=after, limit=PAGE_SIZE
                )
                for entry in page.entries:
                    bucket = bucket_record.decode_listed(entry.record.body)
                    names[bucket.id.hex()] = bucket.name
                after = page.next_after
        except (ObjectError, bucket_record.BucketDocumentError):
            pass  # an id is better than no answer
        return names
