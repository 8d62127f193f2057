"""Browser uploads by form: multipart/form-data read piece by piece, and the policy that signs a form.

`FormReader` holds no more than the fields in front of the file (bounded) and a boundary's length of the file.  What
follows the file is passed over, as S3 does.  A policy is a base64 JSON document that says until when, and with which
fields, the form may be sent; its signature is of version 4, or of version 2 where the form has no `x-amz-algorithm`.
Pure.  Reference: "Browser-based uploads using POST" in the S3 API reference.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from email.message import Message

import msgspec

from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.signing import KeyPair
from holdfast_server.s3.sigv4 import ALGORITHM, parse_timestamp

MAX_FIELDS_SIZE_BYTES = 64 << 10
"""Everything in front of the file's first byte."""
MAX_FIELDS = 200
MAX_BOUNDARY_LENGTH = 200
MAX_PART_HEAD_SIZE_BYTES = 4 << 10
"""Of the lines in front of a field's value."""
MAX_PARAMETERS = 64
"""Of a Content-Type or Content-Disposition, as their semicolons tell, those in quotes too: the library that reads them
looks at all that comes before for each, and a few kilobytes of semicolons would keep it busy for seconds."""
MAX_SKEW_MS = 7 * 24 * 3600 * 1000
FILE = "file"
_EXEMPT = frozenset({"policy", "signature", "awsaccesskeyid", "x-amz-signature", "file"})
_EXEMPT_PREFIXES = ("x-ignore-", "x-amz-checksum-")


class FormReader:
    """Fed with the body as it comes; `fields` are whole once `in_file`."""

    def __init__(self, content_type: str) -> None:
        """Raises MalformedPOSTRequest where it is no form."""
        if content_type.count(";") > MAX_PARAMETERS:
            raise S3Error("MalformedPOSTRequest")
        message = Message()
        message["content-type"] = content_type
        boundary = message.get_boundary("")
        if message.get_content_type() != "multipart/form-data" or not 1 <= len(boundary) <= MAX_BOUNDARY_LENGTH:
            raise S3Error("MalformedPOSTRequest")
        try:
            delimiter = b"\r\n--" + boundary.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:  # it may be written in an encoding of the client's choice
            raise S3Error("MalformedPOSTRequest") from error
        self.fields: dict[str, str] = {}
        """By name in lower case."""
        self.file_name = ""
        self.in_file = False
        self.ended = False
        """The file's last byte was seen."""
        self._delimiter = delimiter
        self._buffer = bytearray(b"\r\n")
        self._begun = False
        self._fields_size_bytes = 0

    def feed(self, data: bytes) -> bytes:
        """Bytes of the file among these and those before.  Raises MalformedPOSTRequest,
        MaxPostPreDataLengthExceededError."""
        if self.ended:
            return b""
        self._buffer += data
        if not self.in_file:
            self._fields_size_bytes += len(data)
            while not self.in_file and self._next_field():
                pass
            if self._fields_size_bytes - (len(self._buffer) if self.in_file else 0) > MAX_FIELDS_SIZE_BYTES:
                raise S3Error("MaxPostPreDataLengthExceededError")
        return self._take_file() if self.in_file else b""

    def _take_file(self) -> bytes:
        end = self._buffer.find(self._delimiter)
        if end >= 0:
            self.ended = True
            return bytes(self._buffer[:end])
        ready = max(0, len(self._buffer) - len(self._delimiter) + 1)
        taken = bytes(self._buffer[:ready])
        del self._buffer[:ready]
        return taken

    def _next_field(self) -> bool:
        """Take one field off the buffer; False where more must come first."""
        start = self._buffer.find(self._delimiter)
        if start != 0:
            if start > 0 and not self._begun:
                del self._buffer[:start]  # a preamble
                return True
            if self._begun or len(self._buffer) > MAX_FIELDS_SIZE_BYTES:
                raise S3Error("MalformedPOSTRequest")
            return False
        after = len(self._delimiter)
        if len(self._buffer) < after + 2:
            return False
        if self._buffer[after : after + 2] != b"\r\n":
            raise S3Error("InvalidArgument", "POST requires exactly one file upload per request.", ArgumentName=FILE)
        head_end = self._buffer.find(b"\r\n\r\n", after)
        if (len(self._buffer) if head_end < 0 else head_end) - after > MAX_PART_HEAD_SIZE_BYTES:
            raise S3Error("MaxPostPreDataLengthExceededError")
        if head_end < 0:
            return False
        name, file_name = _disposition(bytes(self._buffer[after + 2 : head_end]))
        if name == FILE:
            self.file_name, self.in_file = file_name, True
            del self._buffer[: head_end + 4]
            return False
        end = self._buffer.find(self._delimiter, head_end + 2)
        if end < 0:
            return False
        if len(self.fields) >= MAX_FIELDS:
            raise S3Error("MaxPostPreDataLengthExceededError")
        try:
            self.fields.setdefault(name, bytes(self._buffer[head_end + 4 : end]).decode())
        except UnicodeDecodeError as error:
            raise S3Error("MalformedPOSTRequest") from error
        self._begun = True
        del self._buffer[:end]
        return True


