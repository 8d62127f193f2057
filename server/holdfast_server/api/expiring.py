"""Lifecycle rules carried out: what the walk over buckets found to be due is looked at again, and ended.

Nothing is lost that was written between decision and deletion: each deletion is a conditional write on exactly the
version that was judged, under a lease on its bucket like any client's, by the rules as that lease has them.  So it may
be asked for twice, by two pods at once, and happens once.  A version that is locked stays.

The time is one that has passed by every pod's clock that can be asked (`clock.bounds`).  A pod whose clock is ahead
expires nothing early; what a pod wrote whose clock was behind is older than it should be by just that.

Not here: finding what may be due (`heal.bucket_walk`), what is due (`s3.expiry`).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from holdfast_server.api.bucket_record import BucketDocumentError, BucketRecord
from holdfast_server.api.buckets import all_buckets
from holdfast_server.api.buckets_cache import BucketBusy, BucketGone, WriteLease
from holdfast_server.api.deleted_buckets import deleted_for_good
from holdfast_server.api.lifecycle import facts_of
from holdfast_server.api.quotas import Quotas
from holdfast_server.api.services import Services
from holdfast_server.api.version_ids import version_id
from holdfast_server.audit.record import AuditRecord, encode_line, shortened, timestamp
from holdfast_server.contract.healing import BucketUsage
from holdfast_server.heal.bucket_keeper import Buckets, Outcome, WalkedBucket
from holdfast_server.objects.port import (
    NULL_VERSION,
    Condition,
    Conflict,
    ListedVersion,
    Locked,
    Missing,
    ObjectError,
    Record,
    Versioning,
)
from holdfast_server.s3.expiry import Calendar, Due, Facts, Why, due_versions, expires_at, upload_ends_at

VERSIONS_PER_PAGE = 100
"""Of one key; others of which it is a prefix are listed with it, so no more at once."""
ACCOUNT = "lifecycle"
_OPERATIONS = {
    Why.EXPIRED: "S3.EXPIRE.OBJECT",
    Why.NONCURRENT: "S3.EXPIRE.OBJECT",
    Why.MARKER: "S3.EXPIRE.OBJECT",
    Why.UPLOAD: "S3.EXPIRE.UPLOAD",
}
_MARKER_MADE = "S3.CREATE.DELETEMARKER"
"""As AWS names them in its access logs."""

log = logging.getLogger(__name__)


Work = Callable[[WriteLease, Outcome], Awaitable[None]]


class _NotDue(Exception):
    """It is not any more what was judged."""


def _walked(bucket: BucketRecord) -> WalkedBucket:
    return WalkedBucket(bucket.name, [rule for rule in bucket.lifecycle if rule.enabled], bool(bucket.versioning))


def _is_still(judged: Record) -> Condition:
    """A delete marker is shown to conditions as nothing."""

    def check(current: Record | None) -> None:
        if judged.marker != (current is None) or (current is not None and current.stamp != judged.stamp):
            raise _NotDue

    return check


class LifecycleKeeper:
    """Implements `heal.bucket_keeper.BucketKeeper`."""

    def __init__(
        self, services: Services, now_ms: Callable[[], int], quotas: Quotas, calendar: Calendar | None = None
    ) -> None:
        self._services = services
        self._quotas = quotas
        self.now_ms = now_ms
        self.calendar = calendar or Calendar()

    def facts(self, found: Record) -> Facts:
        return facts_of(found)

    async def look(self) -> Buckets:
        found = await all_buckets(self._services)
        self._quotas.knows(found)
        deleted = await deleted_for_good(self._services, {bucket.id for bucket in found})
        return Buckets({bucket.id: _walked(bucket) for bucket in found}, deleted)

    async def begin_count(self, set_name: str, bucket_id: bytes) -> None:
        await self._quotas.begin_count(set_name, bucket_id)

    def counted(self, set_name: str, usage: BucketUsage, counted_ms: int) -> None:
        self._quotas.counted(set_name, usage, counted_ms)

    # ---------------------------------------------------------------- carrying out

    async def expire(self, bucket_id: bytes, bucket: WalkedBucket, key: str, stamp: int) -> Outcome:
        async def work(lease: WriteLease, outcome: Outcome) -> None:
            rule = ""

            def still_due(current: Record | None) -> None:
                nonlocal rule
                if current is None or current.stamp != stamp:
                    raise _NotDue
                ends = expires_at(lease.bucket.lifecycle, key, facts_of(current), self.calendar)
                if ends is None or ends[0] > self.now_ms():
                    raise _NotDue
                rule = ends[1]

            deleted = await self._services.objects.delete_object(bucket_id, key, still_due, lease.keeps)
            self._tell(lease.bucket, key, Why.EXPIRED, rule, deleted, outcome)

        return await self._under_lease(bucket_id, bucket, key, work)

    async def settle(self, bucket_id: bytes, bucket: WalkedBucket, key: str) -> Outcome:
        async def work(lease: WriteLease, outcome: Outcome) -> None:
            objects = self._services.objects
            newer: list[ListedVersion] = []
            preceding = 0
            after_version = b""
            while True:
                listing = await objects.list_versions(
                    bucket_id, prefix=key, after=key if after_version else "", after_version=after_version,
                    limit=VERSIONS_PER_PAGE,
                )  # fmt: skip
                own = [entry for entry in listing.entries if entry.key == key]
                versions = [*newer, *own]
                facts = [facts_of(entry.record) for entry in versions]
                rules = lease.bucket.lifecycle
                for due in due_versions(rules, key, facts, self.now_ms(), self.calendar, preceding):
                    await self._end(lease, key, versions[due.place].record, due, outcome)
                if not listing.truncated or len(own) < len(listing.entries) or not own:
                    return
                newer, preceding = own[-1:], preceding + len(versions) - 1
                after_version = own[-1].record.place

        return await self._under_lease(bucket_id, bucket, key, work)

    async def _end(self, lease: WriteLease, key: str, judged: Record, due: Due, outcome: Outcome) -> None:
        objects, bucket_id = self._services.objects, lease.bucket.id
        await lease.renew()
        lease.confirm()
        try:
            if due.why is Why.EXPIRED:
                deleted = await objects.delete_object(bucket_id, key, _is_still(judged), lease.keeps)
            else:
                version = NULL_VERSION if judged.null else judged.place
                deleted = await objects.delete_version(bucket_id, key, version, _is_still(judged))
                if deleted is None:
                    return  # somebody else was first
        except _NotDue:
            return
        except ObjectError as error:
            self._left(key, outcome, error)
            return
        self._tell(lease.bucket, key, due.why, due.rule, deleted, outcome)

    async def end_upload(self, bucket_id: bytes, bucket: WalkedBucket, key: str, upload_id: bytes) -> Outcome:
        async def work(lease: WriteLease, outcome: Outcome) -> None:
            upload = await self._services.objects.get_upload(bucket_id, key, upload_id)
            if upload is None:
                return
            ends = upload_ends_at(lease.bucket.lifecycle, key, upload.modified_ms, self.calendar)
            if ends is None or ends[0] > self.now_ms():
                return
            try:
                await self._services.objects.abort_upload(bucket_id, key, upload_id)
            except (Missing, Conflict):
                return  # it is being completed, or was aborted
            self._tell(lease.bucket, key, Why.UPLOAD, ends[1], None, outcome)

        return await self._under_lease(bucket_id, bucket, key, work)

    async def _under_lease(self, bucket_id: bytes, bucket: WalkedBucket, key: str, work: Work) -> Outcome:
        """Whatever happens to one key holds up no other."""
        outcome = Outcome()
        try:
            async with self._services.buckets.writing(bucket.name) as lease:
                if lease.bucket.id != bucket_id:
                    return outcome
                lease.confirm()
                await work(lease, outcome)
        except (_NotDue, BucketGone):
            pass
        except (ObjectError, BucketBusy, BucketDocumentError, TimeoutError) as error:
            self._left(key, outcome, error)
        return outcome

    def _left(self, key: str, outcome: Outcome, error: Exception) -> None:
        if isinstance(error, Locked):
            outcome.locked += 1
            return
        log.info("%r is due and could not be ended now: %s", key, error)
        outcome.failed += 1

    def _tell(
        self, bucket: BucketRecord, key: str, why: Why, rule: str, ended: Record | None, outcome: Outcome
    ) -> None:
        outcome.done[why] += 1
        audit = self._services.audit
        if not audit.active:
            return
        made_marker = why is Why.EXPIRED and bucket.keeps is not Versioning.OFF
        parameters = {"ruleId": shortened(rule, 255)}
        if ended is not None and bucket.keeps is not Versioning.OFF:
            parameters["versionId"] = version_id(ended)
        now_ms = self._services.clock.now_ms()
        line = AuditRecord(
            time=timestamp(now_ms), request_id="", pod=self._services.pod_name, remote="", secure=False, access_key="",
            account=ACCOUNT, method="", operation=_MARKER_MADE if made_marker else _OPERATIONS[why],
            bucket=bucket.name, key=shortened(key, 1024), source="", parameters=parameters, status=204, error="",
            cut=False, received_bytes=0, sent_bytes=0, duration_ms=0.0, user_agent="",
        )  # fmt: skip
        audit.offer(encode_line(line))
