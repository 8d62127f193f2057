"""One verified request on its way through a handler, with what handlers ask for again and again."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from urllib.parse import quote

import msgspec

from holdfast_server.api.access import bucket_facts, object_facts
from holdfast_server.api.admission import PARSED_FACTOR, Ticket
from holdfast_server.api.audit_trail import Trail
from holdfast_server.api.bucket_record import BucketRecord
from holdfast_server.api.buckets_cache import BucketGone, WriteLease
from holdfast_server.api.services import IncomingBody, Services
from holdfast_server.api.version_ids import asked_version
from holdfast_server.auth.access import BucketFacts, authorize, is_allowed, looks_at_object
from holdfast_server.auth.conditions import Values
from holdfast_server.auth.principal import account_name, canonical_id
from holdfast_server.auth.verified import VerifiedRequest
from holdfast_server.objects.port import Objects, Record
from holdfast_server.s3.checksums import HEADER_PREFIX
from holdfast_server.s3.documents_out import XML_CONTENT_TYPE, Owner
from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.payload import verify_small_body
from holdfast_server.s3.request import Response, virtual_host_bucket
from holdfast_server.s3.sigv4 import SigningContext

_CHUNK_FRAMING_FACTOR = 2
"""An aws-chunked document may be framed into small chunks; its wire size is bounded by so many times its own."""
_SMALL_BODY_SLACK_BYTES = 4096
_SCANNED_ENTRY_BYTES = 1536
"""Of a row as one drive's page has it: names, record, objects around them."""
_ANSWERED_ENTRY_BYTES = 2048
"""Of an entry on its way into XML, and in it."""