def _disposition(head: bytes) -> tuple[str, str]:
    """Name (lower case) and file name of a part."""
    for line in head.split(b"\r\n"):
        title, _, value = line.partition(b":")
        if title.strip().lower() == b"content-disposition" and value.count(b";") <= MAX_PARAMETERS:
            message = Message()
            try:
                message["content-disposition"] = value.strip().decode()
                name = message.get_param("name", header="content-disposition")
                file_name = message.get_filename("")
            except (UnicodeError, ValueError) as error:
                raise S3Error("MalformedPOSTRequest") from error
            if isinstance(name, str) and name:
                return name.lower(), file_name
    raise S3Error("MalformedPOSTRequest")


# --- the file's name

_VARIABLE = "${filename}"
_NOT_EXPANDED = frozenset({"policy", "signature", "x-amz-signature"})


def with_file_name(fields: Mapping[str, str], file_name: str) -> dict[str, str]:
    """The fields with `${filename}` replaced, wherever it stands: with what follows the last slash or backslash of the
    name, for browsers may send a path.  The policy is about the fields as they are then."""
    name = file_name.rpartition("/")[2].rpartition("\\")[2]
    return {
        field: value if field in _NOT_EXPANDED else value.replace(_VARIABLE, name) for field, value in fields.items()
    }


# --- the policy


class FormPolicy(msgspec.Struct, frozen=True):
    """A checked policy document."""

    expires_ms: int
    conditions: tuple[tuple[str, str, str], ...]
    """(`eq` or `starts-with`, field in lower case, value)."""
    size_range: tuple[int, int] | None
    """Of the file, in bytes."""


class FormClaim(msgspec.Struct, frozen=True):
    """Who a form says signed it; nothing of it is proved yet."""

    access_key: str
    signature: str
    session_token: str = ""
    date: str = ""
    region: str = ""
    """Of version 4; a claim without a date is of version 2."""
    service: str = "s3"
    timestamp: str = ""
    """When a form of version 4 says it was signed."""


def parse_form_claim(fields: Mapping[str, str]) -> FormClaim | None:
    """None where the form is not signed.  Raises InvalidArgument, AccessDenied where the claim is not whole."""
    if "policy" not in fields:
        if any(name in fields for name in ("x-amz-signature", "signature")):
            raise _missing("policy")
        return None
    token = fields.get("x-amz-security-token", "")
    if "x-amz-algorithm" in fields or "x-amz-signature" in fields:
        if fields.get("x-amz-algorithm") != ALGORITHM:
            raise _missing("x-amz-algorithm")
        credential = fields.get("x-amz-credential", "").rsplit("/", 4)
        if len(credential) != 5 or credential[4] != "aws4_request" or not credential[0]:
            raise _missing("x-amz-credential")
        if not fields.get("x-amz-date"):
            raise _missing("x-amz-date")
        if not fields.get("x-amz-signature"):
            raise _missing("x-amz-signature")
        access_key, date, region, service, _ = credential
        timestamp = fields["x-amz-date"]
        parse_timestamp(timestamp)
        return FormClaim(access_key, fields["x-amz-signature"], token, date, region, service, timestamp)
    for name in ("AWSAccessKeyId", "signature"):
        if not fields.get(name.lower()):
            raise _missing(name)
    return FormClaim(fields["awsaccesskeyid"], fields["signature"], token)


def _missing(name: str) -> S3Error:
    return S3Error(
        "InvalidArgument",
        f"Bucket POST must contain a field named '{name}'.  If it is specified, please check the order of the fields.",
        ArgumentName=name,
        ArgumentValue="",
    )


