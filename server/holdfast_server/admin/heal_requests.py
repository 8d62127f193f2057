"""The admin API's requests about healing: how whole the tenant is, scan now, what is stuck and what becomes of it."""

from __future__ import annotations

from holdfast_server.admin.heal_report import derive_heal_status, stuck_objects
from holdfast_server.admin.overview import Overview, TenantView
from holdfast_server.api import bucket_record
from holdfast_server.api.services import Services
from holdfast_server.contract.admin import HealStatus, ScanStarted, StuckObject
from holdfast_server.objects.port import ObjectError

MAX_BUCKETS_LOOKED_AT = 10_000
PAGE_SIZE = 1000


class HealRequests:
    def __init__(self, services: Services, view: TenantView) -> None:
        self._services, self._view = services, view

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
                    bucket = bucket_record.decode(entry.record.body)
                    names[bucket.id.hex()] = bucket.name
                after = page.next_after
        except (ObjectError, bucket_record.BucketDocumentError):
            pass  # an id is better than no answer
        return names