class Call(msgspec.Struct, frozen=True):
    verified: VerifiedRequest
    body: IncomingBody
    services: Services
    ticket: Ticket
    request_id: str = ""
    trail: Trail | None = None
    """Of the audit log, where that is switched on."""
    facts: BucketFacts | None = None
    """Of the bucket in the request's address; None where there is none, or none yet."""
    bucket_id: bytes = b""
    """Of that bucket.  What the request may is decided by its facts, so nothing is done to another of its name, which
    somebody else may have made while the client took its time over the body."""

    @property
    def headers(self) -> Mapping[str, str]:
        return self.verified.headers

    @property
    def query(self) -> Mapping[str, str]:
        return self.verified.query

    @property
    def context(self) -> SigningContext:
        return self.verified.context

    @property
    def bucket_name(self) -> str:
        return self.verified.target.bucket

    @property
    def key(self) -> str:
        return self.verified.target.key

    @property
    def objects(self) -> Objects:
        return self.services.objects

    async def bucket(self) -> BucketRecord:
        """The bucket to read from.  Raises BucketGone, Unavailable."""
        return self.same(await self.services.buckets.get(self.bucket_name))

    def same(self, bucket: BucketRecord) -> BucketRecord:
        """The bucket, if it is the one that the facts are of.  Raises BucketGone."""
        if self.bucket_id and bucket.id != self.bucket_id:
            raise BucketGone(bucket.name)
        return bucket

    def writing(self) -> AbstractAsyncContextManager[WriteLease]:
        """The bucket to write to, for the time of the write.  Raises BucketGone, BucketBusy, Unavailable."""
        return self.services.buckets.writing(self.bucket_name, self.bucket_id)

    def may(self, action: str, bucket: str, key: str = "", extra: Values | None = None) -> bool:
        """In the request's own bucket."""
        assert bucket == self.bucket_name
        return is_allowed(self.verified, action, bucket, key, self.facts, extra=extra)

    def require(self, action: str, bucket: str, key: str = "", extra: Values | None = None) -> None:
        """A second permission in the request's own bucket, beside that of the operation.  Raises AccessDenied."""
        assert bucket == self.bucket_name
        authorize(self.verified, bucket, key, self.facts, action=action, extra=extra)

    async def require_operation(self, bucket: BucketRecord | None) -> None:
        """The operation's own permission; `bucket`: that of the address.  Raises AccessDenied, Unavailable."""
        action = self.verified.operation.action_for(self.query)
        asker = self.verified.principal
        if bucket is None or self.facts is None or not looks_at_object(asker, action, self.facts):
            self.require(action, self.bucket_name, self.key)
        else:
            record = await self.objects.head_object(bucket.id, self.key, asked_version(self.query))
            self.require_of(bucket, record, action, self.key)

    def may_in(self, bucket: BucketRecord, action: str, extra: Values | None = None) -> bool:
        """In another bucket."""
        facts = bucket_facts(bucket, self.services.policies)
        return is_allowed(self.verified, action, bucket.name, "", facts, extra=extra)

    async def require_reading(
        self, bucket: BucketRecord, key: str, version: bytes | None = None, extra: Values | None = None
    ) -> None:
        """For who asks by a condition whether an object's ETag is such.  Raises AccessDenied, Unavailable."""
        action = "s3:GetObject" if version is None else "s3:GetObjectVersion"
        assert self.facts is not None
        record = None
        if looks_at_object(self.verified.principal, action, self.facts):
            record = await self.objects.head_object(bucket.id, key, version)
        self.require_of(bucket, record, action, key, extra)

    def require_of(
        self, bucket: BucketRecord, record: Record | None, action: str, key: str, extra: Values | None = None
    ) -> None:
        """A permission on an object of any bucket, which was looked up.  Raises AccessDenied."""
        if not self.may_of(bucket, record, action, key, extra):
            raise S3Error("AccessDenied")

    def may_of(
        self, bucket: BucketRecord, record: Record | None, action: str, key: str, extra: Values | None = None
    ) -> bool:
        """Likewise."""
        facts = bucket_facts(bucket, self.services.policies)
        thing = None
        if record is not None and looks_at_object(self.verified.principal, action, facts):
            thing = object_facts(bucket, record)
        return is_allowed(self.verified, action, bucket.name, key, facts, thing, extra)

    def may_know_absence(self, key: str) -> bool:
        """Whether the asker may be told that a key is not there: who may list it."""
        return self.may("s3:ListBucket", self.bucket_name, extra={"s3:prefix": (key,)})

    async def small_body(self, max_size_bytes: int, *, checksum_is_the_objects: bool = False) -> bytes:
        """A request document, decoded and verified.  Raises MaxMessageLengthExceeded and what payloads raise.

        `checksum_is_the_objects`: the head's `x-amz-checksum-*` are about something else than this document.
        """
        bound = max_size_bytes * _CHUNK_FRAMING_FACTOR + _SMALL_BODY_SLACK_BYTES
        if self.body.size_bytes is not None and self.body.size_bytes > bound:
            raise _too_long(max_size_bytes)
        await self.ticket.document(PARSED_FACTOR * (bound if self.body.size_bytes is None else self.body.size_bytes))
        taken = bytearray()
        async for piece in self.body.pieces():
            taken += piece
            if len(taken) > bound:
                raise _too_long(max_size_bytes)
        headers = self.headers
        if checksum_is_the_objects:
            headers = {name: value for name, value in headers.items() if not name.startswith(HEADER_PREFIX)}
        return verify_small_body(headers, self.context, bytes(taken), max_size_bytes)

    async def page(self, entries: int, document_size_bytes: int = 0) -> None:
        """Room for so many listed entries, beside a request document that is held.  Raises Overloaded."""
        listed_bytes = entries * (self.services.drives_listed() * _SCANNED_ENTRY_BYTES + _ANSWERED_ENTRY_BYTES)
        await self.ticket.document(listed_bytes + PARSED_FACTOR * document_size_bytes)

    @property
    def location(self) -> str:
        """Of the object that the request is about, at the host that it was sent to."""
        request = self.verified.request
        within = virtual_host_bucket(request, self.services.domains)
        path = quote(self.key if within else f"{self.bucket_name}/{self.key}")
        return f"{'https' if request.secure else 'http'}://{request.headers.get('host', '')}/{path}"

    def xml(self, document: bytes, **headers: str) -> Response:
        return Response(status=200, headers={"content-type": XML_CONTENT_TYPE, **headers}, body=document)


def owner_element(account: str) -> Owner:
    """An account as clients see it."""
    return Owner(id=canonical_id(account), display_name=account_name(account))


def _too_long(max_size_bytes: int) -> S3Error:
    return S3Error("MaxMessageLengthExceeded", MaxMessageLengthBytes=max_size_bytes)
