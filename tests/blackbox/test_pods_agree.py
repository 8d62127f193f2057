"""What one pod was told, the others know: buckets, users and policies through four real pods."""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from holdfast_server.contract import names
from holdfast_server.s3.signing import KeyPair, sign_headers
from holdfast_server.testing.pods import PodProcesses

SERVERS = 4
PATIENCE_SECONDS = 60.0
SECRET = "a-secret-of-a-user"


@pytest.fixture
def clients(pods: PodProcesses) -> Iterator[Any]:
    """`clients(pod, access_key, secret_key)`: one that does not retry."""
    config = Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, read_timeout=90)
    with ExitStack() as stack:

        def client(pod: int, access_key: str = pods.access_key, secret_key: str = pods.secret_key) -> Any:
            made = boto3.client(
                "s3",
                endpoint_url=pods.endpoint(pod),
                aws_access_key_id=access_key,
                aws_secret_access_key=secret_key,
                region_name="us-east-1",
                config=config,
            )
            return stack.enter_context(closing(made))

        yield client


def admin(pods: PodProcesses, pod: int, method: str, path: str, value: object = None) -> int:
    body = json.dumps(value).encode() if value is not None else b""
    raw_path = names.ADMIN_PREFIX + path
    headers = {"host": f"{pods.address(pod)}:{names.S3_PORT}", "content-length": str(len(body))}
    pair = KeyPair(pods.access_key, pods.secret_key)
    signed = sign_headers(pair, method, raw_path, "", headers, int(time.time() * 1000))
    with closing(http.client.HTTPConnection(pods.address(pod), names.S3_PORT, timeout=PATIENCE_SECONDS)) as connection:
        connection.request(method, raw_path, body, signed)
        response = connection.getresponse()
        response.read()
        return response.status


def code_of(call: Any) -> str:
    """Of the refusal; a pod that asks to come again is asked again."""
    while True:
        with pytest.raises(ClientError) as raised:
            call()
        code = str(raised.value.response["Error"]["Code"])
        if code != "SlowDown":
            return code
        time.sleep(0.2)


def ends_in(code: str, call: Callable[[], Any]) -> None:
    """At once where the news arrives; a pod too busy to hear of it reads everything anew a few seconds later."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    told = None
    while told != code:
        assert time.monotonic() < deadline, f"{told or 'success'} instead of {code or 'success'}"
        try:
            call()
            told = ""
        except ClientError as error:
            told = str(error.response["Error"]["Code"])
        if told != code:
            time.sleep(0.2)


def insist(call: Callable[[], Any]) -> None:
    """For a while, through 503s: pods need a moment to notice who is gone or back."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            call()
            return
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] != 503 or time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def test_a_bucket_is_there_and_gone_for_every_pod_at_once(clients: Any) -> None:
    by_pod = [clients(pod) for pod in range(SERVERS)]
    for round_number in range(4):
        maker, others = by_pod[round_number], [by_pod[pod] for pod in range(SERVERS) if pod != round_number]
        insist(partial(maker.create_bucket, Bucket="agreed"))
        for other in others:
            insist(partial(other.put_object, Bucket="agreed", Key="k", Body=b"1"))
            assert "Contents" in maker.list_objects_v2(Bucket="agreed")
            assert code_of(partial(maker.delete_bucket, Bucket="agreed")) == "BucketNotEmpty"
            insist(partial(other.delete_object, Bucket="agreed", Key="k"))
        others[0].delete_bucket(Bucket="agreed")
        for client in by_pod:
            assert (
                code_of(lambda client=client: client.put_object(Bucket="agreed", Key="k", Body=b"1")) == "NoSuchBucket"
            )


def test_writes_race_a_delete_and_nothing_acknowledged_is_lost(clients: Any) -> None:
    by_pod = [clients(pod) for pod in range(SERVERS)]
    by_pod[0].create_bucket(Bucket="raced")

    async def race() -> list[Any]:
        def put(pod: int) -> bool:
            try:
                by_pod[pod].put_object(Bucket="raced", Key=f"k{pod}", Body=b"1")
            except ClientError:
                return False
            return True

        def delete() -> bool:
            try:
                by_pod[0].delete_bucket(Bucket="raced")
            except ClientError:
                return False
            return True

        return await asyncio.gather(
            asyncio.to_thread(delete), *(asyncio.to_thread(put, pod) for pod in range(1, SERVERS))
        )

    for _ in range(10):
        deleted, *put = asyncio.run(race())
        if deleted:
            assert not any(put)
            by_pod[0].create_bucket(Bucket="raced")
        listed = [entry["Key"] for entry in by_pod[1].list_objects_v2(Bucket="raced").get("Contents", [])]
        acknowledged = [f"k{pod}" for pod, done in enumerate(put, start=1) if done]
        assert set(acknowledged) <= set(listed)
        for key in listed:
            by_pod[2].delete_object(Bucket="raced", Key=key)


def test_a_user_made_through_one_pod_works_through_all_and_ends_everywhere(pods: PodProcesses, clients: Any) -> None:
    clients(0).create_bucket(Bucket="ours")
    assert admin(pods, 1, "PUT", "/users/wanderer", {"secretKey": SECRET, "policies": ["readwrite"]}) == 200
    users = [clients(pod, "wanderer", SECRET) for pod in range(SERVERS)]
    for user in users:
        ends_in("", partial(user.put_object, Bucket="ours", Key="k", Body=b"1"))
    assert admin(pods, 2, "PUT", "/users/wanderer", {"secretKey": SECRET, "policies": ["readonly"]}) == 200
    for user in users:
        ends_in("AccessDenied", partial(user.put_object, Bucket="ours", Key="k", Body=b"1"))
    assert admin(pods, 3, "DELETE", "/users/wanderer") == 204
    for user in users:
        ends_in("InvalidAccessKeyId", partial(user.get_object, Bucket="ours", Key="k"))


def test_with_a_pod_gone_buckets_are_made_and_deleted_and_the_pod_learns_of_it(
    pods: PodProcesses, clients: Any
) -> None:
    clients(3).create_bucket(Bucket="while-away")
    clients(3).put_object(Bucket="while-away", Key="k", Body=b"1")
    pods.kill(3)
    first = clients(0)
    insist(partial(first.delete_object, Bucket="while-away", Key="k"))
    first.delete_bucket(Bucket="while-away")
    first.create_bucket(Bucket="made-meanwhile")
    pods.start(3)
    asyncio.run(pods.wait_ready(3))
    back = clients(3)
    insist(partial(back.put_object, Bucket="made-meanwhile", Key="k", Body=b"1"))
    assert code_of(partial(back.get_object, Bucket="while-away", Key="k")) == "NoSuchBucket"
