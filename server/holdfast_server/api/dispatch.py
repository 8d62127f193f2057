"""From a request to its handler and back: authenticate, authorize, find the handler, name the failure.

The one place where exceptions of handlers end.  No I/O of its own but one look-up of an access key that this
pod does not know yet.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import msgspec

from holdfast_server.api import (
    attributes,
    bucket_policy,
    buckets,
    cors,
    encryption,
    grants,
    lifecycle,
    listing,
    lock_configuration,
    multipart,
    object_lock,
    objects_copy,
    objects_delete,
    objects_get,
    objects_put,
    off_answers,
    post_object,
    tagging,
    versioning,
)
from holdfast_server.api.access import bucket_facts, check_expected_owner
from holdfast_server.api.admission import Ticket
from holdfast_server.api.audit_trail import ADMIN, Trail
from holdfast_server.api.authentication import note_failure
from holdfast_server.api.bucket_record import BucketRecord
from holdfast_server.api.buckets_cache import BucketBusy, BucketGone
from holdfast_server.api.call import Call
from holdfast_server.api.control import CONTROL_HANDLERS
from holdfast_server.api.failures import RETRY_AFTER_SECONDS, to_s3_error
from holdfast_server.api.services import IncomingBody, Services
from holdfast_server.api.version_ids import absence, asked_version
from holdfast_server.auth.verified import Authenticator, Identity, VerifiedRequest
from holdfast_server.objects.port import Conflict, ObjectError
from holdfast_server.s3.control import control_error_xml, is_control
from holdfast_server.s3.errors import S3Error, error_xml
from holdfast_server.s3.operations import OPERATIONS
from holdfast_server.s3.request import Request, Response, parse_query, virtual_host_bucket

log = logging.getLogger(__name__)

T = TypeVar("T")
Handler = Callable[[Call], Awaitable[Response]]
Identify = Callable[[], Awaitable[Identity]]
Mount = Callable[[Identify, Request, IncomingBody], Awaitable[Response]]
"""What serves a path prefix of its own (the admin API): asks who it is, decides and answers by itself, failures
too, in its own format."""

IdentifyCall = Callable[[str, str], Awaitable[Identity]]
"""(service, SHA-256 of the body in hex) → who it is."""
CallApi = Callable[[IdentifyCall, Request, IncomingBody, Ticket, str], Awaitable[tuple[str, Response]]]
"""What serves forms posted to `/` (IAM and STS): like a mount, but gives its operation's name with the answer."""

