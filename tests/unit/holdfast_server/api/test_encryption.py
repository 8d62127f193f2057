"""Encryption as clients see it: boto3 against the whole API, over objects in memory."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from botocore.exceptions import ClientError

from holdfast_server.api.bucket_record import SEALED_FORMAT, VERSIONED_FORMAT, decode
from holdfast_server.api.sealing_keys import SealingKeys
from holdfast_server.api.services import Services
from holdfast_server.contract.encryption_keys import fingerprint
from holdfast_server.sealing.ring import KeyRing
from holdfast_server.testing.boto import served_client
from holdfast_server.testing.memory_services import memory_services

BUCKET = "sealed"
CUSTOMER = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": "c" * 32}
OTHER_CUSTOMER = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": "d" * 32}
ONE, TWO, BILLING = b"1" * 32, b"2" * 32, b"b" * 32
PART = 5 << 20


class Keys:
    """A ring that tests exchange, and what other pods have of it."""

    def __init__(self) -> None:
        self.ring = KeyRing({"default.1": ONE, "billing": BILLING})
        self.awaited = False
        self.elsewhere: Callable[[bytes], bool] = lambda _: True
        self.all_seal = True
        self.over_plaintext = True

    def given(self) -> SealingKeys:
        return SealingKeys(
            ring=lambda: self.ring,
            is_awaited=lambda: self.awaited,
            is_everywhere=lambda found: self.elsewhere(found),
            every_pod_seals=lambda: self.all_seal,
            customer_keys_over_plaintext=lambda: self.over_plaintext,
        )


@pytest.fixture
def keys() -> Keys:
    return Keys()


@pytest.fixture
def services(keys: Keys) -> Services:
    return dataclasses.replace(memory_services(), sealing=keys.given())


@pytest.fixture
def s3(services: Services) -> Iterator[Any]:
    with served_client(services, BUCKET) as client:
        yield client


def put(s3: Any, body: bytes = b"content", key: str = "k", **more: Any) -> Any:
    return s3.put_object(Bucket=BUCKET, Key=key, Body=body, **more)


def get(s3: Any, key: str = "k", **more: Any) -> bytes:
    return bytes(s3.get_object(Bucket=BUCKET, Key=key, **more)["Body"].read())


def refused(call: Callable[..., Any], *arguments: Any, **named: Any) -> tuple[int, str, str]:
    with pytest.raises(ClientError) as caught:
        call(*arguments, **named)
    response = caught.value.response
    return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"], response["Error"]["Message"]


def set_default(s3: Any, algorithm: str = "AES256", **more: str) -> None:
    default = {"SSEAlgorithm": algorithm, **more}
    rules = {"Rules": [{"ApplyServerSideEncryptionByDefault": default}]}
    s3.put_bucket_encryption(Bucket=BUCKET, ServerSideEncryptionConfiguration=rules)


def test_sse_s3_shows_the_md5_and_needs_nothing_to_read(s3: Any) -> None:
    made = put(s3, ServerSideEncryption="AES256")
    assert made["ServerSideEncryption"] == "AES256"
    assert made["ETag"] == f'"{hashlib.md5(b"content").hexdigest()}"'
    assert get(s3) == b"content"
    assert s3.head_object(Bucket=BUCKET, Key="k")["ServerSideEncryption"] == "AES256"
    assert get(s3, Range="bytes=2-4") == b"nte"
    [listed] = s3.list_objects_v2(Bucket=BUCKET)["Contents"]
    assert (listed["Size"], listed["ETag"]) == (7, made["ETag"])


def test_sse_kms_names_its_key_and_hides_the_md5(s3: Any) -> None:
    context = base64.b64encode(b'{"of":"tests"}').decode()
    made = put(s3, ServerSideEncryption="aws:kms", SSEKMSKeyId="billing", SSEKMSEncryptionContext=context)
    assert (made["ServerSideEncryption"], made["SSEKMSKeyId"]) == ("aws:kms", "billing")
    assert made["SSEKMSEncryptionContext"] == context
    assert made["ETag"] != f'"{hashlib.md5(b"content").hexdigest()}"'
    head = s3.head_object(Bucket=BUCKET, Key="k")
    assert (head["SSEKMSKeyId"], head["ETag"]) == ("billing", made["ETag"])
    assert "SSEKMSEncryptionContext" not in head
    assert get(s3) == b"content"


def test_a_key_may_be_named_by_its_arn(s3: Any) -> None:
    arn = "arn:aws:kms:us-east-1:000000000000:key/billing"
    assert put(s3, ServerSideEncryption="aws:kms", SSEKMSKeyId=arn, BucketKeyEnabled=True)["SSEKMSKeyId"] == arn
    assert s3.head_object(Bucket=BUCKET, Key="k")["BucketKeyEnabled"] is True


def test_awss_own_key_is_the_default_one(s3: Any) -> None:
    for name in ("alias/aws/s3", "arn:aws:kms:us-east-1:000000000000:alias/aws/s3"):
        assert put(s3, ServerSideEncryption="aws:kms", SSEKMSKeyId=name)["SSEKMSKeyId"] == name
        assert get(s3) == b"content"
    put_default = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "alias/aws/s3"}
    rules = {"Rules": [{"ApplyServerSideEncryptionByDefault": put_default}]}
    s3.put_bucket_encryption(Bucket=BUCKET, ServerSideEncryptionConfiguration=rules)
    assert put(s3)["ServerSideEncryption"] == "aws:kms"


def test_a_customers_key_is_needed_for_everything(s3: Any) -> None:
    made = put(s3, **CUSTOMER)
    assert made["SSECustomerAlgorithm"] == "AES256"
    assert made["SSECustomerKeyMD5"] == base64.b64encode(hashlib.md5(b"c" * 32).digest()).decode()
    assert made["ETag"] != f'"{hashlib.md5(b"content").hexdigest()}"'
    assert get(s3, **CUSTOMER) == b"content"
    for call in (s3.get_object, s3.head_object):
        assert refused(call, Bucket=BUCKET, Key="k")[0] == 400
        assert refused(call, Bucket=BUCKET, Key="k", **OTHER_CUSTOMER)[0] == 400
    asked = {"Bucket": BUCKET, "Key": "k", "ObjectAttributes": ["ObjectSize"]}
    assert refused(s3.get_object_attributes, **asked)[0] == 400
    spelt = {"SSECustomerKey": base64.b64encode(b"c" * 32).decode(), "SSECustomerKeyMD5": made["SSECustomerKeyMD5"]}
    assert s3.get_object_attributes(**asked, SSECustomerAlgorithm="AES256", **spelt)["ObjectSize"] == 7


def test_a_customers_key_is_nowhere_in_what_is_stored(s3: Any, services: Services) -> None:
    put(s3, **CUSTOMER)
    objects: Any = services.objects
    [[stored]] = objects._versions.values()
    kept = msgspec.msgpack.encode(stored.record)
    assert b"c" * 32 not in kept
    assert base64.b64encode(b"c" * 32) not in kept


def test_a_customers_key_in_the_clear_is_refused(s3: Any, keys: Keys) -> None:
    keys.over_plaintext = False
    assert refused(put, s3, **CUSTOMER)[:2] == (400, "InvalidRequest")
    assert "Contents" not in s3.list_objects_v2(Bucket=BUCKET)


def test_an_object_that_has_none_takes_no_customers_key(s3: Any) -> None:
    put(s3)
    assert refused(get, s3, **CUSTOMER)[:2] == (400, "InvalidRequest")
    put(s3, ServerSideEncryption="AES256")
    assert refused(get, s3, **CUSTOMER)[:2] == (400, "InvalidRequest")


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"x-amz-server-side-encryption": "AES128"}, "InvalidArgument"),
        ({"x-amz-server-side-encryption": "aws:kms:dsse"}, "NotImplemented"),
        ({"x-amz-server-side-encryption-aws-kms-key-id": "billing"}, "InvalidArgument"),
        (
            {
                "x-amz-server-side-encryption": "AES256",
                "x-amz-server-side-encryption-aws-kms-key-id": "billing",
            },
            "InvalidArgument",
        ),
        (
            {
                "x-amz-server-side-encryption": "aws:kms",
                "x-amz-server-side-encryption-aws-kms-key-id": "nobody",
            },
            "KMS.NotFoundException",
        ),
        (
            {"x-amz-server-side-encryption": "aws:kms", "x-amz-server-side-encryption-context": "no base64"},
            "InvalidArgument",
        ),
        ({"x-amz-server-side-encryption-customer-algorithm": "AES256"}, "InvalidArgument"),
        (
            {
                "x-amz-server-side-encryption-customer-algorithm": "AES256",
                "x-amz-server-side-encryption-customer-key": base64.b64encode(b"c" * 32).decode(),
            },
            "InvalidArgument",
        ),
        (
            {
                "x-amz-server-side-encryption-customer-algorithm": "AES256",
                "x-amz-server-side-encryption-customer-key": base64.b64encode(b"c" * 32).decode(),
                "x-amz-server-side-encryption-customer-key-md5": "AAAAAAAAAAAAAAAAAAAAAA==",
            },
            "InvalidArgument",
        ),
        (
            {
                "x-amz-server-side-encryption-customer-algorithm": "AES256",
                "x-amz-server-side-encryption-customer-key": base64.b64encode(b"c" * 16).decode(),
                "x-amz-server-side-encryption-customer-key-md5": "AAAAAAAAAAAAAAAAAAAAAA==",
            },
            "InvalidArgument",
        ),
        (
            {
                "x-amz-server-side-encryption": "AES256",
                "x-amz-server-side-encryption-customer-algorithm": "AES256",
                "x-amz-server-side-encryption-customer-key": base64.b64encode(b"c" * 32).decode(),
                "x-amz-server-side-encryption-customer-key-md5": base64.b64encode(
                    hashlib.md5(b"c" * 32).digest()
                ).decode(),
            },
            "InvalidArgument",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_and_nothing_stored(s3: Any, headers: dict[str, str], code: str) -> None:
    s3.meta.events.register("before-call.s3.PutObject", lambda params, **_: params["headers"].update(headers))
    _, found, message = refused(put, s3)
    assert found == code
    assert base64.b64encode(b"c" * 16).decode()[:10] not in message
    assert "Contents" not in s3.list_objects_v2(Bucket=BUCKET)


def test_reads_that_name_an_encryption_are_refused(s3: Any) -> None:
    put(s3, ServerSideEncryption="AES256")
    named = {"x-amz-server-side-encryption": "AES256"}
    for operation, call in (("GetObject", s3.get_object), ("HeadObject", s3.head_object)):
        s3.meta.events.register(f"before-call.s3.{operation}", lambda params, **_: params["headers"].update(named))
        assert refused(call, Bucket=BUCKET, Key="k")[0] == 400


def test_without_keys_it_is_not_implemented_rather_than_dropped(s3: Any, keys: Keys) -> None:
    keys.ring = KeyRing({})
    assert refused(put, s3, ServerSideEncryption="AES256")[:2] == (501, "NotImplemented")
    assert put(s3, **CUSTOMER)["SSECustomerAlgorithm"] == "AES256"


def test_a_pod_without_the_tenants_keys_leaves_it_to_another(s3: Any, keys: Keys) -> None:
    """As one that was started while their Secret was gone: 501 is an answer that no client repeats."""
    s3.put_bucket_encryption(Bucket=BUCKET, ServerSideEncryptionConfiguration={"Rules": [DEFAULT_RULE]})
    put(s3, key="sealed")
    put(s3, key="theirs", **CUSTOMER)
    s3.delete_bucket_encryption(Bucket=BUCKET)
    keys.ring, keys.awaited = KeyRing({}), True
    assert refused(put, s3, ServerSideEncryption="AES256")[:2] == (503, "ServiceUnavailable")
    assert refused(s3.create_multipart_upload, Bucket=BUCKET, Key="u", ServerSideEncryption="AES256")[0] == 503
    assert refused(get, s3, "sealed")[0] == 503
    of_source = {f"CopySource{name}": value for name, value in CUSTOMER.items()}
    source = {"Bucket": BUCKET, "Key": "theirs"}
    assert refused(s3.copy_object, Bucket=BUCKET, Key="c", CopySource=source, **of_source)[0] == 503, "not in the clear"
    put(s3, key="open")
    assert get(s3, "open") == b"content"


def test_a_copy_of_what_is_sealed_is_sealed_where_there_is_no_default_key_or_refused(s3: Any, keys: Keys) -> None:
    put(s3, key="billed", ServerSideEncryption="aws:kms", SSEKMSKeyId="billing")
    put(s3, key="theirs", **CUSTOMER)
    keys.ring = KeyRing({"billing": BILLING})
    copied = s3.copy_object(Bucket=BUCKET, Key="c", CopySource={"Bucket": BUCKET, "Key": "billed"})
    assert copied["ServerSideEncryption"] == "aws:kms"
    assert get(s3, "c") == b"content"
    of_source = {f"CopySource{name}": value for name, value in CUSTOMER.items()}
    source = {"Bucket": BUCKET, "Key": "theirs"}
    assert refused(s3.copy_object, Bucket=BUCKET, Key="d", CopySource=source, **of_source)[0] == 400
    assert refused(get, s3, "d")[0] == 404


# --- blocking customers' keys


def put_rule(s3: Any, rule: dict[str, Any]) -> None:
    s3.put_bucket_encryption(Bucket=BUCKET, ServerSideEncryptionConfiguration={"Rules": [rule]})


def rule_of(s3: Any) -> Any:
    [rule] = s3.get_bucket_encryption(Bucket=BUCKET)["ServerSideEncryptionConfiguration"]["Rules"]
    return rule


def blocking(blocked: str) -> dict[str, Any]:
    return {"BlockedEncryptionTypes": {"EncryptionType": [blocked]}}


DEFAULT_RULE = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}, "BucketKeyEnabled": False}


def test_a_bucket_takes_customers_keys_when_told_to(s3: Any) -> None:
    put_rule(s3, {**DEFAULT_RULE, **blocking("NONE")})
    assert rule_of(s3) == {**DEFAULT_RULE, **blocking("NONE")}
    assert put(s3, **CUSTOMER)["SSECustomerAlgorithm"] == "AES256"


def test_a_bucket_that_blocks_customers_keys_refuses_every_way_to_write_with_one(s3: Any) -> None:
    put(s3, key="before", **CUSTOMER)
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="parts", **CUSTOMER)["UploadId"]
    put_rule(s3, blocking("SSE-C"))
    named = {"Bucket": BUCKET, "Key": "k", **CUSTOMER}
    part = {"Bucket": BUCKET, "Key": "parts", "UploadId": upload, "PartNumber": 1, **CUSTOMER}
    for answer in (
        refused(put, s3, **CUSTOMER),
        refused(s3.create_multipart_upload, **named),
        refused(s3.upload_part, **part, Body=b"content"),
    ):
        assert answer[:2] == (403, "AccessDenied")
        assert "SSE-C" in answer[2]
    put(s3, key="plain")
    source = {"CopySource": {"Bucket": BUCKET, "Key": "plain"}}
    assert refused(s3.copy_object, **named, **source)[:2] == (403, "AccessDenied")
    assert refused(s3.upload_part_copy, **part, **source)[:2] == (403, "AccessDenied")
    put(s3, ServerSideEncryption="AES256")
    assert get(s3, "before", **CUSTOMER) == b"content"
    opened = {f"CopySource{name}": value for name, value in CUSTOMER.items()}
    s3.copy_object(Bucket=BUCKET, Key="copy", CopySource={"Bucket": BUCKET, "Key": "before"}, **opened)
    assert get(s3, "copy") == b"content"


def test_a_block_needs_no_keys_and_stays_until_it_is_lifted(s3: Any, keys: Keys) -> None:
    ring, keys.ring = keys.ring, KeyRing({})
    put_rule(s3, blocking("SSE-C"))
    assert rule_of(s3) == blocking("SSE-C")
    keys.ring = ring
    put_rule(s3, DEFAULT_RULE)
    assert rule_of(s3) == {**DEFAULT_RULE, **blocking("SSE-C")}
    put_rule(s3, {**DEFAULT_RULE, **blocking("NONE")})
    put(s3, **CUSTOMER)
    put_rule(s3, blocking("SSE-C"))
    s3.delete_bucket_encryption(Bucket=BUCKET)
    assert refused(s3.get_bucket_encryption, Bucket=BUCKET)[0] == 404
    put(s3, **CUSTOMER)


@pytest.mark.parametrize("types", [[], ["AES256"], ["NONE", "SSE-C"]])
def test_blocks_that_say_nothing_are_malformed(s3: Any, types: list[str]) -> None:
    rule = {**DEFAULT_RULE, "BlockedEncryptionTypes": {"EncryptionType": types}}
    assert refused(put_rule, s3, rule)[:2] == (400, "MalformedXML")


# --- keys that change


def test_new_objects_take_the_newest_key_and_old_ones_stay_readable(s3: Any, keys: Keys) -> None:
    put(s3, key="old", ServerSideEncryption="AES256")
    keys.ring = KeyRing({"default.1": ONE, "default.2": TWO})
    put(s3, key="new", ServerSideEncryption="AES256")
    assert get(s3, "old") == get(s3, "new") == b"content"
    keys.ring = KeyRing({"default.2": TWO})
    assert get(s3, "new") == b"content"
    status, _, message = refused(get, s3, "old")
    assert status == 503
    assert "'default.1'" in message
    assert s3.head_object(Bucket=BUCKET, Key="old")["ContentLength"] == 7
    keys.ring = KeyRing({"default.1": ONE, "default.2": TWO})
    assert get(s3, "old") == b"content"


def test_an_exchanged_key_is_noticed(s3: Any, keys: Keys) -> None:
    put(s3, ServerSideEncryption="AES256")
    keys.ring = KeyRing({"default.1": TWO})
    status, code, message = refused(get, s3)
    assert (status, code) == (500, "InternalError")
    assert "'default.1'" in message


def test_a_key_is_used_once_all_pods_have_it(s3: Any, keys: Keys) -> None:
    keys.ring = KeyRing({"default.1": ONE, "default.2": TWO})
    keys.elsewhere = {fingerprint("default.1", ONE)}.__contains__
    put(s3, ServerSideEncryption="AES256")
    keys.ring = KeyRing({"default.1": ONE})
    assert get(s3) == b"content"
    keys.elsewhere = lambda _: False
    assert refused(put, s3, ServerSideEncryption="AES256")[0] == 503


def test_no_pod_may_be_of_an_earlier_release_before_the_first_sealed_object(
    s3: Any, services: Services, keys: Keys
) -> None:
    def stored_format() -> int:
        objects: Any = services.objects
        return decode(objects._documents[f"bucket/{BUCKET}"].body).format

    keys.all_seal = False
    for more in ({"ServerSideEncryption": "AES256"}, CUSTOMER):
        assert refused(put, s3, **more)[0] == 503
    assert refused(set_default, s3)[0] == 503
    put(s3)
    assert stored_format() < SEALED_FORMAT
    keys.all_seal = True
    put(s3, ServerSideEncryption="AES256")
    assert stored_format() == SEALED_FORMAT > VERSIONED_FORMAT
    keys.all_seal = False
    put(s3, ServerSideEncryption="AES256")
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    assert stored_format() == SEALED_FORMAT


# --- a bucket's default


def test_a_bucket_is_said_to_be_encrypted_only_where_it_is(s3: Any) -> None:
    assert refused(s3.get_bucket_encryption, Bucket=BUCKET)[1] == "ServerSideEncryptionConfigurationNotFoundError"
    set_default(s3, "aws:kms", KMSMasterKeyID="billing")
    [rule] = s3.get_bucket_encryption(Bucket=BUCKET)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule == {
        "ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "billing"},
        "BucketKeyEnabled": False,
    }
    s3.delete_bucket_encryption(Bucket=BUCKET)
    assert refused(s3.get_bucket_encryption, Bucket=BUCKET)[1] == "ServerSideEncryptionConfigurationNotFoundError"
    assert "ServerSideEncryption" not in put(s3)


def test_the_default_is_for_who_asks_for_nothing(s3: Any) -> None:
    set_default(s3, "aws:kms", KMSMasterKeyID="billing")
    assert put(s3)["SSEKMSKeyId"] == "billing"
    assert put(s3, ServerSideEncryption="AES256")["ServerSideEncryption"] == "AES256"
    assert "ServerSideEncryption" not in put(s3, **CUSTOMER)


def test_a_default_with_a_key_that_is_not_there_is_refused(s3: Any) -> None:
    assert refused(set_default, s3, "aws:kms", KMSMasterKeyID="nobody")[1] == "KMS.NotFoundException"
    assert refused(set_default, s3, "AES256", KMSMasterKeyID="billing")[1] == "InvalidArgument"
    assert refused(set_default, s3, "rot13")[1] == "MalformedXML"


# --- copies


def test_copies_are_sealed_anew(s3: Any, keys: Keys) -> None:
    put(s3, b"A" * 200_000, ServerSideEncryption="AES256")
    source = {"Bucket": BUCKET, "Key": "k"}
    copied = s3.copy_object(Bucket=BUCKET, Key="c", CopySource=source, **CUSTOMER)
    assert copied["SSECustomerAlgorithm"] == "AES256"
    assert get(s3, "c", **CUSTOMER) == b"A" * 200_000
    back = {f"CopySource{name}": value for name, value in CUSTOMER.items()}
    again = s3.copy_object(
        Bucket=BUCKET, Key="d", CopySource={"Bucket": BUCKET, "Key": "c"}, ServerSideEncryption="aws:kms", **back
    )
    assert again["SSEKMSKeyId"] == "default"
    assert get(s3, "d") == b"A" * 200_000


def test_a_copys_source_needs_its_key(s3: Any) -> None:
    put(s3, **CUSTOMER)
    source = {"Bucket": BUCKET, "Key": "k"}
    assert refused(s3.copy_object, Bucket=BUCKET, Key="c", CopySource=source)[0] == 400
    wrong = {f"CopySource{name}": value for name, value in OTHER_CUSTOMER.items()}
    assert refused(s3.copy_object, Bucket=BUCKET, Key="c", CopySource=source, **wrong)[0] == 400


def test_a_copy_of_what_is_sealed_is_sealed_without_being_asked_for(s3: Any) -> None:
    put(s3, ServerSideEncryption="aws:kms", SSEKMSKeyId="billing")
    copied = s3.copy_object(Bucket=BUCKET, Key="c", CopySource={"Bucket": BUCKET, "Key": "k"})
    assert copied["ServerSideEncryption"] == "AES256"
    put(s3, key="open")
    copied = s3.copy_object(Bucket=BUCKET, Key="c", CopySource={"Bucket": BUCKET, "Key": "open"})
    assert "ServerSideEncryption" not in copied


def test_a_copy_onto_itself_may_take_a_customers_key_away(s3: Any) -> None:
    put(s3, **CUSTOMER)
    of_source = {f"CopySource{name}": value for name, value in CUSTOMER.items()}
    itself = {"Bucket": BUCKET, "Key": "k", "CopySource": {"Bucket": BUCKET, "Key": "k"}}
    s3.copy_object(**itself, **OTHER_CUSTOMER, **of_source)
    assert get(s3, **OTHER_CUSTOMER) == b"content"
    of_source = {f"CopySource{name}": value for name, value in OTHER_CUSTOMER.items()}
    s3.copy_object(**itself, **of_source)
    assert get(s3) == b"content"


def test_a_copy_onto_itself_may_change_its_encryption(s3: Any) -> None:
    put(s3)
    itself = {"Bucket": BUCKET, "Key": "k", "CopySource": {"Bucket": BUCKET, "Key": "k"}}
    assert refused(s3.copy_object, **itself)[1] == "InvalidRequest"
    s3.copy_object(**itself, ServerSideEncryption="AES256")
    assert s3.head_object(Bucket=BUCKET, Key="k")["ServerSideEncryption"] == "AES256"
    assert get(s3) == b"content"


# --- uploads


def upload(s3: Any, begin: dict[str, Any], part: dict[str, Any]) -> Any:
    made = s3.create_multipart_upload(Bucket=BUCKET, Key="m", **begin)
    named = {"Bucket": BUCKET, "Key": "m", "UploadId": made["UploadId"]}
    parts = []
    for number, body in ((1, b"a" * PART), (3, b"b" * 1000)):
        sent = s3.upload_part(**named, PartNumber=number, Body=body, **part)
        parts.append({"PartNumber": number, "ETag": sent["ETag"]})
    s3.upload_part_copy(**named, PartNumber=5, CopySource={"Bucket": BUCKET, "Key": "k"}, **part)
    [*_, last] = s3.list_parts(**named)["Parts"]
    parts.append({"PartNumber": 5, "ETag": last["ETag"]})
    # Parts but for the last must not be so small.
    parts.pop(1)
    return s3.complete_multipart_upload(**named, MultipartUpload={"Parts": parts})


@pytest.mark.parametrize(
    ("begin", "part", "shown"),
    [
        ({"ServerSideEncryption": "AES256"}, {}, "AES256"),
        ({"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "billing"}, {}, "aws:kms"),
        (CUSTOMER, CUSTOMER, None),
    ],
)
def test_uploads_are_sealed_part_by_part(
    s3: Any, begin: dict[str, Any], part: dict[str, Any], shown: str | None
) -> None:
    put(s3, ServerSideEncryption="AES256")
    made = upload(s3, begin, part)
    assert made.get("ServerSideEncryption") == shown
    assert get(s3, "m", **part) == b"a" * PART + b"content"
    assert get(s3, "m", Range=f"bytes={PART - 2}-{PART + 3}", **part) == b"aacont"
    assert get(s3, "m", PartNumber=5, **part) == b"content"


def test_parts_need_the_key_the_upload_was_begun_with(s3: Any) -> None:
    named = {"Bucket": BUCKET, "Key": "m"}
    named["UploadId"] = s3.create_multipart_upload(**named, **CUSTOMER)["UploadId"]
    assert refused(s3.upload_part, **named, PartNumber=1, Body=b"x")[:2] == (400, "InvalidRequest")
    assert refused(s3.upload_part, **named, PartNumber=1, Body=b"x", **OTHER_CUSTOMER)[:2] == (400, "InvalidRequest")
    assert "Parts" not in s3.list_parts(**named)


def test_completing_with_another_key_is_refused(s3: Any) -> None:
    named = {"Bucket": BUCKET, "Key": "m"}
    named["UploadId"] = s3.create_multipart_upload(**named, **CUSTOMER)["UploadId"]
    etag = s3.upload_part(**named, PartNumber=1, Body=b"x", **CUSTOMER)["ETag"]
    parts = {"Parts": [{"PartNumber": 1, "ETag": etag}]}
    assert refused(s3.complete_multipart_upload, **named, MultipartUpload=parts, **OTHER_CUSTOMER)[0] == 400
    s3.complete_multipart_upload(**named, MultipartUpload=parts, **CUSTOMER)
    assert get(s3, "m", **CUSTOMER) == b"x"


def test_an_upload_by_default_is_sealed_by_default(s3: Any) -> None:
    set_default(s3)
    put(s3)
    assert upload(s3, {}, {})["ServerSideEncryption"] == "AES256"
    assert get(s3, "m") == b"a" * PART + b"content"