def check_form_signature(claim: FormClaim, policy: str, secret_key: str) -> None:
    """Raises SignatureDoesNotMatch."""
    if claim.date:
        pair = KeyPair(claim.access_key, secret_key, region=claim.region, service=claim.service)
        expected = pair.signing_key(claim.date + "T000000Z").sign(policy.encode())
    else:
        expected = base64.b64encode(hmac.digest(secret_key.encode(), policy.encode(), "sha1")).decode()
    if not hmac.compare_digest(expected.encode(), claim.signature.encode()):
        raise S3Error("SignatureDoesNotMatch", AWSAccessKeyId=claim.access_key)


def parse_form_policy(text: str) -> FormPolicy:
    """Raises InvalidPolicyDocument."""
    try:
        document = json.loads(base64.b64decode(text, validate=False).decode())
    except (ValueError, binascii.Error, RecursionError) as error:
        raise _invalid("Invalid JSON.") from error
    if not isinstance(document, dict):
        raise _invalid("Invalid JSON.")
    expiration, conditions = document.get("expiration"), document.get("conditions")
    if not isinstance(expiration, str):
        raise _invalid("Policy missing expiration.")
    if not isinstance(conditions, list):
        raise _invalid("Policy missing conditions.")
    found: list[tuple[str, str, str]] = []
    size_range: tuple[int, int] | None = None
    for condition in conditions:
        if isinstance(condition, list) and condition and str(condition[0]).lower() == "content-length-range":
            size_range = _size_range(condition)
        else:
            found += _condition(condition)
    return FormPolicy(_expiry(expiration), tuple(found), size_range)


def _condition(condition: object) -> list[tuple[str, str, str]]:
    if isinstance(condition, dict) and len(condition) == 1:
        ((name, value),) = condition.items()
        if isinstance(value, str | int):
            return [("eq", str(name).lower(), str(value))]
    if isinstance(condition, list) and len(condition) == 3 and all(isinstance(part, str | int) for part in condition):
        operator, name, value = map(str, condition)
        if operator.lower() in ("eq", "starts-with") and name.startswith("$"):
            return [(operator.lower(), name[1:].lower(), value)]
    raise _invalid("Invalid Simple-Condition: Simple-Conditions must have exactly one property specified.")


def _size_range(condition: list[object]) -> tuple[int, int]:
    if len(condition) != 3:
        raise _invalid("Invalid content-length-range: wrong number of arguments.")
    try:
        least, most = (int(str(bound)) for bound in condition[1:])
    except ValueError as error:
        raise _invalid("Invalid content-length-range: not a number.") from error
    if not 0 <= least <= most:
        raise _invalid("Invalid content-length-range: not a range.")
    return least, most


def _expiry(text: str) -> int:
    try:
        if not text.endswith("Z"):
            raise ValueError("not in UTC")
        return int(datetime.fromisoformat(text[:-1]).replace(tzinfo=UTC).timestamp() * 1000)
    except (ValueError, OverflowError) as error:
        raise _invalid(f"Invalid 'expiration' value: '{text}'") from error


def _invalid(reason: str) -> S3Error:
    return S3Error("InvalidPolicyDocument", f"Invalid Policy: {reason}")


def check_form(policy: FormPolicy, fields: Mapping[str, str], bucket: str, now_ms: int) -> None:
    """Whether the form is as its policy has it.  Raises AccessDenied with what is not."""
    if now_ms > policy.expires_ms:
        raise S3Error("AccessDenied", "Invalid according to Policy: Policy expired.")
    given = {**fields, "bucket": bucket}
    for operator, name, value in policy.conditions:
        have = given.get(name, "")
        holds = have.startswith(value) if operator == "starts-with" else have == value
        # Of a list of content types each must begin so.
        if operator == "starts-with" and name == "content-type" and "," in have:
            holds = all(part.strip().startswith(value) for part in have.split(","))
        if not holds or (name not in given and (operator == "eq" or value)):
            shown = json.dumps([operator, f"${name}", value])
            raise S3Error("AccessDenied", f"Invalid according to Policy: Policy Condition failed: {shown}")
    named = {name for _, name, _ in policy.conditions}
    for name in fields:
        if name not in named and name not in _EXEMPT and not name.startswith(_EXEMPT_PREFIXES):
            raise S3Error("AccessDenied", f"Invalid according to Policy: Extra input fields: {name}")