HANDLERS: Mapping[str, Handler] = {
    "ListBuckets": buckets.list_buckets,
    "CreateBucket": buckets.create_bucket,
    "HeadBucket": buckets.head_bucket,
    "DeleteBucket": buckets.delete_bucket,
    "GetBucketLocation": buckets.get_bucket_location,
    "ListObjects": listing.list_objects_v1,
    "ListObjectsV2": listing.list_objects_v2,
    "ListMultipartUploads": multipart.list_multipart_uploads,
    "DeleteObjects": objects_delete.delete_objects,
    "PutObject": objects_put.put_object,
    "GetObject": objects_get.get_object,
    "HeadObject": objects_get.head_object,
    "DeleteObject": objects_delete.delete_object,
    "CopyObject": objects_copy.copy_object,
    "CreateMultipartUpload": multipart.create_multipart_upload,
    "UploadPart": multipart.upload_part,
    "UploadPartCopy": objects_copy.upload_part_copy,
    "CompleteMultipartUpload": multipart.complete_multipart_upload,
    "AbortMultipartUpload": multipart.abort_multipart_upload,
    "ListParts": multipart.list_parts,
    "GetBucketCors": cors.get_bucket_cors,
    "PutBucketCors": cors.put_bucket_cors,
    "DeleteBucketCors": cors.delete_bucket_cors,
    "GetBucketLifecycleConfiguration": lifecycle.get_bucket_lifecycle,
    "PutBucketLifecycleConfiguration": lifecycle.put_bucket_lifecycle,
    "DeleteBucketLifecycle": lifecycle.delete_bucket_lifecycle,
    "GetBucketTagging": tagging.get_bucket_tagging,
    "PutBucketTagging": tagging.put_bucket_tagging,
    "DeleteBucketTagging": tagging.delete_bucket_tagging,
    "GetObjectAttributes": attributes.get_object_attributes,
    "PostObject": post_object.post_object,
    "GetObjectTagging": tagging.get_object_tagging,
    "PutObjectTagging": tagging.put_object_tagging,
    "DeleteObjectTagging": tagging.delete_object_tagging,
    "GetBucketPolicy": bucket_policy.get_bucket_policy,
    "PutBucketPolicy": bucket_policy.put_bucket_policy,
    "DeleteBucketPolicy": bucket_policy.delete_bucket_policy,
    "GetBucketPolicyStatus": bucket_policy.get_bucket_policy_status,
    "GetPublicAccessBlock": bucket_policy.get_public_access_block,
    "PutPublicAccessBlock": bucket_policy.put_public_access_block,
    "DeletePublicAccessBlock": bucket_policy.delete_public_access_block,
    "GetBucketVersioning": versioning.get_bucket_versioning,
    "PutBucketVersioning": versioning.put_bucket_versioning,
    "ListObjectVersions": versioning.list_object_versions,
    "GetBucketAcl": grants.get_bucket_acl,
    "PutBucketAcl": grants.put_bucket_acl,
    "GetObjectAcl": grants.get_object_acl,
    "PutObjectAcl": grants.put_object_acl,
    "GetBucketEncryption": encryption.get_bucket_encryption,
    "PutBucketEncryption": encryption.put_bucket_encryption,
    "DeleteBucketEncryption": encryption.delete_bucket_encryption,
    "GetObjectLockConfiguration": lock_configuration.get_object_lock_configuration,
    "PutObjectLockConfiguration": lock_configuration.put_object_lock_configuration,
    "GetObjectRetention": object_lock.get_object_retention,
    "PutObjectRetention": object_lock.put_object_retention,
    "GetObjectLegalHold": object_lock.get_object_legal_hold,
    "PutObjectLegalHold": object_lock.put_object_legal_hold,
    "GetBucketOwnershipControls": grants.get_ownership_controls,
    "PutBucketOwnershipControls": grants.put_ownership_controls,
    "DeleteBucketOwnershipControls": grants.delete_ownership_controls,
    **dict.fromkeys(off_answers.OPERATIONS, off_answers.answer_off),
}
"""Operation → handler; a test holds it against the table of operations."""

_AUTHORIZED_PER_ITEM = frozenset(
    {"DeleteObjects", "ListBuckets", "PostObject", "PutObjectRetention", "PutObjectLegalHold", "PutObjectTagging"}
)
"""Their handlers ask for every key, show each caller what it may see, or learn from the body who asks or for what."""

_READS = frozenset({"GetObject", "HeadObject", "GetObjectTagging", "GetObjectAttributes", "GetObjectAcl"})
_CHANGES_OF_BUCKETS = (
    "PutBucket", "DeleteBucket", "PutPublicAccessBlock", "DeletePublicAccessBlock", "PutObjectLockConfiguration",
)  # fmt: skip

UNKNOWN_OPERATION = "unknown"
FORM_TYPE = "application/x-www-form-urlencoded"
PREFLIGHT = "Preflight"
"""What a browser asks of a bucket before it sends an operation; none itself."""


