"""Pods of this release beside pods of a next one: rolled one by one there and back, and no request fails.  Beside pods
of a former one, which cannot read all of what this one writes: that is refused there, and lost nowhere.

Both are made up.  The next release (`testing.upgrades.next_server`) speaks a newer protocol, appends fields to all that
it says and writes, and asks what this release does not know.  The former one (`testing.upgrades.former_server`) knows
nothing of encryption, object lock and the IAM API.  A real one is rolled from, and back to, where there is a checkout:

    HOLDFAST_FORMER_TREE=/path/to/a/checkout pytest tests/blackbox/test_upgrade.py -k real_former -s
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from holdfast_server.testing.boto import client_of, endpoint_of
from holdfast_server.testing.faults.s3_session import S3Session
from holdfast_server.testing.faults.soak import Machinery, Soak
from holdfast_server.testing.pods import PodProcesses
from holdfast_server.testing.repeating import Repeating
from holdfast_server.testing.upgrades import former_server, next_server

TODAY = ("-m", "holdfast_server.main")
SIZES_BYTES = (10, 5_000, 200_000, 2_500_000)
BUCKET = "rolled"
FORMER = os.environ.get("HOLDFAST_FORMER_TREE", "")


class Traffic(Repeating):
    """One client per pod that is up, with an SDK's retries; remembers what was acknowledged."""

    def __init__(self, pods: PodProcesses) -> None:
        super().__init__()
        self._clients = {
            pod: client_of(endpoint_of(pods, pod), attempts=9, connect_timeout=5) for pod in range(pods.servers)
        }
        self.up = set(self._clients)
        self.acknowledged: dict[str, int] = {}
        self.operations = 0

    def client(self, number: int) -> Any:
        up = sorted(self.up)
        return self._clients[up[number % len(up)]]

    def step(self, number: int) -> None:
        """Write through one pod, read back through another, now and then list."""
        key = f"k/{number % 30}"
        self.client(number).put_object(Bucket=BUCKET, Key=key, Body=body(key, number))
        self.acknowledged[key] = number
        self.check(key, number + 1)
        self.operations += 2
        if number % 10 == 0:
            listed = self.client(number + 2).list_objects_v2(Bucket=BUCKET)["Contents"]
            assert {entry["Key"] for entry in listed} == set(self.acknowledged)

    async def goes_on(self) -> None:
        """Returns after some operations that began after this was called."""
        wanted = self.operations + 8
        while self.operations < wanted and not self.failures:
            await asyncio.sleep(0.05)

    def check(self, key: str, through: int) -> None:
        version = self.acknowledged[key]
        assert self.client(through).get_object(Bucket=BUCKET, Key=key)["Body"].read() == body(key, version), key


def body(key: str, version: int) -> bytes:
    size = SIZES_BYTES[version % len(SIZES_BYTES)]
    return (f"{key} {version} ".encode() * size)[:size]


async def test_pods_are_rolled_to_a_next_release_and_back_under_traffic(tmp_path: Path) -> None:
    pods = PodProcesses(tmp_path / "tenant", servers=3, parity=1)
    try:
        await pods.start_all()
        traffic = Traffic(pods)
        traffic.client(0).create_bucket(Bucket=BUCKET)
        with traffic.running():
            for entry, name in ((next_server.ENTRY, "next"), (TODAY, "today")):
                pods.entry = entry
                for pod in range(pods.servers):
                    traffic.up.discard(pod)
                    await traffic.goes_on()  # a Service, too, sends a pod nothing more before it ends
                    await asyncio.to_thread(pods.stop_one, pod)
                    pods.start(pod)
                    await pods.wait_ready(pod)
                    await pods.wait_whole()
                    traffic.up.add(pod)
                    await traffic.goes_on()
                if name == "next":
                    await asyncio.to_thread(mixed_bucket, traffic)
                    assert all(has_news(pods.drive_path(pod)) for pod in range(pods.servers)), "it wrote as today's"
        assert not traffic.failures
        for key, pod in itertools.product(traffic.acknowledged, range(pods.servers)):
            await asyncio.to_thread(traffic.check, key, pod)
    finally:
        pods.stop()


