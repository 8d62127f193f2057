"""PostObject: a browser's form becomes an object.

The form's fields come first and say everything: who signed it (`post_form`), under which key and with which headers
the file is stored, and where the browser goes afterwards.  The file then streams like any other body.  A form without
a policy is anonymous.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from urllib.parse import SplitResult, urlencode, urlsplit

import msgspec

from holdfast_server.api.authentication import admit, note_failure
from holdfast_server.api.buckets_cache import WriteLease
from holdfast_server.api.call import Call
from holdfast_server.api.encryption import seal_of_new_object
from holdfast_server.api.etags import BodyEtag
from holdfast_server.api.identities import Identities
from holdfast_server.api.lifecycle import expiry_of
from holdfast_server.api.new_object import new_object_headers
from holdfast_server.api.redundancy import redundancy_of
from holdfast_server.api.stored_headers import TYPE, checksum_headers
from holdfast_server.api.version_ids import version_headers
from holdfast_server.auth.principal import ANONYMOUS, Credentials, Principal
from holdfast_server.auth.verified import FORM
from holdfast_server.objects.port import Attributes, Digest, Filler, Record
from holdfast_server.s3 import checksums
from holdfast_server.s3.checksums import FULL_OBJECT, ChecksumRequest
from holdfast_server.s3.documents_out import document
from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.headers import quote_etag
from holdfast_server.s3.names import MAX_PUT_SIZE_BYTES
from holdfast_server.s3.post_form import (
    FormClaim,
    FormPolicy,
    FormReader,
    check_form,
    check_form_signature,
    parse_form_claim,
    parse_form_policy,
    with_file_name,
)
from holdfast_server.s3.request import Response, Target, check_key
from holdfast_server.s3.sigv2 import SIGNATURE_VERSION
from holdfast_server.s3.sigv4 import ALGORITHM, SigningContext
from holdfast_server.s3.tags import MAX_OBJECT_TAGS, encode_tags, parse_tagging
from holdfast_server.s3.xml_text import escape
from holdfast_server.sealing.envelope import Seal

_HEADERS = (
    "cache-control", "content-disposition", "content-encoding", "content-language", "content-type", "expires",
)  # fmt: skip
_NO_HEADERS = frozenset(
    {"x-amz-signature", "x-amz-credential", "x-amz-algorithm", "x-amz-date", "x-amz-security-token"}
)


class _Upload:
    """The wire's body: fields in front, then the file."""

    def __init__(self, call: Call) -> None:
        self.reader = FormReader(call.headers.get("content-type", ""))
        self._pieces = call.body.pieces()
        self._first = b""

    async def read_fields(self) -> None:
        """Raises MalformedPOSTRequest, InvalidArgument, and what reading raises."""
        async for piece in self._pieces:
            self._first = self.reader.feed(piece)
            if self.reader.in_file:
                return
        raise S3Error("InvalidArgument", "POST requires exactly one file upload per request.", ArgumentName="file")

    async def file(self) -> AsyncIterator[bytes]:
        """Raises IncompleteBody where it has no end."""
        if self._first:
            yield self._first
        async for piece in self._pieces:
            taken = self.reader.feed(piece)
            if taken:
                yield taken
        if not self.reader.ended:
            raise S3Error("IncompleteBody")


