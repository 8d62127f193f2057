"""What stands in a line of the audit log.  Pure.

Invariants: a line is built from named fields, never from a head as a whole, so that no signature, no token, no
SSE-C key and no presigned URL can get into it; of the query only parameters that name what is acted on are taken.
Every text is bounded, so that a line has at most `MAX_LINE_BYTES`.  JSON escapes line breaks: no client can forge a
line.  An access key is told even where nothing proved it; `account` is told only where the signature was right.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import unquote

import msgspec

MAX_KEY_SIZE = 1024
MAX_USER_AGENT_SIZE = 256
MAX_PARAMETER_SIZE = 1024
MAX_NAME_SIZE = 128
MAX_LINE_BYTES = 64 << 10
"""More than all fields at their bounds take, whatever JSON makes of their characters (six bytes for one)."""

TOLD_PARAMETERS = ("versionId", "uploadId", "partNumber", "prefix")
"""Of the query; all others are left out."""

_CLAIMS = (
    re.compile(r"Credential=([^/,\s]+)/"),  # Authorization of version 4
    re.compile(r"^AWS ([^:\s]+):"),  # and of version 2
)
_PRESIGNED = re.compile(r"(?:^|&)(?:X-Amz-Credential|AWSAccessKeyId)=([^&]*)")


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One request.  Sizes in bytes, of bodies as on the wire."""

    type: str = "audit"
    """Tells these lines from others where both go to one place."""
    time: str
    """When its head was read: RFC 3339, UTC, milliseconds."""
    request_id: str
    pod: str
    remote: str
    """Address of the other end of the connection."""
    secure: bool
    """Whether it came over TLS."""
    access_key: str
    """As claimed; empty for anonymous."""
    account: str
    """The user that the signature proved, or `anonymous`; empty where the signature did not hold."""
    method: str
    operation: str
    """As S3 names it; `Admin`; `unknown` where it was refused before that was found out; `rejected` for overload."""
    bucket: str
    key: str
    """Of the admin API, the path below its prefix."""
    source: str
    """What a copy reads from."""
    parameters: dict[str, str]
    status: int
    """499 where the client went away before there was an answer."""
    error: str
    """S3's code; empty for success."""
    cut: bool
    """The answer was begun, but not sent to its end."""
    received_bytes: int
    sent_bytes: int
    duration_ms: float
    user_agent: str


def timestamp(moment_ms: int) -> str:
    text = datetime.fromtimestamp(moment_ms / 1000, UTC).isoformat(timespec="milliseconds")
    return text.removesuffix("+00:00") + "Z"


def shortened(text: str, size: int) -> str:
    """At most `size` characters, the last of them telling that there were more; without lone surrogates."""
    if len(text) > size:
        text = text[: size - 1] + "…"
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def told_parameters(query: Mapping[str, str]) -> dict[str, str]:
    """What of a decoded query may be told."""
    return {name: shortened(query[name], MAX_PARAMETER_SIZE) for name in TOLD_PARAMETERS if query.get(name)}


def claimed_access_key(authorization: str | None, raw_query: str) -> str:
    """The access key that a request names, proven or not; empty if none."""
    if authorization is not None:
        found = next((match for claim in _CLAIMS if (match := claim.search(authorization))), None)
        return shortened(found[1], MAX_NAME_SIZE) if found else ""
    match = _PRESIGNED.search(raw_query)
    return shortened(unquote(match[1]).partition("/")[0], MAX_NAME_SIZE) if match else ""


def encode_line(record: AuditRecord) -> bytes:
    """With its line feed."""
    return msgspec.json.encode(record) + b"\n"