@pytest.mark.timeout(3600)
@pytest.mark.skipif(not FORMER, reason="HOLDFAST_FORMER_TREE names a checkout of a former release")
async def test_pods_are_rolled_from_a_real_former_release_and_back(tmp_path: Path) -> None:
    """Under the soak's traffic but for what a former release cannot do, a pod killed in each state on the way; at the
    end everything is read back and the drives are inspected."""
    today = str(Path(__file__).parents[2])
    trees = dict.fromkeys(range(4), FORMER)
    pods = PodProcesses(tmp_path / "pods", servers=4, volumes=1, encryption_keys={"default.1": "5e" * 32})
    pods.pod_environment = lambda pod: {"PYTHONPATH": f"{trees[pod]}/server:{trees[pod]}/operator"}
    try:
        await pods.start_all()
        async with S3Session(pods.access_key, pods.secret_key) as session:
            soak = Soak(pods, session, 4, Machinery())
            soak.traffic.mix = dataclasses.replace(soak.traffic.mix, reduced=0.0)
            async with soak.under_traffic():
                for tree, pod in itertools.product((today, FORMER), range(4)):
                    trees[pod] = tree
                    await soak.roll(pod)
                    await soak.kill((pod + 1) % 4)
            print(f"\n{soak.report.table()}")
            assert soak.report.failed_operations == 0
    finally:
        pods.stop()


def has_news(drive: Path) -> bool:
    """Whether what the next release appends is in the drive's table."""
    return any(next_server.NEWS.encode() in path.read_bytes() for path in (drive / "records").glob("*.log"))


def mixed_bucket(traffic: Traffic) -> None:
    """What the next release makes of buckets and uploads is there for today's when it is rolled back."""
    client = traffic.client(0)
    client.create_bucket(Bucket="of-next")
    upload = client.create_multipart_upload(Bucket=BUCKET, Key="k/0")["UploadId"]
    part = client.upload_part(Bucket=BUCKET, Key="k/0", UploadId=upload, PartNumber=1, Body=b"part")
    client.abort_multipart_upload(Bucket=BUCKET, Key="k/0", UploadId=upload)
    assert part["ETag"]
    assert {bucket["Name"] for bucket in traffic.client(1).list_buckets()["Buckets"]} == {BUCKET, "of-next"}


SEALED = {f"sealed/{size}": b"what is sealed " * size for size in (1, 20_000, 150_000)}
DENIED = {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "s3:DeleteObject", "Resource": "*"}]}
REFUSED = (503, "ServiceUnavailable")


