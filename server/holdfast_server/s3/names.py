"""Names and numbers in requests: bucket names, paging parameters, part numbers, copy sources, tokens.

Every parser returns a checked value or raises the S3 error that names the argument.
A continuation token says where the next page starts; it is opaque to clients and carries no secret.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from urllib.parse import quote

import msgspec

from holdfast_server.s3.errors import S3Error, invalid_argument
from holdfast_server.s3.request import check_key, percent_decode

MAX_LIST_COUNT = 1000
MAX_BUCKET_COUNT = 10_000
MAX_PART_NUMBER = 10_000
MIN_PART_SIZE_BYTES = 5 << 20
MAX_PART_SIZE_BYTES = 5 << 30
MAX_OBJECT_SIZE_BYTES = 50 << 40
"""Of a multipart object, as MinIO allows; S3 itself stops at 5 TiB."""
MAX_PUT_SIZE_BYTES = 5 << 30
"""Of one PutObject, S3's bound."""

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_IPV4 = re.compile(r"\d+\.\d+\.\d+\.\d+")
_NEEDS_NO_ENCODING = re.compile(r"[A-Za-z0-9/\-_.~*]*").fullmatch
_UPLOAD_ID = re.compile(r"[A-Za-z0-9._~-]{1,256}")
_RESERVED_PREFIXES = ("xn--", "sthree-")
_RESERVED_SUFFIXES = ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")
"""SDKs take such names for other kinds of endpoints; `--x-s3` has them ask for sessions first."""
NAMESPACE_HEADER = "x-amz-bucket-namespace"
GLOBAL_NAMESPACE, REGIONAL_NAMESPACE = "global", "account-regional"
RESERVED_BUCKETS = frozenset({"holdfast", "minio", "health", "metrics"})
"""First path segments with a meaning of their own; a bucket of that name could not be reached."""


def check_new_bucket_name(name: str) -> str:
    """The name itself, if S3's rules for new buckets allow it.  Raises InvalidBucketName."""
    valid = (
        _BUCKET.fullmatch(name)
        and ".." not in name
        and ".-" not in name
        and "-." not in name
        and not _IPV4.fullmatch(name)
        and not name.startswith(_RESERVED_PREFIXES)
        and not name.endswith(_RESERVED_SUFFIXES)
        and name not in RESERVED_BUCKETS
    )
    if not valid:
        raise S3Error("InvalidBucketName", BucketName=name)
    return name


def check_bucket_namespace(name: str, namespace: str | None, account_id: str, region: str) -> None:
    """A new bucket of an account's namespace (`x-amz-bucket-namespace`) has a name that ends in the account and the
    region, and other accounts can have none that does.  Raises InvalidBucketNamespace, InvalidBucketName,
    InvalidArgument."""
    if namespace not in (None, GLOBAL_NAMESPACE, REGIONAL_NAMESPACE):
        raise invalid_argument("The bucket namespace is global or account-regional", NAMESPACE_HEADER, namespace)
    if namespace == REGIONAL_NAMESPACE:
        if not name.endswith(f"-{account_id}-{region}-an"):
            raise S3Error(
                "InvalidBucketNamespace",
                f"A bucket of the account's namespace has a name that ends in -{account_id}-{region}-an.",
                BucketName=name,
            )
    elif re.search(rf"-[0-9]{{12}}-{re.escape(region)}-an\Z", name):
        raise S3Error("InvalidBucketName", BucketName=name)


def parse_count(query: Mapping[str, str], name: str = "max-keys", default: int = MAX_LIST_COUNT) -> int:
    """`max-keys`, `max-parts`, `max-uploads`: 0 up to the default; larger wishes are cut to it."""
    text = query.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit()):
        if text.isascii() and text.removeprefix("-").isdigit():
            raise invalid_argument(f"Argument {name} must be an integer between 0 and 2147483647", name, text)
        raise invalid_argument("Provided " + name + " not an integer or within integer range", name, text)
    if len(text) > 10 or int(text) > 0x7FFFFFFF:
        raise invalid_argument(f"Provided {name} not an integer or within integer range", name, text)
    return min(int(text), default)


