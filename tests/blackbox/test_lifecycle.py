"""Expiry and quotas on real pods: while others write, through a kill of the pod that expires; audit lines, metrics.

Nothing here goes by the clock: which objects a rule names is told by their size, and what is waited for is a state.
"""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from holdfast_server.contract.config import AuditConfig, DebugConfig
from holdfast_server.main import run
from holdfast_server.testing.boto import client_of, endpoint_of
from holdfast_server.testing.pods import PodProcesses

PATIENCE_SECONDS = 180.0
KEYS = 120
LARGE, SMALL = b"x" * 200, b"y" * 10
RULES = {
    "Rules": [
        {
            "ID": "large",
            "Status": "Enabled",
            "Filter": {"And": {"Prefix": "k/", "ObjectSizeGreaterThan": 100}},
            "Expiration": {"Days": 1},
        },
        {
            "ID": "uploads",
            "Status": "Enabled",
            "Filter": {"Prefix": ""},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
        },
    ]
}


@pytest.fixture
def tenant(tmp_path: Path) -> Iterator[PodProcesses]:
    pods = PodProcesses(tmp_path / "pods", debug=DebugConfig(lifecycle_day_seconds=2.0), audit=AuditConfig(stdout=True))
    try:
        asyncio.run(pods.start_all())
        yield pods
    finally:
        pods.stop()


def client(pods: PodProcesses, pod: int) -> Any:
    return client_of(endpoint_of(pods, pod), attempts=2)


def insist(call: Callable[[], Any]) -> Any:
    """Through 503s and refused connections, like clients do."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return call()
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] < 500 or time.monotonic() > deadline:
                raise
        except BotoCoreError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)


def wait_for(what: str, there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not there():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def metric(pods: PodProcesses, pod: int, name: str) -> float:
    """Summed over its labels."""
    with urllib.request.urlopen(f"{pods.probe_endpoint(pod)}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name}{{", f"{name} ")))


def test_expiry_goes_on_beside_writes_and_through_a_kill_of_the_pod_that_expires(tenant: PodProcesses) -> None:
    s3 = [client(tenant, pod) for pod in range(4)]
    insist(lambda: s3[1].create_bucket(Bucket="expiring"))
    keys = [f"k/{number:03}" for number in range(KEYS)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: insist(lambda: s3[2].put_object(Bucket="expiring", Key=key, Body=LARGE)), keys))
    insist(lambda: s3[2].put_object(Bucket="expiring", Key="other", Body=LARGE))
    insist(lambda: s3[2].create_multipart_upload(Bucket="expiring", Key="stale"))
    insist(lambda: s3[1].put_bucket_lifecycle_configuration(Bucket="expiring", LifecycleConfiguration=RULES))

    def write_over(key: str) -> None:
        insist(lambda: s3[1 + int(key[2:]) % 3].put_object(Bucket="expiring", Key=key, Body=SMALL))

    written_over = keys[::2]
    with ThreadPoolExecutor(4) as pool:
        writing = [pool.submit(write_over, key) for key in written_over]
        tenant.kill(0)  # the first drive of the only set is what walks
        for done in writing:
            done.result()

    def listed() -> list[str]:
        found = insist(lambda: s3[3].list_objects_v2(Bucket="expiring"))
        return [entry["Key"] for entry in found.get("Contents", [])]

    wait_for("what is large expires", lambda: listed() == [*written_over, "other"])
    wait_for(
        "the upload is aborted",
        lambda: "Uploads" not in insist(lambda: s3[3].list_multipart_uploads(Bucket="expiring")),
    )
    for key in written_over:
        assert insist(lambda key=key: s3[2].get_object(Bucket="expiring", Key=key)["Body"].read()) == SMALL  # type: ignore[misc]
    assert sum(metric(tenant, pod, "holdfast_lifecycle_ended_total") for pod in (1, 2, 3)) > 0
    assert any("S3.EXPIRE.OBJECT" in (tenant.directory / f"{tenant.prefix}{pod}.log").read_text() for pod in range(4))


def test_a_quota_holds_through_every_pod_and_gives_way_after_deletes(
    tenant: PodProcesses, capsys: pytest.CaptureFixture[str]
) -> None:
    s3 = [client(tenant, pod) for pod in range(4)]
    insist(lambda: s3[0].create_bucket(Bucket="limited"))
    environment = {
        "AWS_ENDPOINT_URL_S3": tenant.endpoint(0),
        "AWS_ACCESS_KEY_ID": tenant.access_key,
        "AWS_SECRET_ACCESS_KEY": tenant.secret_key,
    }
    assert run(["admin", "bucket", "quota", "limited", "--size", "100k"], environment) == 0

    def fill(pod: int) -> int:
        """Until this pod refuses; how many it took."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        taken = 0
        while time.monotonic() < deadline:
            try:
                number = taken
                insist(lambda: s3[pod].put_object(Bucket="limited", Key=f"{pod}/{number}", Body=b"x" * 5000))  # noqa: B023
                taken += 1
            except ClientError as error:
                if error.response["Error"]["Code"] != "QuotaExceeded":
                    raise
                return taken
            time.sleep(0.2)
        raise AssertionError("no refusal")

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(fill, range(4))) > 0
    insist(lambda: s3[3].get_object(Bucket="limited", Key="0/0"))
    found = insist(lambda: s3[0].list_objects_v2(Bucket="limited"))["Contents"]

    def told() -> int:
        capsys.readouterr()
        assert run(["admin", "bucket", "list", "--json"], environment) == 0
        return int(json.loads(capsys.readouterr().out)[0]["sizeBytes"])

    wait_for("what is told is what is there", lambda: told() == sum(entry["Size"] for entry in found))
    for entry in found:
        insist(lambda entry=entry: s3[2].delete_object(Bucket="limited", Key=entry["Key"]))  # type: ignore[misc]

    def takes(pod: int) -> bool:
        try:
            s3[pod].put_object(Bucket="limited", Key=f"again/{pod}", Body=b"x" * 5000)
        except (ClientError, BotoCoreError):
            return False
        return True

    for pod in range(4):
        wait_for(f"pod {pod} takes writes again", lambda pod=pod: takes(pod))  # type: ignore[misc]
