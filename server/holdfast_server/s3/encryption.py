"""The headers of server-side encryption, and a bucket's default: parsed, checked, written.

Three ways: SSE-S3 (`AES256`), SSE-KMS (`aws:kms`, with a key's name and a context), and SSE-C, where the client sends a
key with each request.  Pure.  Reference: "Protecting data with server-side encryption" in the S3 user guide.

Not here: whether there is such a key (`api.encryption`).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping

import msgspec

from holdfast_server.s3.documents_out import document
from holdfast_server.s3.errors import S3Error, invalid_argument
from holdfast_server.s3.xml_text import escape
from holdfast_server.s3.xml_tree import Element, parse

AES256 = "AES256"
KMS = "aws:kms"

HEADER = "x-amz-server-side-encryption"
KMS_KEY_HEADER = f"{HEADER}-aws-kms-key-id"
CONTEXT_HEADER = f"{HEADER}-context"
BUCKET_KEY_HEADER = f"{HEADER}-bucket-key-enabled"
CUSTOMER_PREFIX = f"{HEADER}-customer-"
COPY_SOURCE_PREFIX = "x-amz-copy-source-server-side-encryption-customer-"
SECRET_HEADERS = frozenset({f"{CUSTOMER_PREFIX}key", f"{COPY_SOURCE_PREFIX}key"})
"""Hold a key; nothing may show or remember them."""

CUSTOMER_KEY_SIZE_BYTES = 32
MAX_CONTEXT_SIZE_BYTES = 8192
MAX_KEY_ID_LENGTH = 2048
MAX_BUCKET_ENCRYPTION_SIZE_BYTES = 64 << 10
_AWS_OWN_KEY = "alias/aws/s3"
_OTHER_ALGORITHMS = frozenset({"aws:kms:dsse", "aws:fsx"})
_INSECURE = (
    "Requests specifying Server Side Encryption with Customer provided keys must be made over a secure connection."
)
_INCOMPATIBLE = "Server Side Encryption with Customer provided key is incompatible with the encryption method specified"


class Wanted(msgspec.Struct, frozen=True):
    """Encryption with a key of the store, as a request or a bucket asks for it."""

    algorithm: str
    """AES256 or KMS."""
    key_id: str = ""
    """As it was given: a name, or an ARN that ends in it; the default key where empty."""
    context: str = ""
    """base64, as it was given."""
    bucket_key: bool = False

    @property
    def key_name(self) -> str:
        """The name that an ARN ends in (`…:key/NAME`, `alias/NAME`); empty, as where none is named, for the alias of
        AWS's own key."""
        return "" if self.key_id.endswith(_AWS_OWN_KEY) else self.key_id.rpartition("/")[2]


class CustomerKey(msgspec.Struct, frozen=True):
    """A key that came with a request."""

    key: bytes
    md5: str
    """base64; what S3 shows of it."""

    def __repr__(self) -> str:
        return "CustomerKey(…)"


def parse_wanted(headers: Mapping[str, str]) -> Wanted | None:
    """What a write asks for, but for SSE-C.  Raises InvalidArgument, NotImplemented."""
    algorithm = headers.get(HEADER)
    if algorithm is None:
        for name in (KMS_KEY_HEADER, CONTEXT_HEADER):
            if name in headers:
                raise invalid_argument(
                    f"Server Side Encryption with AWS KMS managed key requires HTTP header {HEADER} : {KMS}", name, ""
                )
        return None
    check_algorithm(algorithm, HEADER)
    bucket_key = headers.get(BUCKET_KEY_HEADER, "").lower() == "true"
    if algorithm == AES256:
        if KMS_KEY_HEADER in headers or CONTEXT_HEADER in headers:
            raise invalid_argument(
                f"Server Side Encryption with AWS KMS managed key requires HTTP header {HEADER} : {KMS}",
                HEADER,
                algorithm,
            )
        return Wanted(AES256)
    key_id = headers.get(KMS_KEY_HEADER, "")
    return Wanted(KMS, check_key_id(key_id), _checked_context(headers.get(CONTEXT_HEADER, "")), bucket_key)


def check_algorithm(text: str, name: str) -> None:
    """Raises InvalidArgument, NotImplemented."""
    if text in _OTHER_ALGORITHMS:
        raise S3Error("NotImplemented", f"Server side encryption with {text} is not implemented.", Header=name)
    if text not in (AES256, KMS):
        raise invalid_argument("The encryption method specified is not supported", name, text)


def check_key_id(text: str) -> str:
    if len(text) > MAX_KEY_ID_LENGTH or not text.isprintable():
        raise S3Error("KMS.NotFoundException", "Invalid keyId")
    return text


def _checked_context(text: str) -> str:
    if not text:
        return ""
    try:
        context = json.loads(base64.b64decode(text, validate=True))
    except (ValueError, RecursionError) as error:
        raise _bad_context(text) from error
    if len(text) > MAX_CONTEXT_SIZE_BYTES or not isinstance(context, dict):
        raise _bad_context(text)
    if not all(isinstance(value, str) for value in context.values()):
        raise _bad_context(text)
    return text


def _bad_context(text: str) -> S3Error:
    return invalid_argument(
        "The header must be base64 of a JSON object with strings as values", CONTEXT_HEADER, text[:64]
    )


