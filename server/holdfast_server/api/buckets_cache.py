"""Name → bucket, from memory, without ever writing into a bucket that was deleted meanwhile.

A record that was read is good for `LEASE_SECONDS`, counted from before the read began; then it is read anew.
Rule 12 of the quorum protocol rests on three things here:

- A write commits only under a `WriteLease` whose record is younger than the lease at that moment
  (`confirm`, called right before the commit; `renew` before it re-reads what has grown old).
- `fence(bucket_id)` forgets the record, refuses to confirm any lease taken before, and returns once every
  write that was already confirmed has ended.  After that no commit can follow that did not see the mark.
- Whoever deletes a bucket without reaching all pods waits `LEASE_SECONDS` plus the time an operation may take.

Readers use the same records; they may serve from a bucket for up to a lease after it was marked, never after
the delete was acknowledged.  Absence is not cached: a bucket created through another pod is seen at once.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from holdfast_server.api import bucket_record
from holdfast_server.api.bucket_record import BucketRecord
from holdfast_server.clock.port import Clock
from holdfast_server.objects.object_lock import BY_DEFAULT, RETENTION, Retention, with_retention
from holdfast_server.objects.port import Objects, Unavailable, Versioning

LEASE_SECONDS = 5.0
"""How long a read record may be used.  Longer: fewer reads; shorter: quicker deletes with a pod unreachable."""
RENEW_AFTER_SECONDS = 2.0
"""A write that ends re-reads the record if it is older, so that confirming has most of a lease left."""
MAX_CACHED_BUCKETS = 4096


class BucketGone(Exception):
    """No such bucket (any more)."""


class BucketBusy(Exception):
    """The bucket is being deleted; whether it stays is not decided yet."""


class _Entry:
    """One reading of a bucket's record.  Leases hold on to theirs, so it may outlive its place in the cache."""

    __slots__ = ("fenced", "read_at", "record")

    def __init__(self, record: BucketRecord, read_at: float, fenced: bool) -> None:
        self.record = record
        self.read_at = read_at
        self.fenced = fenced


class WriteLease:
    """The right of one write to commit into one bucket; from `BucketCache.writing`."""

    def __init__(self, cache: BucketCache, entry: _Entry) -> None:
        self._cache = cache
        self._entry = entry
        self.confirmed = False

    @property
    def bucket(self) -> BucketRecord:
        return self._entry.record

    @property
    def keeps(self) -> Versioning:
        """What the write is to leave of what it takes the place of; to be asked once it is confirmed."""
        return self.bucket.keeps

    def kept(self, headers: Mapping[str, str]) -> dict[str, str]:
        """The headers of an object that is committed now, under the bucket's default retention if it goes by that; to
        be asked once it is confirmed."""
        default = self.bucket.default_retention
        if headers.get(RETENTION) != BY_DEFAULT:
            return dict(headers)
        if default is None:
            return with_retention(headers, None)
        return with_retention(headers, Retention(default.mode, default.until_ms(self._cache.latest_ms())))

    async def renew(self) -> None:
        """Re-read the bucket if the lease has grown old or was fenced.  Raises BucketGone, BucketBusy,
        Unavailable."""
        if self._cache.usable(self._entry, RENEW_AFTER_SECONDS):
            return
        entry = await self._cache.entry(self.bucket.name, RENEW_AFTER_SECONDS)
        if entry.record.id != self.bucket.id:
            raise BucketGone(self.bucket.name)
        if entry.record.deleting:
            raise BucketBusy(self.bucket.name)
        self._entry = entry

    def fence(self) -> None:
        """Not to be confirmed before it was renewed.  What is confirmed already stays so, and is waited for."""
        self._entry.fenced = True

    def confirm(self) -> None:
        """The last step before the commit.  Raises Unavailable where the lease is too old or was fenced."""
        if not self._cache.usable(self._entry, LEASE_SECONDS):
            raise Unavailable(f"the lease on bucket {self.bucket.name} ran out before the commit")
        self.confirmed = True


