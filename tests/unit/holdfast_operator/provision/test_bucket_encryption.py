"""A declared default encryption, as S3 takes and shows it."""

from __future__ import annotations

import pytest

from holdfast_operator.provision.bucket_settings import ABSENT_CODES, ENCRYPTION, same, settings_of
from holdfast_operator.tenant.spec import BucketEncryptionSpec, BucketSpec
from holdfast_server.s3.encryption import EncryptionRule, bucket_encryption_xml, parse_bucket_encryption


@pytest.mark.parametrize(
    "declared", [BucketEncryptionSpec("AES256"), BucketEncryptionSpec("aws:kms"), BucketEncryptionSpec("aws:kms", "k")]
)
def test_what_the_store_shows_of_it_is_what_was_put(declared: BucketEncryptionSpec) -> None:
    put = settings_of(BucketSpec("b", encryption=declared))[ENCRYPTION]
    assert put is not None
    assert same(ENCRYPTION, put, bucket_encryption_xml(parse_bucket_encryption(put)))


@pytest.mark.parametrize("blocked", ["SSE-C", "NONE"])
def test_what_clients_have_blocked_is_left_alone(blocked: str) -> None:
    types = f"<BlockedEncryptionTypes><EncryptionType>{blocked}</EncryptionType></BlockedEncryptionTypes>"
    put = settings_of(BucketSpec("b", encryption=BucketEncryptionSpec("AES256")))[ENCRYPTION]
    assert put is not None
    with_blocks = parse_bucket_encryption(put.replace(b"</Rule>", f"{types}</Rule>".encode()))
    assert with_blocks.blocked == blocked
    assert same(ENCRYPTION, put, bucket_encryption_xml(with_blocks))
    blocks_alone = bucket_encryption_xml(EncryptionRule(None, blocked))
    assert same(ENCRYPTION, None, blocks_alone)
    assert not same(ENCRYPTION, put, blocks_alone)
    assert not same(ENCRYPTION, None, bucket_encryption_xml(with_blocks))


def test_another_default_is_put_right() -> None:
    put = settings_of(BucketSpec("b", encryption=BucketEncryptionSpec("AES256")))[ENCRYPTION]
    other = settings_of(BucketSpec("b", encryption=BucketEncryptionSpec("aws:kms", "k")))[ENCRYPTION]
    assert not same(ENCRYPTION, put, other)
    assert not same(ENCRYPTION, put, None)


def test_none_takes_it_away_and_absent_leaves_it_alone() -> None:
    assert settings_of(BucketSpec("b", encryption=BucketEncryptionSpec("None")))[ENCRYPTION] is None
    assert ENCRYPTION not in settings_of(BucketSpec("b"))
    assert "ServerSideEncryptionConfigurationNotFoundError" in ABSENT_CODES