def parse_customer_key(headers: Mapping[str, str], secure: bool, prefix: str = CUSTOMER_PREFIX) -> CustomerKey | None:
    """The key of SSE-C, if there is one.  `secure`: whether it may have come as it did.

    Raises InvalidArgument where it is not whole, InvalidRequest where it should not have come in the clear.
    """
    algorithm, text, md5 = (headers.get(prefix + name) for name in ("algorithm", "key", "key-md5"))
    if algorithm is None and text is None and md5 is None:
        return None
    if not secure:
        raise S3Error("InvalidRequest", _INSECURE)
    if algorithm != AES256:
        raise invalid_argument(
            "Requests specifying Server Side Encryption with Customer provided keys must provide a valid encryption "
            "algorithm.",
            prefix + "algorithm",
            algorithm or "null",
        )
    if not text:
        raise invalid_argument(
            "Requests specifying Server Side Encryption with Customer provided keys must provide an appropriate "
            "secret key.",
            prefix + "key",
            "null",
        )
    if not md5:
        raise invalid_argument(
            "Requests specifying Server Side Encryption with Customer provided keys must provide the client "
            "calculated MD5 of the secret key.",
            prefix + "key-MD5",
            "null",
        )
    return CustomerKey(_customer_key(text, md5, prefix), md5)


def _customer_key(text: str, md5: str, prefix: str) -> bytes:
    try:
        key = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        key = b""
    if len(key) != CUSTOMER_KEY_SIZE_BYTES:
        raise invalid_argument("The secret key was invalid for the specified algorithm.", prefix + "key", "(hidden)")
    found = base64.b64encode(hashlib.md5(key, usedforsecurity=False).digest())
    if not hmac.compare_digest(found, md5.encode("utf-8", "surrogateescape")):
        raise invalid_argument(
            "The calculated MD5 hash of the key did not match the hash that was provided.", prefix + "key-MD5", md5
        )
    return key


def refuse_both(wanted: Wanted | None, customer: CustomerKey | None) -> None:
    """Raises InvalidArgument where a request asks for two ways at once."""
    if wanted is not None and customer is not None:
        raise invalid_argument(_INCOMPATIBLE, HEADER, wanted.algorithm)


def refuse_on_read(headers: Mapping[str, str]) -> None:
    """Reads may name a customer's key and nothing else.  Raises InvalidArgument."""
    if HEADER in headers:
        raise invalid_argument(f"{HEADER} header is not supported for this operation.", HEADER, headers[HEADER])


# --- a bucket's default


class BucketEncryption(msgspec.Struct, frozen=True):
    """What becomes of an object whose writer asks for nothing."""

    algorithm: str
    key_id: str = ""
    bucket_key: bool = False

    @property
    def wanted(self) -> Wanted:
        return Wanted(self.algorithm, self.key_id, "", self.bucket_key)


NOTHING_BLOCKED, CUSTOMER_KEYS_BLOCKED = "NONE", "SSE-C"


class EncryptionRule(msgspec.Struct, frozen=True):
    """What a `ServerSideEncryptionConfiguration` says."""

    default: BucketEncryption | None
    blocked: str = ""
    """NOTHING_BLOCKED or CUSTOMER_KEYS_BLOCKED, as it was put, for clients compare it; empty where nobody said."""


def parse_bucket_encryption(body: bytes) -> EncryptionRule:
    """A `ServerSideEncryptionConfiguration`.  Raises MalformedXML, InvalidArgument, NotImplemented."""
    root = parse(body, MAX_BUCKET_ENCRYPTION_SIZE_BYTES)
    rules = list(root.all("Rule"))
    if root.name != "ServerSideEncryptionConfiguration" or len(rules) != 1:
        raise S3Error("MalformedXML")
    rule = rules[0]
    blocked = _parse_blocked(rule)
    default = rule.find("ApplyServerSideEncryptionByDefault")
    if default is None and blocked:
        return EncryptionRule(None, blocked)
    if default is None or not default.value("SSEAlgorithm"):
        raise S3Error("MalformedXML")
    algorithm = default.value("SSEAlgorithm") or ""
    if algorithm not in (AES256, KMS, *_OTHER_ALGORITHMS):
        raise S3Error("MalformedXML")
    check_algorithm(algorithm, "SSEAlgorithm")
    key_id = default.value("KMSMasterKeyID") or ""
    if algorithm == AES256 and key_id:
        raise invalid_argument(
            "a KMSMasterKeyID is not applicable if the default sse algorithm is not aws:kms", "KMSMasterKeyID", key_id
        )
    bucket_key = (rule.value("BucketKeyEnabled") or "false").lower()
    if bucket_key not in ("true", "false"):
        raise S3Error("MalformedXML")
    return EncryptionRule(BucketEncryption(algorithm, check_key_id(key_id), bucket_key == "true"), blocked)


def _parse_blocked(rule: Element) -> str:
    found = rule.find("BlockedEncryptionTypes")
    if found is None:
        return ""
    types = {one.text.strip() for one in found.all("EncryptionType")}
    if len(types) != 1 or not types <= {NOTHING_BLOCKED, CUSTOMER_KEYS_BLOCKED}:
        raise S3Error("MalformedXML")
    return types.pop()


def bucket_encryption_xml(rule: EncryptionRule) -> bytes:
    """The same document, for who asks."""
    blocked = ""
    if rule.blocked:
        blocked = f"<BlockedEncryptionTypes><EncryptionType>{rule.blocked}</EncryptionType></BlockedEncryptionTypes>"
    return document("ServerSideEncryptionConfiguration", f"<Rule>{_default_xml(rule.default)}{blocked}</Rule>")


def _default_xml(found: BucketEncryption | None) -> str:
    if found is None:
        return ""
    key = f"<KMSMasterKeyID>{escape(found.key_id)}</KMSMasterKeyID>" if found.key_id else ""
    default = f"<SSEAlgorithm>{found.algorithm}</SSEAlgorithm>{key}"
    enabled = "true" if found.bucket_key else "false"
    return (
        f"<ApplyServerSideEncryptionByDefault>{default}</ApplyServerSideEncryptionByDefault>"
        f"<BucketKeyEnabled>{enabled}</BucketKeyEnabled>"
    )
