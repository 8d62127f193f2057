"""The admin API's requests about buckets: what each holds, its quota, its ETags, and whose it is."""

from __future__ import annotations

import msgspec

from holdfast_server.admin.identity_requests import account_fault
from holdfast_server.api.bucket_record import OPAQUE, BucketRecord, Quota
from holdfast_server.api.bucket_settings import change_named_bucket, named_bucket
from holdfast_server.api.buckets import all_buckets
from holdfast_server.api.services import Services
from holdfast_server.contract.buckets import BucketEtag, BucketInfo, BucketOwner, BucketQuota, TenantUsage
from holdfast_server.objects.port import ObjectError
from holdfast_server.s3.errors import S3Error

_OLDER_POD = (
    "Before a bucket gets opaque ETags, every pod must be reachable and run a release that knows of them: others "
    "cannot complete uploads to it."
)


class BucketRequests:
    def __init__(self, services: Services) -> None:
        self._services = services

    async def list_buckets(self) -> list[BucketInfo]:
        """Of all accounts, by name.  Raises Unavailable."""
        return [self._info(bucket) for bucket in await all_buckets(self._services)]

    async def usage(self) -> TenantUsage:
        """Raises nothing: what cannot be learned now is told as such."""
        try:
            found = await self.list_buckets()
        except ObjectError:
            return TenantUsage(known=False)
        return TenantUsage(
            buckets=len(found),
            objects=sum(one.objects for one in found),
            versions=sum(one.versions for one in found),
            size_bytes=sum(one.size_bytes for one in found),
            uncounted=sum(not one.counted_ms for one in found),
        )

    def _info(self, bucket: BucketRecord) -> BucketInfo:
        used = self._services.quotas.used(bucket.id)
        return BucketInfo(
            name=bucket.name,
            quota=_told(bucket.quota),
            objects=used.objects,
            versions=used.versions,
            size_bytes=used.size_bytes,
            parts=used.parts,
            counted_ms=used.counted_ms if used.known else 0,
        )

    async def quota(self, name: str) -> BucketQuota:
        """Raises BucketGone, Unavailable."""
        return _told((await named_bucket(self._services, name)).quota)

    async def put_quota(self, name: str, body: bytes) -> None:
        """Raises InvalidArgument, BucketGone, BucketBusy, Unavailable, Conflict."""
        try:
            asked = msgspec.json.decode(body, type=BucketQuota)
        except msgspec.MsgspecError as error:
            raise S3Error("InvalidArgument", str(error)) from error
        await self._set(name, Quota(size_bytes=asked.size_bytes, objects=asked.objects))

    async def delete_quota(self, name: str) -> None:
        await self._set(name, Quota())

    async def owner(self, name: str) -> BucketOwner:
        """Raises BucketGone, Unavailable."""
        return BucketOwner(account=(await named_bucket(self._services, name)).account)

    async def put_owner(self, name: str, body: bytes) -> None:
        """Another account's from now on, whoever made it.  Raises InvalidArgument, BucketGone, BucketBusy, Unavailable,
        Conflict."""
        try:
            account = msgspec.json.decode(body, type=BucketOwner).account
        except msgspec.MsgspecError as error:
            raise S3Error("InvalidArgument", str(error)) from error
        fault = account_fault(account) if account else ""
        if fault:
            raise S3Error("InvalidArgument", fault)
        await change_named_bucket(self._services, name, lambda bucket: msgspec.structs.replace(bucket, account=account))

    async def etag(self, name: str) -> BucketEtag:
        """Raises BucketGone, Unavailable."""
        bucket = await named_bucket(self._services, name)
        return BucketEtag(etag="Opaque" if bucket.has_opaque_etags else "MD5")

    async def put_etag(self, name: str, body: bytes) -> None:
        """Of what is written from then on.  Raises InvalidArgument, ServiceUnavailable, BucketGone, BucketBusy,
        Unavailable, Conflict."""
        try:
            asked = msgspec.json.decode(body, type=BucketEtag).etag
        except msgspec.MsgspecError as error:
            raise S3Error("InvalidArgument", str(error)) from error

        def with_etags(bucket: BucketRecord) -> BucketRecord:
            if asked == "MD5":
                return msgspec.structs.replace(bucket, etags="")
            if not bucket.has_opaque_etags and not self._services.every_pod_takes_opaque_etags():
                raise S3Error("ServiceUnavailable", _OLDER_POD)
            return msgspec.structs.replace(bucket, etags=OPAQUE)

        await change_named_bucket(self._services, name, with_etags)

    async def _set(self, name: str, quota: Quota) -> None:
        wanted = None if quota == Quota() else quota
        changed = await change_named_bucket(
            self._services, name, lambda bucket: msgspec.structs.replace(bucket, quota=wanted)
        )
        self._services.quotas.seen(changed)
        if wanted is not None:
            self._services.quotas.want_count(changed.id)


def _told(quota: Quota | None) -> BucketQuota:
    return BucketQuota() if quota is None else BucketQuota(size_bytes=quota.size_bytes, objects=quota.objects)
