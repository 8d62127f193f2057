"""Answers about features that are off: what S3 says of a bucket where they were never switched on.

Clients ask these before they work (s3cmd `?acl`, Terraform all of them); a 501 would stop them, and the true
answer is "not configured".  Changing any of them is not implemented.
"""

from __future__ import annotations

from holdfast_server.api.call import Call
from holdfast_server.s3 import documents_out
from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.request import Response

_NOT_CONFIGURED = {
    "GetBucketReplication": "ReplicationConfigurationNotFoundError",
    "GetBucketWebsite": "NoSuchWebsiteConfiguration",
}
_DOCUMENTS = {
    "GetBucketAccelerateConfiguration": documents_out.accelerate_xml,
    "GetBucketLogging": documents_out.logging_xml,
    "GetBucketNotificationConfiguration": documents_out.notification_xml,
    "GetBucketRequestPayment": documents_out.request_payment_xml,
}
OPERATIONS = frozenset(_NOT_CONFIGURED) | frozenset(_DOCUMENTS)


async def answer_off(call: Call) -> Response:
    """For every operation in OPERATIONS."""
    await call.bucket()
    name = call.verified.operation.name
    code = _NOT_CONFIGURED.get(name)
    if code is not None:
        raise S3Error(code, BucketName=call.bucket_name)
    return call.xml(_DOCUMENTS[name]())