class Dispatcher:
    def __init__(
        self, services: Services, mounts: Mapping[str, Mount] | None = None, calls: CallApi | None = None
    ) -> None:
        self._services = services
        self._calls = calls
        self._authenticator = Authenticator(
            services.identities.credentials,
            lambda: services.domains,
            limits=services.failures,
            monotonic=services.clock.monotonic_seconds,
        )
        self._mounts = dict(mounts or {})
        self._mounted = tuple(prefix + "/" for prefix in self._mounts)

    def is_mounted(self, raw_path: str) -> bool:
        """Whether a mount serves it, and no handler of S3."""
        return raw_path.startswith(self._mounted)

    async def answer(
        self, request: Request, body: IncomingBody, request_id: str, ticket: Ticket, trail: Trail | None = None
    ) -> tuple[str, Response]:
        """The operation's name (bounded: for metrics) and the response.  Raises nothing but CancelledError.
        What an audit line needs to know goes into the trail.

        The caller lets the ticket leave, once the response is sent.
        """
        told: dict[str, str] = {}
        if "origin" in request.headers and request.method != "OPTIONS" and not self.is_mounted(request.raw_path):
            # Before the answer: between a body that has begun and the front end nothing may be waited for.
            told = await cors.headers_for(self._services, request)
        operation, response = await self._answer(request, body, request_id, ticket, trail)
        response.headers.update(told)
        return operation, response

    async def _answer(
        self, request: Request, body: IncomingBody, request_id: str, ticket: Ticket, trail: Trail | None
    ) -> tuple[str, Response]:
        operation = UNKNOWN_OPERATION
        try:
            if request.method == "OPTIONS":
                operation = PREFLIGHT
                return operation, await cors.answer_preflight(self._services, request)
            for prefix, mount in self._mounts.items():
                if request.raw_path.startswith(prefix + "/"):
                    operation = ADMIN
                    return operation, await mount(lambda: self._identify(request, trail), request, body)
            if self._calls is not None and self._is_call(request):
                operation, response = await self._calls(
                    lambda service, body_hash: self._identify_call(request, service, body_hash, trail),
                    request,
                    body,
                    ticket,
                    request_id,
                )
                return operation, response
            verified = await self._authenticate(request)
            ticket.principal = verified.principal
            if trail is not None:
                trail.authenticated(verified)
            operation = verified.operation.name
            return operation, await self._serve(Call(verified, body, self._services, ticket, request_id, trail))
        except Exception as error:
            return operation, self._failed(error, request, request_id, trail)

    async def _serve(self, call: Call) -> Response:
        name = call.verified.operation.name
        call = await self._authorized(call)
        handler = HANDLERS.get(name) or CONTROL_HANDLERS.get(name)
        if handler is None:
            raise S3Error("NotImplemented", f"{name} is not implemented.")
        try:
            return await handler(call)
        except BucketBusy:
            await self._recover(call)
            raise
        except Conflict as error:
            raise conflict_error(name, call.headers) from error
        except S3Error as error:
            if self._is_hidden(error, call):
                raise S3Error("AccessDenied") from error
            raise

    async def _authorized(self, call: Call) -> Call:
        """The call with what its bucket is.  Raises AccessDenied, BucketGone, NoSuchKey, Unavailable."""
        name = call.verified.operation.name
        bucket: BucketRecord | None = None
        if call.bucket_name and name != "CreateBucket":
            bucket = await call.bucket()
            facts = bucket_facts(bucket, self._services.policies)
            call = msgspec.structs.replace(call, facts=facts, bucket_id=bucket.id)
            check_expected_owner(call.headers.get("x-amz-expected-bucket-owner"), bucket)
        if name in _AUTHORIZED_PER_ITEM:
            if name == "DeleteObjects" and call.verified.principal.is_anonymous and not _is_shared(call):
                raise S3Error("AccessDenied")  # before its document is taken
            return call
        try:
            await call.require_operation(bucket)
        except S3Error as error:
            await self._tell_absence(call, bucket, error)
            if name == "HeadBucket" and bucket is not None:
                # As on AWS: clients that look for a bucket's region ask without a signature, or before they may read.
                error.with_headers(buckets.region_headers(bucket))
            raise
        return call

    async def _tell_absence(self, call: Call, bucket: BucketRecord | None, error: S3Error) -> None:
        """Who may not read an object, but may list it, is told where it is not there.  Raises S3Error."""
        if error.code != "AccessDenied" or bucket is None or call.verified.operation.name not in _READS:
            return
        version = asked_version(call.query)
        if call.may_know_absence(call.key) and await call.objects.head_object(bucket.id, call.key, version) is None:
            raise absence(bucket, call.key, version) from error

    async def _recover(self, call: Call) -> None:
        try:
            await buckets.recover_stale_mark(self._services, call.bucket_name)
        except (ObjectError, BucketGone) as error:
            log.warning("bucket %s: %s", call.bucket_name, error)

    def _is_hidden(self, error: S3Error, call: Call) -> bool:
        """Who may not list a bucket is not told which keys it lacks."""
        if error.code != "NoSuchKey" or isinstance(error, objects_copy.NoSuchSource):
            return False
        return call.facts is not None and not call.may_know_absence(call.key)

    # --- who asks

    async def _authenticate(self, request: Request) -> VerifiedRequest:
        now_ms = self._services.clock.now_ms()
        return await self._proven(lambda: self._authenticator.authenticate(request, now_ms), request)

    async def _identify(self, request: Request, trail: Trail | None) -> Identity:
        now_ms = self._services.clock.now_ms()
        query = parse_query(request.raw_query)
        identity = await self._proven(lambda: self._authenticator.identify(request, query, now_ms), request)
        if trail is not None:
            trail.principal = identity.principal
        return identity

    def _is_call(self, request: Request) -> bool:
        """A form for the service as a whole; no operation of S3 is one."""
        if request.method != "POST" or request.raw_path not in ("/", "") or request.raw_query:
            return False
        form = request.headers.get("content-type", "").lower().startswith(FORM_TYPE)
        return form and not virtual_host_bucket(request, self._services.domains)

    async def _identify_call(self, request: Request, service: str, body_hash: str, trail: Trail | None) -> Identity:
        now_ms = self._services.clock.now_ms()
        identity = await self._proven(
            lambda: self._authenticator.identify_call(request, service, body_hash, now_ms), request
        )
        if trail is not None:
            trail.principal = identity.principal
        return identity

    async def _proven(self, check: Callable[[], T], request: Request) -> T:
        """What the check finds, asked again where an unknown key could be learnt meanwhile.  Failures are counted."""
        try:
            return check()
        except S3Error as error:
            first = error
        try:
            if not await self._services.identities.learn(first):
                raise first
            return check()
        except S3Error as error:
            note_failure(self._services, error, request)
            raise

    # --- failures

    def _failed(self, error: Exception, request: Request, request_id: str, trail: Trail | None) -> Response:
        told = to_s3_error(error)
        if trail is not None:
            trail.error = told.code
        response = error_response(told, request.raw_path, request_id, self._services.pod_name, request.method)
        if is_control(request) and response.body:
            response.body = control_error_xml(told, request_id, self._services.pod_name)
        return response