class FormBody:
    """The file of a form, as the object layer takes it."""

    def __init__(
        self,
        upload: _Upload,
        lease: WriteLease,
        headers: Mapping[str, str],
        checksum: ChecksumRequest | None,
        content_md5: bytes | None,
        size_range: tuple[int, int],
        seal: Seal | None,
    ) -> None:
        self._seal = seal
        self._upload = upload
        self._lease = lease
        self._headers = dict(headers)
        self._checksum = checksum
        self._least, self._most = size_range
        self._etag = BodyEtag(lease.bucket)
        self._extra = checksum.algorithm.new() if checksum is not None else None
        self._content_md5 = content_md5
        self._md5 = checksums.ALGORITHMS["MD5"].new() if content_md5 is not None else None
        self._received = 0
        self.size_bytes: int | None = None
        self.filler: Filler | None = None
        added = [digest for digest in (self._extra, self._md5) if digest is not None]
        self.digests: Sequence[Digest] = (self._etag, *added)

    async def chunks(self) -> AsyncIterator[bytes | memoryview]:
        async for piece in self._upload.file():
            self._received += len(piece)
            if self._received > self._most:
                raise S3Error("EntityTooLarge", ProposedSize=self._received, MaxSizeAllowed=self._most)
            yield piece
        await self._lease.renew()

    def finish(self) -> Attributes:
        if self._received < self._least:
            raise S3Error("EntityTooSmall", ProposedSize=self._received, MinSizeAllowed=self._least)
        found: dict[str, str] = {}
        if self._checksum is not None and self._extra is not None and self._checksum.expected is not None:
            digest = self._extra.digest()
            checksums.check_digest(self._checksum.algorithm, self._checksum.expected, digest)
            found = {self._checksum.algorithm.name: checksums.encode_checksum(digest), TYPE: FULL_OBJECT}
        if self._md5 is not None and self._content_md5 is not None:
            checksums.check_content_md5(self._content_md5, self._md5.digest())
        self._lease.confirm()
        etag, kept = self._etag.finish(self._seal), self._lease.kept(self._headers)
        return Attributes(etag=etag, headers=kept, checksums=found, versioning=self._lease.keeps)


async def post_object(call: Call) -> Response:
    """Raises S3Error; nothing is stored then."""
    upload = _Upload(call)
    await upload.read_fields()
    fields = with_file_name(upload.reader.fields, upload.reader.file_name)
    key = _key(fields)
    principal, context, policy = await _signed(call, fields)
    headers = _headers(fields)
    verified = msgspec.structs.replace(
        call.verified,
        principal=principal,
        context=context,
        headers=headers,
        target=Target(call.bucket_name, key),
        auth_type=FORM,
    )
    call = msgspec.structs.replace(call, verified=verified)
    call.require("s3:PutObject", call.bucket_name, key)
    size_range = policy.size_range if policy is not None and policy.size_range is not None else (0, MAX_PUT_SIZE_BYTES)
    async with call.writing() as lease:
        kept = new_object_headers(call, lease.bucket)
        checksum, content_md5 = checksums.requested_checksum(headers), checksums.parse_content_md5(fields)
        seal, sealed = await seal_of_new_object(call, lease.bucket)
        redundancy = await redundancy_of(call, lease.bucket, kept)
        sizes = (size_range[0], min(size_range[1], MAX_PUT_SIZE_BYTES))
        body = FormBody(upload, lease, kept, checksum, content_md5, sizes, seal)
        await call.ticket.stream(MAX_PUT_SIZE_BYTES if call.body.size_bytes is None else call.body.size_bytes)
        record = await call.objects.put_object(lease.bucket.id, key, body, None, seal, redundancy)
    return _answer(call, fields, record, {**expiry_of(lease.bucket, key, record), **sealed})


async def _signed(call: Call, fields: Mapping[str, str]) -> tuple[Principal, SigningContext, FormPolicy | None]:
    """Who sent the form, how it is signed, and what it may hold.  Raises InvalidAccessKeyId, SignatureDoesNotMatch,
    InvalidPolicyDocument, AccessDenied."""
    claim = parse_form_claim(fields)
    if call.trail is not None:
        call.trail.form(fields["key"], claim.access_key if claim is not None else "")
    if claim is None:
        return ANONYMOUS, call.context, None
    request = call.verified.request
    admit(call.services, request, claim.access_key)
    try:
        known = await _known(call.services.identities, claim)
        _prove(claim, fields["policy"], known)
    except S3Error as error:
        note_failure(call.services, error, request)
        raise
    call.services.failures.succeeded(request.remote, claim.access_key)
    call.ticket.principal = known.principal
    if call.trail is not None:
        call.trail.principal = known.principal
    if 0 < known.expires_ms <= call.services.clock.now_ms():
        raise S3Error("ExpiredToken")
    policy = parse_form_policy(fields["policy"])
    check_form(policy, fields, call.bucket_name, call.verified.request.received_ms)
    version = ALGORITHM if claim.date else SIGNATURE_VERSION
    context = msgspec.structs.replace(call.context, timestamp=claim.timestamp, version=version)
    return known.principal, context, policy


