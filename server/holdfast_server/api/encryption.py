"""Server-side encryption: what a write is sealed with, how a read is opened, what clients are told of it; and the
operations on a bucket's default.

What a request asks for comes first, then the bucket's default.  A copy of what is sealed under the store's keys is
sealed too, with SSE-S3 where nothing was asked for.  Before the first sealed object of a bucket every pod must know of
encryption (docs/decisions/0012-encryption.md): a pod of an earlier release would serve what was sealed.

New objects are sealed under the newest generation of a key that all reachable pods have.  A key that is gone makes a
read fail and say which key is missing; nothing is ever given out that was not opened with the right one.

Not here: the cipher (`sealing`), where keys come from (`pod.key_ring`), permissions of keys: who may use the store may
use its keys.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import msgspec

from holdfast_server.api.bucket_record import SEALED_FORMAT, BucketRecord
from holdfast_server.api.bucket_settings import change_bucket, current_bucket
from holdfast_server.api.buckets import raise_format
from holdfast_server.api.call import Call
from holdfast_server.contract.encryption_keys import DEFAULT_KEY
from holdfast_server.objects.port import Reader, Record
from holdfast_server.s3 import encryption
from holdfast_server.s3.encryption import (
    AES256,
    COPY_SOURCE_PREFIX,
    CUSTOMER_PREFIX,
    KMS,
    CustomerKey,
    EncryptionRule,
    Wanted,
    parse_bucket_encryption,
    parse_customer_key,
    parse_wanted,
)
from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.request import Response
from holdfast_server.sealing.chunks import SealBroken
from holdfast_server.sealing.envelope import (
    RANDOM_SIZE_BYTES,
    SSE_C,
    SSE_KMS,
    SSE_S3,
    Seal,
    Sealing,
    new_seal,
    open_seal,
)
from holdfast_server.sealing.ring import MasterKey, UnknownKey

log = logging.getLogger(__name__)

_NEEDS_KEY = (
    "The object was stored using a form of Server Side Encryption. The correct parameters must be provided to "
    "retrieve the object."
)
_OTHER_KEY = "The provided encryption parameters did not match the ones used originally."
_NOT_APPLICABLE = "The encryption parameters are not applicable to this object."
_PART_NEEDS_KEY = (
    "The multipart upload initiate requested encryption. Subsequent part requests must include the appropriate "
    "encryption parameters."
)


# --- writing


async def seal_of_new_object(
    call: Call, bucket: BucketRecord, source: Sealing | None = None
) -> tuple[Seal | None, dict[str, str]]:
    """What an object that this request writes is sealed with, and what the answer says of it.

    `source`: of what is copied.  The lease on the bucket must be renewed afterwards.  Raises S3Error: what is asked for
    cannot be, or not now.
    """
    customer = _customer_key(call, call.headers, CUSTOMER_PREFIX)
    wanted = parse_wanted(call.headers)
    encryption.refuse_both(wanted, customer)
    _refuse_blocked(bucket, customer)
    if wanted is None and customer is None:
        wanted = _by_default(call, bucket, source)
    if wanted is None and customer is None:
        return None, {}
    sealing, master_key = (
        (Sealing(SSE_C), customer.key) if wanted is None and customer is not None else _of_ring(call, wanted)
    )
    await prepare(call, bucket)
    random_bytes = call.services.clock.random_bytes(RANDOM_SIZE_BYTES)
    seal = new_seal(sealing, master_key, bucket.id, call.key, random_bytes)
    return seal, written_headers(seal.sealing, customer)


def _refuse_blocked(bucket: BucketRecord, customer: CustomerKey | None) -> None:
    """What is there already stays readable with its key.  Raises AccessDenied."""
    if customer is not None and bucket.blocked_encryption == encryption.CUSTOMER_KEYS_BLOCKED:
        raise S3Error("AccessDenied", "This bucket blocks uploads with customer-provided keys (SSE-C).")


def _by_default(call: Call, bucket: BucketRecord, source: Sealing | None) -> Wanted | None:
    if bucket.encryption is not None:
        return bucket.encryption.wanted
    keys = call.services.sealing
    ring = keys.ring()
    if source is None or not (len(ring) or keys.is_awaited()):
        return None
    if source.method == SSE_KMS and not ring.has(DEFAULT_KEY):
        return Wanted(KMS, key_id=source.named)
    # Where there is no `default`, or it was lost, that is refused: what was sealed is not stored in the clear for it.
    return Wanted(AES256)


def _of_ring(call: Call, wanted: Wanted | None) -> tuple[Sealing, bytes]:
    assert wanted is not None
    name = wanted.key_name or DEFAULT_KEY
    master = _newest(call, name)
    if wanted.algorithm == AES256:
        return Sealing(SSE_S3, master.entry), master.key
    sealing = Sealing(
        SSE_KMS, master.entry, context=wanted.context, named=wanted.key_id or name, bucket_key=wanted.bucket_key
    )
    return sealing, master.key


def _newest(call: Call, name: str) -> MasterKey:
    """Raises NotImplemented where there are no keys, KMS.NotFoundException, ServiceUnavailable."""
    keys = call.services.sealing
    ring = keys.ring()
    if keys.is_awaited():  # another pod may have them, or this one in a moment
        raise S3Error("ServiceUnavailable", "This pod does not have the encryption keys. Please retry.")
    if not len(ring):
        raise S3Error("NotImplemented", "Server side encryption was asked for, and this store has no encryption keys.")
    try:
        master = ring.newest(name, keys.is_everywhere)
    except UnknownKey as error:
        raise S3Error("KMS.NotFoundException", f"Invalid keyId '{name}': this store has no such key.") from error
    if master is None:
        raise S3Error("ServiceUnavailable", f"Not every pod has the encryption key '{name}' yet. Please retry.")
    return master


async def prepare(call: Call, bucket: BucketRecord) -> None:
    """Afterwards no pod of a release that knows nothing of encryption reads from the bucket.  Raises S3Error."""
    if bucket.format >= SEALED_FORMAT:
        return
    if not call.services.sealing.every_pod_seals():
        raise S3Error(
            "ServiceUnavailable",
            "Before the first object of a bucket is encrypted, every pod must be reachable and run a release that "
            "knows of encryption.",
        )

    await raise_format(call, bucket, SEALED_FORMAT)


def seal_of_part(call: Call, bucket: BucketRecord, upload: Record) -> tuple[Seal | None, dict[str, str]]:
    """What a part is sealed with, and what the answer says of it.  Raises S3Error."""
    customer = _customer_key(call, call.headers, CUSTOMER_PREFIX)
    if upload.sealing is not None and upload.sealing.method == SSE_C and customer is None:
        raise S3Error("InvalidRequest", _PART_NEEDS_KEY)
    _refuse_blocked(bucket, customer)
    seal = _open(call, bucket, call.key, upload.sealing, customer)
    return seal, shown_headers(upload.sealing, customer)


def check_completing(call: Call, bucket: BucketRecord, upload: Record) -> None:
    """A customer's key that comes with the completion of an upload must be that of its parts.  None need come: clients
    that know only the earlier protocol send none.  Raises InvalidRequest."""
    customer = _customer_key(call, call.headers, CUSTOMER_PREFIX)
    if customer is not None:
        _open(call, bucket, call.key, upload.sealing, customer)


# --- reading


def unlock(call: Call, bucket: BucketRecord, reader: Reader) -> dict[str, str]:
    """Make a reader of what is sealed readable; what the answer says of it.  Raises S3Error, Damaged."""
    encryption.refuse_on_read(call.headers)
    customer = _customer_key(call, call.headers, CUSTOMER_PREFIX)
    _unlock(call, bucket, call.key, reader, customer)
    return shown_headers(reader.record.sealing, customer)


def unlock_source(call: Call, bucket: BucketRecord, key: str, reader: Reader) -> None:
    """The same for what is copied."""
    _unlock(call, bucket, key, reader, _customer_key(call, call.headers, COPY_SOURCE_PREFIX))


def check_key(call: Call, bucket: BucketRecord, record: Record) -> dict[str, str]:
    """For who asks about an object, not for its content: whoever has no right to an object of SSE-C without its key is
    told nothing of it.  Other keys are not needed.  Raises S3Error."""
    encryption.refuse_on_read(call.headers)
    customer = _customer_key(call, call.headers, CUSTOMER_PREFIX)
    if customer is not None or (record.sealing is not None and record.sealing.method == SSE_C):
        _open(call, bucket, call.key, record.sealing, customer)
    return shown_headers(record.sealing, customer)


def _unlock(call: Call, bucket: BucketRecord, key: str, reader: Reader, customer: CustomerKey | None) -> None:
    seal = _open(call, bucket, key, reader.record.sealing, customer)
    if seal is not None:
        reader.unlock(seal)


def _open(
    call: Call, bucket: BucketRecord, key: str, sealing: Sealing | None, customer: CustomerKey | None
) -> Seal | None:
    """The object's own key; None where it has none.  Raises InvalidRequest, ServiceUnavailable, InternalError."""
    if sealing is None or sealing.method != SSE_C:
        if customer is not None:
            raise S3Error("InvalidRequest", _NOT_APPLICABLE)
        return None if sealing is None else _open_with_ring(call, bucket, key, sealing)
    if customer is None:
        raise S3Error("InvalidRequest", _NEEDS_KEY)
    try:
        return open_seal(sealing, customer.key, bucket.id, key)
    except SealBroken as error:
        raise S3Error("InvalidRequest", _OTHER_KEY) from error


