"""S3 Control, the API of AWS's that is beside S3's own: what a request of it is about.

Of it there are the tags of buckets, because Terraform's provider asks for them there first (since 6.23), and takes
nothing but a refusal to it, or 405, as leave to ask S3.  Everything else of it is 405.

Such a request is signed as one of S3's, names the account in a header that no operation of S3 has, and in front of the
Host; its failures are wrapped as those of other services.  Pure; what is answered is in `api.control`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from holdfast_server.s3.documents_out import document
from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.operations import Operation
from holdfast_server.s3.request import Request, Target, percent_decode
from holdfast_server.s3.tags import MAX_BUCKET_TAGS, MAX_TAGGING_SIZE_BYTES, Tags, parse_tags, tag_rows
from holdfast_server.s3.xml_text import DECLARATION, escape_for_people
from holdfast_server.s3.xml_tree import parse

ACCOUNT_HEADER = "x-amz-account-id"
_PREFIX = "/v20180820/"
_TAGS = _PREFIX + "tags/"
_BUCKET = re.compile(r"arn:aws:s3:::([^/:]+)")

_OPERATIONS = {
    row.method: row
    for row in (
        Operation("ListTagsForResource", "GET", "bucket", action="s3:ListTagsForResource", implemented=True),
        Operation("TagResource", "POST", "bucket", action="s3:TagResource", implemented=True),
        Operation("UntagResource", "DELETE", "bucket", action="s3:UntagResource", implemented=True),
    )
}


def is_control(request: Request) -> bool:
    return request.raw_path.startswith(_PREFIX) and ACCOUNT_HEADER in request.headers


def match_control(request: Request) -> tuple[Operation, Target]:
    """Of a request that `is_control`.  Raises MethodNotAllowed for what there is not."""
    operation = _OPERATIONS.get(request.method)
    arn = percent_decode(request.raw_path.removeprefix(_TAGS)) if request.raw_path.startswith(_TAGS) else ""
    bucket = _BUCKET.fullmatch(arn)
    if operation is None or bucket is None:
        raise S3Error("MethodNotAllowed", Method=request.method, ResourceType="S3 Control")
    return operation, Target(bucket[1], "")


def parse_tag_resource(body: bytes) -> Tags:
    """Raises MalformedXML, InvalidTag."""
    root = parse(body, MAX_TAGGING_SIZE_BYTES)
    tags = root.find("Tags")
    if root.name != "TagResourceRequest" or tags is None:
        raise S3Error("MalformedXML")
    return parse_tags(tags, MAX_BUCKET_TAGS)


def parse_tag_keys(raw_query: str) -> set[str]:
    """`tagKeys`, as often as it is there."""
    pairs = [part.partition("=") for part in raw_query.split("&")]
    return {percent_decode(value.replace("+", " ")) for name, _, value in pairs if name == "tagKeys"}


def tags_xml(tags: Mapping[str, str]) -> bytes:
    return document("ListTagsForResourceResult", f"<Tags>{tag_rows(tags)}</Tags>")


def control_error_xml(error: S3Error, request_id: str, host_id: str) -> bytes:
    return (
        f"{DECLARATION}<ErrorResponse><Error><Code>{error.code}</Code><Message>{escape_for_people(error.message)}"
        f"</Message></Error><RequestId>{escape_for_people(request_id)}</RequestId>"
        f"<HostId>{escape_for_people(host_id)}</HostId></ErrorResponse>"
    ).encode()
