"""A bucket's cross-origin rules: keeping them, answering preflights, telling browsers with every answer.

A preflight carries no signature and asks nothing of the bucket but its rules.  An actual request is told what its
rule says whether it succeeds or fails: without that a browser shows a page nothing of an error.

Not here: refusals before the address is looked at (overload, a malformed head) are sent without these headers.
"""

from __future__ import annotations

import msgspec

from holdfast_server.api.bucket_record import BucketDocumentError
from holdfast_server.api.bucket_settings import change_bucket, current_bucket
from holdfast_server.api.buckets_cache import BucketGone
from holdfast_server.api.call import Call
from holdfast_server.api.services import Services
from holdfast_server.objects.port import ObjectError
from holdfast_server.s3 import cors
from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.request import Request, Response, parse_target


async def get_bucket_cors(call: Call) -> Response:
    bucket = await current_bucket(call)
    if not bucket.cors:
        raise S3Error("NoSuchCORSConfiguration", BucketName=bucket.name)
    return call.xml(cors.cors_xml(bucket.cors))


async def put_bucket_cors(call: Call) -> Response:
    rules = cors.parse_cors(await call.small_body(cors.MAX_CORS_SIZE_BYTES))
    await change_bucket(call, lambda bucket: msgspec.structs.replace(bucket, cors=rules))
    return Response(status=200)


async def delete_bucket_cors(call: Call) -> Response:
    await change_bucket(call, lambda bucket: msgspec.structs.replace(bucket, cors=[]))
    return Response(status=204)


async def answer_preflight(services: Services, request: Request) -> Response:
    """The answer to an OPTIONS request.  Raises S3Error, BucketGone, Unavailable."""
    target = parse_target(request, services.domains)
    asked = cors.parse_preflight(request.headers)
    if not target.bucket:
        raise S3Error("MethodNotAllowed", Method=request.method, ResourceType="SERVICE")
    bucket = await services.buckets.get(target.bucket)
    return Response(status=200, headers=cors.answer_preflight(bucket.cors, asked))


async def headers_for(services: Services, request: Request) -> dict[str, str]:
    """What the answer to a request with an Origin says beside all else."""
    try:
        target = parse_target(request, services.domains)
        if not target.bucket:
            return {}
        bucket = await services.buckets.get(target.bucket)
    except (S3Error, BucketGone, BucketDocumentError, ObjectError, TimeoutError):
        return {}  # the answer is about that already
    return cors.response_headers(bucket.cors, request.headers, request.method)