class BucketCache:
    def __init__(
        self,
        objects: Objects,
        clock: Clock,
        seen: Callable[[BucketRecord], None] = lambda record: None,
        latest_ms: Callable[[], int] | None = None,
    ) -> None:
        """`seen` is told of every record that is read.  `latest_ms`: the time by the clock of the pod that is furthest
        ahead (`clock.bounds`); by default there is one."""
        self.latest_ms = latest_ms or clock.now_ms
        self._objects = objects
        self._seen = seen
        self._clock = clock
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._reads: dict[str, asyncio.Task[_Entry | None]] = {}
        self._leases: dict[bytes, set[WriteLease]] = {}
        self._ended = asyncio.Event()

    # --- reading

    async def get(self, name: str) -> BucketRecord:
        """The bucket, whatever its state.  Raises BucketGone, Unavailable."""
        return (await self.entry(name, LEASE_SECONDS)).record

    async def entry(self, name: str, age_seconds: float) -> _Entry:
        """The cached reading if it is young enough, else a new one.  Raises BucketGone, Unavailable."""
        entry = self._entries.get(name)
        # One that is being deleted may be gone by now, and another pod may have said so.
        if entry is None or not self.usable(entry, age_seconds) or entry.record.deleting:
            entry = await self.read(name)
        return entry

    def usable(self, entry: _Entry, age_seconds: float) -> bool:
        return not entry.fenced and self._clock.monotonic_seconds() - entry.read_at <= age_seconds

    async def read(self, name: str) -> _Entry:
        """Read the record now; callers that ask at the same time share one read.  Raises BucketGone."""
        task = self._reads.get(name)
        if task is None:
            task = asyncio.create_task(self._read(name), name=f"read bucket {name}")
            self._reads[name] = task
            task.add_done_callback(lambda done: self._forget_read(name, done))
        entry = await asyncio.shield(task)
        if entry is None:
            raise BucketGone(name)
        return entry

    def _forget_read(self, name: str, done: asyncio.Task[_Entry | None]) -> None:
        if self._reads.get(name) is done:
            del self._reads[name]
        if not done.cancelled():
            done.exception()  # its waiters were told; one that was cancelled meanwhile need not hear it

    async def _read(self, name: str) -> _Entry | None:
        read_at = self._clock.monotonic_seconds()
        document = await self._objects.get_document(bucket_record.document_name(name))
        if document is None:
            self._entries.pop(name, None)
            return None
        # Forgotten while it was read: what came back may be older than the change, so it is good for nothing.
        overtaken = self._reads.get(name) is not asyncio.current_task()
        entry = _Entry(bucket_record.decode(document.body), read_at, overtaken)
        self._seen(entry.record)
        if not overtaken:
            self._entries[name] = entry
            self._entries.move_to_end(name)
            while len(self._entries) > MAX_CACHED_BUCKETS:
                self._entries.popitem(last=False)
        return entry

    # --- writing

    @asynccontextmanager
    async def writing(self, name: str, bucket_id: bytes = b"") -> AsyncIterator[WriteLease]:
        """For the time of one write; into that one bucket of the name, where an id is given.  Raises BucketGone,
        BucketBusy, Unavailable."""
        entry = self._entries.get(name)
        if entry is None or not self.usable(entry, LEASE_SECONDS) or entry.record.deleting:
            entry = await self.read(name)
        if bucket_id and entry.record.id != bucket_id:
            raise BucketGone(name)
        if entry.record.deleting:
            raise BucketBusy(name)
        lease = WriteLease(self, entry)
        leases = self._leases.setdefault(entry.record.id, set())
        leases.add(lease)
        try:
            yield lease
        finally:
            leases.discard(lease)
            if not leases and self._leases.get(lease.bucket.id) is leases:
                del self._leases[lease.bucket.id]
            self._ended.set()

    # --- forgetting

    def forget(self, name: str) -> None:
        """The record has changed.  A read under way began before, so it does not count as the news either."""
        self._reads.pop(name, None)
        entry = self._entries.pop(name, None)
        if entry is not None:
            entry.fenced = True

    async def fence(self, bucket_id: bytes) -> None:
        """Returns once no commit into the bucket can follow that has not read its record anew."""
        for name, entry in list(self._entries.items()):
            if entry.record.id == bucket_id:
                self.forget(name)
        self._reads.clear()  # whose reads these are is not known yet
        for lease in self._leases.get(bucket_id, ()):
            lease.fence()
        leases = self._leases.get(bucket_id, set())
        confirmed = {lease for lease in leases if lease.confirmed}
        while confirmed & leases:
            self._ended.clear()
            await self._ended.wait()