def _open_with_ring(call: Call, bucket: BucketRecord, key: str, sealing: Sealing) -> Seal:
    try:
        master_key = call.services.sealing.ring().get(sealing.master)
    except UnknownKey as error:
        log.error("an object cannot be read: its encryption key is missing", extra={"key_name": sealing.master})
        raise S3Error(
            "ServiceUnavailable",
            f"The object is encrypted under the key '{sealing.master}', which this pod does not have.",
        ) from error
    try:
        return open_seal(sealing, master_key, bucket.id, key)
    except SealBroken as error:
        log.error("an object cannot be read: its encryption key is another one", extra={"key_name": sealing.master})
        raise S3Error(
            "InternalError",
            f"The object does not open with the key '{sealing.master}' that this pod has: the key was exchanged, or "
            "what is stored has been changed.",
        ) from error


def _customer_key(call: Call, headers: Mapping[str, str], prefix: str) -> CustomerKey | None:
    secure = call.verified.request.secure or call.services.sealing.customer_keys_over_plaintext()
    return parse_customer_key(headers, secure, prefix)


# --- what is told


def shown_headers(sealing: Sealing | None, customer: CustomerKey | None = None) -> dict[str, str]:
    """How an object is encrypted, as answers say it."""
    if sealing is None:
        return {}
    if sealing.method == SSE_C:
        shown = {f"{CUSTOMER_PREFIX}algorithm": AES256}
        return shown | {f"{CUSTOMER_PREFIX}key-MD5": customer.md5} if customer is not None else shown
    shown = {encryption.HEADER: sealing.method}
    if sealing.method == SSE_KMS:
        shown[encryption.KMS_KEY_HEADER] = sealing.named
        if sealing.bucket_key:
            shown[encryption.BUCKET_KEY_HEADER] = "true"
    return shown


