"""What pods do about buckets and reads, broken: rules 12 and 13."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

import msgspec

from holdfast_server.api import bucket_record, buckets, reading_again
from holdfast_server.api.bucket_record import BucketRecord
from holdfast_server.api.buckets_cache import BucketCache, WriteLease
from holdfast_server.api.services import Services
from holdfast_server.drives.port import Held
from holdfast_server.objects.record import BUCKET_ID_SIZE_BYTES
from holdfast_server.testing.memory_drive import MemoryDrive
from holdfast_server.testing.sim.broken import both


def objects_are_kept_by_the_buckets_name() -> AbstractContextManager[Any]:
    """A bucket made anew has the id of the one before."""
    honest = bucket_record.encode

    def encode(record: BucketRecord) -> bytes:
        return honest(msgspec.structs.replace(record, id=b"n" * BUCKET_ID_SIZE_BYTES))

    return mock.patch.object(bucket_record, "encode", encode)


def nobody_lets_go_of_a_bucket() -> AbstractContextManager[Any]:
    """It is looked at as soon as it is marked."""

    async def let_go(_: Services, __: BucketRecord) -> None:
        return

    return mock.patch.object(buckets, "let_go", let_go)


def silent_pods_are_not_waited_for() -> AbstractContextManager[Any]:
    """Pods that do not answer are taken to have let go."""
    return mock.patch.object(buckets, "LEASE_SECONDS", -1e6)


def leases_do_not_lapse() -> AbstractContextManager[Any]:
    """A write commits under a reading of the bucket of any age, fenced or not."""

    def confirm(self: WriteLease) -> None:
        self.confirmed = True

    async def renew(_: WriteLease) -> None:
        return

    return both(mock.patch.object(WriteLease, "confirm", confirm), mock.patch.object(WriteLease, "renew", renew))


def fences_do_not_wait_for_confirmed_writes() -> AbstractContextManager[Any]:
    """A pod says that it has let go while its commits are under way."""
    honest = BucketCache.fence

    async def fence(self: BucketCache, bucket_id: bytes) -> None:
        confirmed = [lease for lease in self._leases.get(bucket_id, ()) if lease.confirmed]
        for lease in confirmed:
            lease.confirmed = False
        await honest(self, bucket_id)

    return mock.patch.object(BucketCache, "fence", fence)


def reads_do_not_start_again() -> AbstractContextManager[Any]:
    """A version that is gone before its first byte ends the request."""
    return mock.patch.object(reading_again, "READ_ATTEMPTS", 1)


def superseded_shards_go_at_once() -> AbstractContextManager[Any]:
    """Whoever may be reading them."""
    honest = MemoryDrive._save

    def save(self: MemoryDrive, row: bytes, state: Any, gone: Sequence[Held] = (), lazily: Any = None) -> None:
        honest(self, row, state, gone, lazily)
        named = self.named_shards()
        for held in gone:
            for data_id in held.data_ids:
                if data_id not in named:
                    self._trash.pop(data_id, None)
                    self._shards.pop(data_id, None)

    return mock.patch.object(MemoryDrive, "_save", save)