class Mixed:
    """Three pods, of which the first is of this release or of the former one."""

    def __init__(self, directory: Path) -> None:
        self.pods = PodProcesses(directory, servers=3, parity=1, encryption_keys={"default.1": "5e" * 32})
        self.ann: tuple[str, str] = ("", "")

    def client(self, pod: int, *keys: str, service: str = "s3", attempts: int = 1) -> Any:
        access_key, secret_key = keys or (self.pods.access_key, self.pods.secret_key)
        return client_of(endpoint_of(self.pods, pod), access_key, secret_key, service=service, attempts=attempts)

    async def roll_first(self, entry: tuple[str, ...], meanwhile: Callable[[], object] = lambda: None) -> None:
        await asyncio.to_thread(self.pods.stop_one, 0)
        await asyncio.to_thread(meanwhile)
        self.pods.entry = entry
        self.pods.start(0)
        await self.pods.wait_ready(0)
        await self.pods.wait_whole()

    # --- what is asked

    def nothing_begins_that_the_former_cannot_read(self) -> None:
        client = self.client(1)
        client.create_bucket(Bucket="secrets")
        seal = {"Bucket": "secrets", "Key": "k", "Body": b"x", "ServerSideEncryption": "AES256"}
        assert outcome(client.put_object, **seal) == REFUSED
        assert outcome(client.create_bucket, Bucket="ledger", ObjectLockEnabledForBucket=True) == REFUSED
        assert outcome(self.client(1, service="iam").create_user, UserName="ann") == REFUSED

    def fill(self) -> None:
        iam, client = self.client(2, service="iam", attempts=9), self.client(1, attempts=9)
        iam.create_user(UserName="ann")
        made = iam.create_access_key(UserName="ann")["AccessKey"]
        self.ann = made["AccessKeyId"], made["SecretAccessKey"]
        iam.attach_user_policy(UserName="ann", PolicyArn="arn:aws:iam::aws:policy/readwrite")
        iam.put_user_policy(UserName="ann", PolicyName="no", PolicyDocument=json.dumps(DENIED))
        iam.create_group(GroupName="staff")
        iam.add_user_to_group(GroupName="staff", UserName="ann")
        for key, body in SEALED.items():
            client.put_object(Bucket="secrets", Key=key, Body=body, ServerSideEncryption="AES256")
        client.create_bucket(Bucket="open")
        client.put_object(Bucket="open", Key="k", Body=b"for all")
        client.create_bucket(Bucket="ledger", ObjectLockEnabledForBucket=True)
        client.put_object(Bucket="ledger", Key="k", Body=b"kept", ObjectLockLegalHoldStatus="ON")

    def seal_more(self) -> None:
        """What the former pod finds missing on its drive, and brings there itself."""
        for key, body in SEALED.items():
            self.client(1, attempts=9).put_object(
                Bucket="secrets", Key=f"missed/{key}", Body=body, ServerSideEncryption="AES256"
            )

    def the_former_refuses_and_serves_the_rest(self) -> None:
        client, version = self.client(0), self.locked()
        for key in (*SEALED, *(f"missed/{key}" for key in SEALED)):
            assert outcome(client.get_object, Bucket="secrets", Key=key) == REFUSED
        assert outcome(client.list_objects_v2, Bucket="secrets") == REFUSED
        assert outcome(client.put_object, Bucket="secrets", Key="k", Body=b"x") == REFUSED
        assert outcome(client.copy_object, Bucket="open", Key="c", CopySource="secrets/sealed/1") == REFUSED
        assert outcome(client.delete_object, Bucket="ledger", Key="k", VersionId=version) == REFUSED
        assert outcome(client.delete_bucket, Bucket="secrets") == REFUSED
        found = [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]
        assert found == ["ledger", "open", "secrets"], "a bucket that is refused hides no other"
        assert client.get_object(Bucket="open", Key="k")["Body"].read() == b"for all"
        client.put_object(Bucket="open", Key="of the former", Body=b"x")
        # It is blind to the Deny, so it must not know the key at all.
        assert outcome(self.client(0, *self.ann).get_object, Bucket="open", Key="k") == (403, "InvalidAccessKeyId")

    def locked(self) -> str:
        return str(self.client(1).head_object(Bucket="ledger", Key="k")["VersionId"])

    def all_is_there(self, pod: int) -> None:
        client, ann = self.client(pod, attempts=9), self.client(pod, *self.ann, attempts=9)
        iam = self.client(pod, service="iam", attempts=9)
        for key, body in SEALED.items():
            for one in (key, f"missed/{key}"):
                found = client.get_object(Bucket="secrets", Key=one)
                assert (found["ServerSideEncryption"], found["Body"].read()) == ("AES256", body)
        version = client.head_object(Bucket="ledger", Key="k")["VersionId"]
        assert outcome(client.delete_object, Bucket="ledger", Key="k", VersionId=version) == (403, "AccessDenied")
        assert ann.get_object(Bucket="open", Key="of the former")["Body"].read() == b"x"
        assert outcome(ann.delete_object, Bucket="open", Key="k") == (403, "AccessDenied")
        assert [user["UserName"] for user in iam.get_group(GroupName="staff")["Users"]] == ["ann"]
        assert iam.get_user_policy(UserName="ann", PolicyName="no")["PolicyDocument"] == DENIED


def outcome(call: Callable[..., Any], **arguments: Any) -> tuple[int, str]:
    """Status and code of the refusal; 200 where there is none.  A pod that is asked to come again is."""
    while True:
        try:
            call(**arguments)
        except ClientError as error:
            code = str(error.response["Error"]["Code"])
            if code == "SlowDown":
                time.sleep(0.2)
                continue
            return int(error.response["ResponseMetadata"]["HTTPStatusCode"]), code
        return 200, ""


async def test_a_former_release_refuses_what_it_cannot_read_and_loses_nothing(tmp_path: Path) -> None:
    mixed = Mixed(tmp_path / "tenant")
    try:
        await mixed.pods.start_all()
        await mixed.roll_first(former_server.ENTRY)
        await asyncio.to_thread(mixed.nothing_begins_that_the_former_cannot_read)
        await mixed.roll_first(TODAY)
        await asyncio.to_thread(mixed.fill)
        await mixed.roll_first(former_server.ENTRY, mixed.seal_more)
        await asyncio.to_thread(mixed.the_former_refuses_and_serves_the_rest)
        await mixed.roll_first(TODAY)
        await asyncio.to_thread(mixed.pods.stop_one, 1)  # what is read now is what the first pod's drive has
        for pod in (0, 2):
            await asyncio.to_thread(mixed.all_is_there, pod)
    finally:
        mixed.pods.stop()