def written_headers(sealing: Sealing, customer: CustomerKey | None = None) -> dict[str, str]:
    """As above; who writes is told the context, too."""
    shown = shown_headers(sealing, customer)
    return shown | {encryption.CONTEXT_HEADER: sealing.context} if sealing.context else shown


def completed_headers(sealing: Sealing | None) -> dict[str, str]:
    """What completing an upload says: of a customer's key, which it is not given, nothing."""
    return {} if sealing is None or sealing.method == SSE_C else shown_headers(sealing)


# --- a bucket's default


async def get_bucket_encryption(call: Call) -> Response:
    """Of a bucket that has none S3 says since 2023 that it has SSE-S3.  Here it is not encrypted, and told so."""
    bucket = await current_bucket(call)
    if bucket.encryption is None and not bucket.blocked_encryption:
        raise S3Error("ServerSideEncryptionConfigurationNotFoundError", BucketName=bucket.name)
    return call.xml(encryption.bucket_encryption_xml(EncryptionRule(bucket.encryption, bucket.blocked_encryption)))


async def put_bucket_encryption(call: Call) -> Response:
    """Of objects to come.  Refused where there is no such key: writes would fail later.

    What is blocked stays so where nothing is said of it: whoever changes the default alone, as every client did before
    there were blocks, is not to lift one.
    """
    asked = parse_bucket_encryption(await call.small_body(encryption.MAX_BUCKET_ENCRYPTION_SIZE_BYTES))
    if asked.default is not None:
        _newest(call, asked.default.wanted.key_name or DEFAULT_KEY)
        await prepare(call, await current_bucket(call))

    def asked_of(bucket: BucketRecord) -> BucketRecord:
        blocked = asked.blocked or bucket.blocked_encryption
        return msgspec.structs.replace(bucket, encryption=asked.default, blocked_encryption=blocked)

    await change_bucket(call, asked_of)
    return Response(status=200)


async def delete_bucket_encryption(call: Call) -> Response:
    await change_bucket(call, lambda bucket: msgspec.structs.replace(bucket, encryption=None, blocked_encryption=""))
    return Response(status=204)
