"""One line per request, with what an auditor asks for and without anything that opens a door."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
import requests
from botocore.config import Config

from holdfast_server.audit.log import AuditLog
from holdfast_server.testing.boto import client_of
from holdfast_server.testing.memory_services import ROOT_PASSWORD, ROOT_USER, Endpoint, memory_services, served

WAIT_SECONDS = 60.0
SSE_KEY = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3I="


class KeptLines(AuditLog):
    """Keeps what is offered."""

    def __init__(self) -> None:
        super().__init__()
        self.active = True
        self.raw: list[bytes] = []

    def offer(self, line: bytes) -> None:
        self.raw.append(line)

    def wait_for(self, count: int) -> list[dict[str, Any]]:
        """A line is made when its answer has been sent: the client may be a moment ahead."""
        deadline = time.monotonic() + WAIT_SECONDS
        while len(self.raw) < count and time.monotonic() < deadline:
            time.sleep(0.005)
        lines = [json.loads(line) for line in self.raw]
        assert len(lines) == count, lines
        return lines


@pytest.fixture
def kept() -> KeptLines:
    return KeptLines()


@pytest.fixture
def audited(kept: KeptLines) -> Iterator[Endpoint]:
    with served(dataclasses.replace(memory_services(), audit=kept)) as endpoint:
        yield endpoint


def test_who_asked_for_what_and_what_became_of_it(audited: Endpoint, kept: KeptLines, make_wire: Any) -> None:
    with make_wire(audited) as wire:
        wire.ask("PUT", "/bucket")
        answer = wire.ask("PUT", "/bucket/a%3Ab", b"0123456789", {"user-agent": "tester/1"})
        wire.ask("GET", "/bucket/a%3Ab", query="versionId=null&x-id=GetObject")
        wire.ask("GET", "/bucket/none")
        wire.ask("HEAD", "/bucket/a%3Ab")
        wire.ask("PUT", "/bucket/copy", headers={"x-amz-copy-source": "/bucket/a%3Ab"})
    _, put, get, missing, head, copy = kept.wait_for(6)
    assert {key: put[key] for key in ("type", "account", "accessKey", "method", "operation", "bucket", "key")} == {
        "type": "audit",
        "account": "root",
        "accessKey": ROOT_USER,
        "method": "PUT",
        "operation": "PutObject",
        "bucket": "bucket",
        "key": "a:b",
    }
    assert (put["status"], put["error"], put["receivedBytes"], put["sentBytes"]) == (200, "", 10, 0)
    assert put["requestId"] == answer.headers["x-amz-request-id"]
    assert (put["remote"], put["userAgent"], put["secure"], put["cut"]) == ("127.0.0.1", "tester/1", False, False)
    assert put["time"].endswith("Z")
    assert 0 < put["durationMs"] < 60_000
    assert (get["sentBytes"], get["parameters"]) == (10, {"versionId": "null"})
    assert (missing["status"], missing["error"], missing["operation"]) == (404, "NoSuchKey", "GetObject")
    assert (head["operation"], head["sentBytes"]) == ("HeadObject", 0)
    assert (copy["operation"], copy["source"]) == ("CopyObject", "/bucket/a%3Ab")


def test_a_signature_that_does_not_hold_proves_no_account(audited: Endpoint, kept: KeptLines, make_wire: Any) -> None:
    with make_wire(audited) as wire:
        wire.ask("GET", "/bucket/key", secret_key="wrong-wrong-wrong")
        wire.ask("GET", "/bucket/key", access_key="NOBODY")
        wire.send(b"GET /bucket/key HTTP/1.1\r\nhost: x\r\n\r\n")
        wire.read()
        wire.send(b"GET /%zz HTTP/1.1\r\nhost: x\r\n\r\n")
        wire.read()
    forged, unknown, anonymous, broken = kept.wait_for(4)
    assert (forged["accessKey"], forged["account"], forged["error"]) == (ROOT_USER, "", "SignatureDoesNotMatch")
    assert (forged["bucket"], forged["key"], forged["operation"]) == ("bucket", "key", "unknown")
    assert (unknown["accessKey"], unknown["account"], unknown["error"]) == ("NOBODY", "", "InvalidAccessKeyId")
    assert (anonymous["accessKey"], anonymous["account"], anonymous["status"]) == ("", "anonymous", 404)
    assert (broken["error"], broken["bucket"], broken["key"]) == ("InvalidURI", "", "/%zz")


def test_requests_of_the_admin_api_are_told_too(audited: Endpoint, kept: KeptLines, make_wire: Any) -> None:
    with make_wire(audited) as wire:
        wire.ask("PUT", "/holdfast/admin/v1/users/someone", b'{"secretKey": "short"}')
        wire.ask("GET", "/holdfast/admin/v1/policies")
    refused, listed = kept.wait_for(2)
    assert (refused["operation"], refused["account"], refused["status"]) == ("Admin", "root", 400)
    assert (refused["error"], refused["key"], refused["bucket"]) == ("InvalidArgument", "/users/someone", "")
    assert (listed["status"], listed["error"]) == (200, "")


def test_no_line_holds_a_secret(audited: Endpoint, kept: KeptLines, make_wire: Any) -> None:
    client = boto3.client(
        "s3",
        endpoint_url=audited.url,
        aws_access_key_id=ROOT_USER,
        aws_secret_access_key=ROOT_PASSWORD,
        region_name="us-east-1",
        config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
    )
    presigned = client.generate_presigned_url("get_object", Params={"Bucket": "bucket", "Key": "key"})
    path, _, query = presigned.removeprefix(audited.url).partition("?")
    signature = query.partition("X-Amz-Signature=")[2]
    assert len(signature) == 64
    with make_wire(audited) as wire:
        wire.ask("PUT", "/bucket")
        for target in (f"{path}?{query}", f"{path}?{query}0", f"{path}?AWSAccessKeyId=KEY&Signature=c2ln&Expires=1"):
            wire.send(f"GET {target} HTTP/1.1\r\nhost: 127.0.0.1:{audited.port}\r\n\r\n".encode())
            wire.read()
        signed = wire.head("GET", "/bucket/key", {"x-amz-server-side-encryption-customer-key": SSE_KEY})
        wire.send(signed)
        wire.read()
        wire.send(b"GET /bucket/key HTTP/1.1\r\nhost: x\r\nauthorization: AWS KEY2:c2lnbmF0dXJl\r\n\r\n")
        wire.read()
        wire.send(b"GET /b/k?X-Amz-Security-Token=tokentoken HTTP/1.1\r\nhost: x\r\nx-amz-security-token: tok\r\n\r\n")
        wire.read()
    lines = kept.wait_for(7)
    in_header = signed.decode().partition("Signature=")[2][:64]
    text = b"".join(kept.raw).decode()
    for secret in (signature, in_header, SSE_KEY, ROOT_PASSWORD, "c2ln", "tokentoken", '"tok"', "X-Amz"):
        assert secret not in text
    assert [line["accessKey"] for line in lines[1:4]] == [ROOT_USER, ROOT_USER, "KEY"]
    assert lines[5]["accessKey"] == "KEY2"


def test_what_a_client_chooses_forges_no_line_and_is_bounded(
    audited: Endpoint, kept: KeptLines, make_wire: Any
) -> None:
    with make_wire(audited) as wire:
        agent = 'x"}{"type":"audit' + "y" * 4000
        wire.ask("GET", "/bucket/" + "%0A" * 1000, headers={"user-agent": agent})
        wire.send(b"GET /bucket/k HTTP/1.1\r\nhost: x\r\nuser-agent: \xff\xfe\r\n\r\n")
        wire.read()
    long, strange = kept.wait_for(2)
    assert all(line.count(b"\n") == 1 and len(line) < 8192 for line in kept.raw)
    assert long["key"] == "\n" * 1000
    assert len(long["userAgent"]) == 256
    assert strange["userAgent"] == "??"


def test_probes_make_no_lines_and_switched_off_nothing_does(kept: KeptLines, make_wire: Any) -> None:
    kept.active = False
    with served(dataclasses.replace(memory_services(), audit=kept)) as endpoint, make_wire(endpoint) as wire:
        wire.ask("PUT", "/bucket")
        kept.active = True
        for path in ("/health/live", "/metrics", "/minio/health/cluster"):
            wire.send(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
            wire.read()
        wire.ask("GET", "/bucket/k")
    assert [line["operation"] for line in kept.wait_for(1)] == ["GetObject"]


def test_a_form_is_told_with_who_signed_it_and_its_key(audited: Endpoint, kept: KeptLines, make_wire: Any) -> None:
    with make_wire(audited) as wire:
        wire.ask("PUT", "/bucket")
    for secret_key in (audited.secret_key, "another-secret-key"):
        client = client_of(audited, audited.access_key, secret_key, signature_version="s3v4")
        form = client.generate_presigned_post("bucket", "a/${filename}")
        requests.post(form["url"], data=form["fields"], files={"file": ("name", b"x")}, timeout=30)
    _, stored, forged = kept.wait_for(3)
    assert (stored["operation"], stored["bucket"], stored["key"], stored["status"]) == (
        "PostObject", "bucket", "a/name", 204,
    )  # fmt: skip
    assert (stored["accessKey"], stored["account"]) == (ROOT_USER, "root")
    assert (forged["key"], forged["error"]) == ("a/name", "SignatureDoesNotMatch")
    assert (forged["accessKey"], forged["account"]) == (ROOT_USER, "")