def parse_bucket_count(query: Mapping[str, str]) -> int:
    """`max-buckets` of ListBuckets, 1 to 10,000.  Raises InvalidArgument."""
    text = query.get("max-buckets", "")
    if not text:
        return MAX_BUCKET_COUNT
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= MAX_BUCKET_COUNT):
        raise invalid_argument(
            f"Argument max-buckets must be an integer between 1 and {MAX_BUCKET_COUNT}", "max-buckets", text
        )
    return int(text)


def parse_encoding_type(query: Mapping[str, str]) -> str:
    """`url` or empty.  Raises InvalidArgument."""
    text = query.get("encoding-type", "")
    if text not in ("", "url"):
        raise invalid_argument("Invalid Encoding Method specified in Request", "encoding-type", text)
    return text


def encode_name(text: str, encoding_type: str) -> str:
    """A key or prefix of a listing, percent-encoded where the client asked for `encoding-type=url`."""
    if not encoding_type or _NEEDS_NO_ENCODING(text):
        return text
    return quote(text, safe="/-_.~*", errors="surrogatepass")


def parse_part_number(text: str) -> int:
    """1 to 10,000.  Raises InvalidArgument."""
    if not (text.isascii() and text.isdigit() and len(text) <= 6 and 1 <= int(text) <= MAX_PART_NUMBER):
        raise invalid_argument(
            f"Part number must be an integer between 1 and {MAX_PART_NUMBER}, inclusive", "partNumber", text
        )
    return int(text)


def parse_part_number_marker(query: Mapping[str, str]) -> int:
    """`part-number-marker`, 0 where absent.  Raises InvalidArgument."""
    text = query.get("part-number-marker", "")
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        raise invalid_argument(
            "Argument part-number-marker must be an integer between 0 and 2147483647", "part-number-marker", text
        )
    return int(text)


def parse_upload_id(query: Mapping[str, str]) -> str:
    """The upload id, if it can be one.  Raises NoSuchUpload."""
    text = query.get("uploadId", "")
    if not _UPLOAD_ID.fullmatch(text):
        raise S3Error("NoSuchUpload", UploadId=text)
    return text


def encode_token(last_key: str) -> str:
    """An opaque continuation token: the listing goes on behind `last_key`."""
    return base64.urlsafe_b64encode(b"1" + last_key.encode()).decode().rstrip("=")


def decode_token(token: str) -> str:
    """What `encode_token` was given.  Raises InvalidArgument."""
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        if raw[:1] != b"1":
            raise ValueError("unknown version")
        return raw[1:].decode()
    except (ValueError, binascii.Error) as error:
        raise invalid_argument("The continuation token provided is incorrect", "continuation-token", token) from error


class CopySource(msgspec.Struct, frozen=True):
    """Where a copy comes from; `version_id` is empty for the current version."""

    bucket: str
    key: str
    version_id: str = ""


def parse_copy_source(text: str) -> CopySource:
    """`x-amz-copy-source`: `/bucket/key?versionId=…`, percent-encoded, with or without the leading slash.

    A plus sign stands for a space: some clients send form encoding here, all others send `%2B` for a plus.
    Raises InvalidArgument.
    """
    path, _, version_id = text.partition("?versionId=")
    try:
        decoded = percent_decode(path.replace("+", " "))
    except S3Error as error:
        raise invalid_argument("Invalid copy source encoding", "x-amz-copy-source", text) from error
    bucket, _, key = decoded.removeprefix("/").partition("/")
    if not bucket or not key:
        raise invalid_argument(
            "Copy Source must mention the source bucket and key: sourcebucket/sourcekey", "x-amz-copy-source", text
        )
    return CopySource(bucket, check_key(key), version_id)
