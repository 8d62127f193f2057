"""A bucket's policy and its public access block.

A policy is checked when it is put and kept as it came; a bad one is refused with the field at fault.
"""

from __future__ import annotations

import msgspec

from holdfast_server.api.access import bucket_facts
from holdfast_server.api.bucket_record import BucketRecord, PublicAccessBlock
from holdfast_server.api.bucket_settings import change_bucket, current_bucket
from holdfast_server.api.call import Call
from holdfast_server.auth.policy import MAX_POLICY_SIZE_BYTES, PolicyError, parse_policy
from holdfast_server.auth.publicness import are_public, is_public_policy
from holdfast_server.s3.documents_in import MAX_BUCKET_CONFIGURATION_SIZE_BYTES
from holdfast_server.s3.documents_out import document
from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.request import Response
from holdfast_server.s3.xml_tree import parse

_BLOCK_ELEMENTS = {
    "BlockPublicAcls": "block_public_acls",
    "IgnorePublicAcls": "ignore_public_acls",
    "BlockPublicPolicy": "block_public_policy",
    "RestrictPublicBuckets": "restrict_public_buckets",
}


async def get_bucket_policy(call: Call) -> Response:
    """The document as it was put."""
    bucket = await current_bucket(call)
    if not bucket.policy:
        raise S3Error("NoSuchBucketPolicy", BucketName=bucket.name)
    return Response(status=200, headers={"content-type": "application/json"}, body=bucket.policy.encode())


async def put_bucket_policy(call: Call) -> Response:
    """Raises MalformedPolicy, and AccessDenied for a public policy that the public access block forbids."""
    body = await call.small_body(MAX_POLICY_SIZE_BYTES)
    try:
        text = body.decode()
        public = is_public_policy(parse_policy(text, call.bucket_name))
    except UnicodeDecodeError as error:
        raise S3Error("MalformedPolicy", "Policies must be UTF-8.") from error
    except PolicyError as error:
        raise S3Error("MalformedPolicy", str(error)) from error

    def change(bucket: BucketRecord) -> BucketRecord:
        block = bucket.public_access_block
        if public and block is not None and block.block_public_policy:
            raise S3Error("AccessDenied", "The public access block of the bucket forbids public policies.")
        return msgspec.structs.replace(bucket, policy=text)

    await change_bucket(call, change)
    return Response(status=204)


async def delete_bucket_policy(call: Call) -> Response:
    await change_bucket(call, lambda bucket: msgspec.structs.replace(bucket, policy=""))
    return Response(status=204)


async def get_bucket_policy_status(call: Call) -> Response:
    """Whether policy or grants give something to everybody; a bucket without a policy is not public."""
    bucket = await current_bucket(call)
    facts = bucket_facts(bucket, call.services.policies)
    public = facts.policy_is_public and not facts.restricts_public_policy
    public = public or (are_public(facts.grants) and not facts.ignores_public_grants)
    return call.xml(document("PolicyStatus", f"<IsPublic>{'true' if public else 'false'}</IsPublic>"))


# --- the public access block


async def get_public_access_block(call: Call) -> Response:
    bucket = await current_bucket(call)
    block = bucket.public_access_block
    if block is None:
        raise S3Error("NoSuchPublicAccessBlockConfiguration", BucketName=bucket.name)
    rows = "".join(
        f"<{element}>{'true' if getattr(block, name) else 'false'}</{element}>"
        for element, name in _BLOCK_ELEMENTS.items()
    )
    return call.xml(document("PublicAccessBlockConfiguration", rows))


async def put_public_access_block(call: Call) -> Response:
    """What is not named is off.  Raises MalformedXML."""
    root = parse(await call.small_body(MAX_BUCKET_CONFIGURATION_SIZE_BYTES), MAX_BUCKET_CONFIGURATION_SIZE_BYTES)
    if root.name != "PublicAccessBlockConfiguration":
        raise S3Error("MalformedXML")
    switches: dict[str, bool] = {}
    for element, name in _BLOCK_ELEMENTS.items():
        text = (root.value(element) or "false").lower()
        if text not in ("true", "false"):
            raise S3Error("MalformedXML")
        switches[name] = text == "true"
    block = PublicAccessBlock(**switches)
    await change_bucket(call, lambda bucket: msgspec.structs.replace(bucket, public_access_block=block))
    return Response(status=200)


async def delete_public_access_block(call: Call) -> Response:
    await change_bucket(call, lambda bucket: msgspec.structs.replace(bucket, public_access_block=None))
    return Response(status=204)