async def _known(identities: Identities, claim: FormClaim) -> Credentials:
    try:
        return identities.known(claim.access_key, claim.session_token)
    except S3Error as error:
        if not await identities.learn(error):
            raise
        return identities.known(claim.access_key, claim.session_token)


def _prove(claim: FormClaim, policy: str, known: Credentials) -> None:
    """With the secret key, or one of those before it."""
    if claim.session_token != known.session_token:
        raise S3Error("InvalidToken", AWSAccessKeyId=claim.access_key)
    for secret_key in known.former_secret_keys:
        try:
            return check_form_signature(claim, policy, secret_key)
        except S3Error:
            continue
    return check_form_signature(claim, policy, known.secret_key)


def _key(fields: Mapping[str, str]) -> str:
    key = fields.get("key", "")
    if not key:
        raise S3Error(
            "InvalidArgument",
            "Bucket POST must contain a field named 'key'.  If it is specified, please check the order of the fields.",
            ArgumentName="key",
            ArgumentValue="",
        )
    try:
        whole = "\0" not in key and key.encode()
    except UnicodeEncodeError:  # a file name may come in an encoding of the client's choice
        whole = b""
    if not whole:
        raise S3Error("InvalidArgument", "A key is UTF-8 without NUL.", ArgumentName="key")
    return check_key(key)


def _headers(fields: Mapping[str, str]) -> dict[str, str]:
    """The headers that a PUT of the same object would have."""
    headers = {name: fields[name] for name in _HEADERS if fields.get(name)}
    headers.update((name, value) for name, value in fields.items() if name.startswith("x-amz-"))
    for name in _NO_HEADERS:
        headers.pop(name, None)
    if fields.get("acl"):
        headers["x-amz-acl"] = fields["acl"]
    if fields.get("tagging"):
        headers["x-amz-tagging"] = encode_tags(parse_tagging(fields["tagging"].encode(), MAX_OBJECT_TAGS))
    return headers


def _answer(call: Call, fields: Mapping[str, str], record: Record, told: Mapping[str, str]) -> Response:
    """Where the browser goes, or what it is told.  `told`: headers about what becomes of the object."""
    etag = quote_etag(record.etag)
    location = call.location
    headers = {"etag": etag, "location": location, **checksum_headers(record.checksums), **version_headers(record)}
    headers.update(told)
    redirect = _redirect(fields.get("success_action_redirect") or fields.get("redirect", ""))
    if redirect is not None:
        query = urlencode({"bucket": call.bucket_name, "key": call.key, "etag": etag})
        joined = redirect._replace(query=f"{redirect.query}&{query}" if redirect.query else query)
        return Response(status=303, headers={**headers, "location": joined.geturl()})
    status = fields.get("success_action_status", "")
    if status == "201":
        rows = f"<Location>{escape(location)}</Location><Bucket>{escape(call.bucket_name)}</Bucket>"
        rows += f"<Key>{escape(call.key)}</Key><ETag>{escape(etag)}</ETag>"
        xml = document("PostResponse", rows).replace(b' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"', b"", 1)
        return Response(status=201, headers={**headers, "content-type": "application/xml"}, body=xml)
    return Response(status=200 if status == "200" else 204, headers=headers)


def _redirect(text: str) -> SplitResult | None:
    """Where the browser goes; what cannot be understood counts as if it were not there, as S3 has it: the object is
    stored by now."""
    try:
        redirect = urlsplit(text) if text.isascii() and text.isprintable() else None
    except ValueError:
        return None
    return redirect if redirect is not None and redirect.scheme in ("http", "https") else None
