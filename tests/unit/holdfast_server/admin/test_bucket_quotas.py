"""`holdfast admin bucket`: quotas are set, shown, in force and cleared; usage is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from holdfast_server.admin import bucket_commands
from holdfast_server.admin.bucket_commands import parse_size
from holdfast_server.admin.tables import _usage_text
from holdfast_server.api.services import Services
from holdfast_server.contract.buckets import BucketInfo, TenantUsage
from holdfast_server.contract.healing import BucketUsage
from holdfast_server.main import run
from holdfast_server.testing.boto import client_of
from holdfast_server.testing.memory_services import ROOT_PASSWORD, ROOT_USER, Endpoint, memory_services, served


@pytest.fixture
def services() -> Services:
    return memory_services(meter=True)


@pytest.fixture
def endpoint(services: Services) -> Iterator[Endpoint]:
    with served(services) as found:
        yield found


@pytest.fixture
def s3(endpoint: Endpoint) -> Any:
    client = client_of(endpoint, attempts=2)
    client.create_bucket(Bucket="some-bucket")
    return client


def admin(endpoint: Endpoint, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    environment = {
        "AWS_ENDPOINT_URL_S3": endpoint.url,
        "AWS_ACCESS_KEY_ID": ROOT_USER,
        "AWS_SECRET_ACCESS_KEY": ROOT_PASSWORD,
    }
    code = run(["admin", *arguments], environment)
    told = capsys.readouterr()
    return code, told.out, told.err


async def bucket_id(services: Services) -> bytes:
    return (await services.buckets.get("some-bucket")).id


async def test_a_quota_is_set_shown_in_force_and_cleared(
    s3: Any, endpoint: Endpoint, services: Services, capsys: pytest.CaptureFixture[str]
) -> None:
    assert admin(endpoint, capsys, "bucket", "quota", "some-bucket") == (0, "some-bucket: none\n", "")
    code, out, _ = admin(endpoint, capsys, "bucket", "quota", "some-bucket", "--size", "1Ki", "--objects", "2")
    assert (code, out) == (0, "some-bucket: 1.0 KiB, 2 objects\n")
    empty = BucketUsage(bucket_id=(await bucket_id(services)).hex(), objects=0, size_bytes=0)
    services.quotas.counted("", empty, services.clock.now_ms())
    s3.put_object(Bucket="some-bucket", Key="a", Body=b"x" * 1000)
    with pytest.raises(ClientError, match="QuotaExceeded"):
        s3.put_object(Bucket="some-bucket", Key="b", Body=b"x" * 100)
    code, out, _ = admin(endpoint, capsys, "bucket", "list", "--json")
    (told,) = json.loads(out)
    assert (told["name"], told["versions"], told["sizeBytes"]) == ("some-bucket", 1, 1000)
    assert told["quota"] == {"sizeBytes": 1024, "objects": 2}
    _, out, _ = admin(endpoint, capsys, "bucket", "list")
    assert "1.0 KiB, 2 objects" in out
    assert admin(endpoint, capsys, "bucket", "quota", "some-bucket", "--clear")[1] == "some-bucket: none\n"
    s3.put_object(Bucket="some-bucket", Key="b", Body=b"x" * 100)
    _, out, _ = admin(endpoint, capsys, "info")
    assert "1 bucket with" in out


@pytest.mark.parametrize("given", [("--size", "0"), ("--objects", "0"), ("--objects", "-1")])
def test_a_quota_of_nothing_is_refused(
    s3: Any, endpoint: Endpoint, capsys: pytest.CaptureFixture[str], given: tuple[str, str]
) -> None:
    code, _, errors = admin(endpoint, capsys, "bucket", "quota", "some-bucket", *given)
    assert (code, "InvalidArgument" in errors) == (1, True)


def test_a_bucket_that_is_not_there_has_no_quota(endpoint: Endpoint, capsys: pytest.CaptureFixture[str]) -> None:
    for more in ([], ["--size", "1Gi"], ["--clear"]):
        code, _, errors = admin(endpoint, capsys, "bucket", "quota", "none-such", *more)
        assert (code, "NoSuchBucket" in errors) == (1, True)


def test_sizes_are_read_as_people_write_them() -> None:
    assert [parse_size(text) for text in ("7", "2k", "10Gi", "3TiB")] == [7, 2000, 10 << 30, 3 << 40]
    for text in ("", "-1", "1.5G", "10gi", "Gi"):
        with pytest.raises(Exception, match="is no size"):
            parse_size(text)


def test_a_bucket_that_was_not_counted_yet_is_not_listed_as_empty(capsys: pytest.CaptureFixture[str]) -> None:
    buckets = [BucketInfo(name="full"), BucketInfo(name="counted", counted_ms=1_000)]
    client = SimpleNamespace(buckets=lambda: buckets, now_ms=lambda: 11_000)
    terminal = SimpleNamespace(client=client, options=SimpleNamespace(json=False), say=print)
    assert bucket_commands._list(terminal) == 0
    _, uncounted, counted = capsys.readouterr().out.splitlines()
    assert uncounted.split() == ["full", "-", "-", "-", "none", "not", "yet"]
    assert counted.split()[:3] == ["counted", "0", "0"]


def test_a_tenant_s_sum_says_what_it_does_not_say(
    s3: Any, endpoint: Endpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    s3.create_bucket(Bucket="other-bucket")
    code, out, _ = admin(endpoint, capsys, "info")
    assert code == 0
    assert "2 buckets, not counted yet" in out


@pytest.mark.parametrize(
    ("usage", "told"),
    [
        (TenantUsage(known=False), "what buckets hold cannot be told now"),
        (TenantUsage(), "0 buckets with 0 objects (0 versions), 0 B, as last counted"),
        (TenantUsage(buckets=2, uncounted=2), "2 buckets, not counted yet"),
        (
            TenantUsage(buckets=3, uncounted=1, objects=1, versions=2, size_bytes=1024),
            "3 buckets with 1 object (2 versions), 1.0 KiB, as last counted; 1 of the buckets not yet",
        ),
    ],
)
def test_sums_are_told_with_what_they_leave_out(usage: TenantUsage, told: str) -> None:
    assert _usage_text(usage) == told