def _is_shared(call: Call) -> bool:
    return call.facts is not None and call.facts.shared


def conflict_error(operation: str, headers: Mapping[str, str]) -> S3Error:
    """Another conditional write is under way.  Only where the client set a condition, or asks for a bucket's
    state to change, is that news to it; else (two completions of one upload) trying again settles it."""
    if "if-match" in headers or "if-none-match" in headers:
        return S3Error("ConditionalRequestConflict")
    if operation in ("CreateBucket", "DeleteBucket") or operation.startswith(_CHANGES_OF_BUCKETS):
        return S3Error("OperationAborted")
    return S3Error("SlowDown")


def error_response(error: S3Error, raw_path: str, request_id: str, host_id: str, method: str) -> Response:
    """An S3 error as it is sent."""
    headers = {"content-type": "application/xml", **error.headers}
    if error.status == 503:
        headers["retry-after"] = str(RETRY_AFTER_SECONDS)
    if error.status == 304 or method == "HEAD":
        return Response(status=error.status, headers=headers)
    return Response(status=error.status, headers=headers, body=error_xml(error, raw_path, request_id, host_id))


def missing_handlers() -> set[str]:
    """Operations the table calls implemented that nobody here answers; empty, a test says."""
    return {row.name for row in OPERATIONS if row.implemented} - set(HANDLERS)
