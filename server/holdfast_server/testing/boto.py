"""boto3 as tests use it: path style, as root unless told otherwise, with as many attempts as are asked for."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any, Protocol

import boto3  # type: ignore[import-untyped]
from botocore.config import Config
from botocore.exceptions import ClientError

from holdfast_server.api.services import Services
from holdfast_server.contract.names import S3_PORT
from holdfast_server.testing.commands import run_command
from holdfast_server.testing.memory_services import Endpoint, served
from holdfast_server.testing.pods import PodProcesses

PATIENT_ATTEMPTS = 12
PATIENT_SECONDS = 90
KNOWN_SECONDS = 120
"""Until pods that have just been started know each other."""


def client_of(
    endpoint: Endpoint,
    access_key: str = "",
    secret_key: str = "",
    *,
    attempts: int = 1,
    service: str = "s3",
    session_token: str = "",
    region: str = "us-east-1",
    **config: object,
) -> Any:
    """A client; `config` as of botocore.  With one attempt a test sees every failure, with more what users see."""
    options = {
        "s3": {"addressing_style": "path"},
        "retries": {"total_max_attempts": attempts, "mode": "standard"},
        **config,
    }
    return boto3.client(
        service,
        endpoint_url=endpoint.url,
        aws_access_key_id=access_key or endpoint.access_key,
        aws_secret_access_key=secret_key or endpoint.secret_key,
        aws_session_token=session_token or None,
        region_name=region,
        config=Config(**options),
    )


def endpoint_of(pods: PodProcesses, pod: int = 0) -> Endpoint:
    """One pod's, without TLS."""
    return Endpoint(pods.address(pod), S3_PORT, pods.access_key, pods.secret_key)


def patient_client_of(pods: PodProcesses, pod: int) -> Any:
    """An S3 client that asks as often, and waits as long, as pods need that come and go."""
    return client_of(endpoint_of(pods, pod), attempts=PATIENT_ATTEMPTS, read_timeout=PATIENT_SECONDS)


async def set_opaque_etags(pods: PodProcesses, bucket: str) -> None:
    """As the administrator's command does.  It is refused until every pod is known to the one that is asked."""
    keys = {"AWS_ACCESS_KEY_ID": pods.access_key, "AWS_SECRET_ACCESS_KEY": pods.secret_key}
    environment = {**os.environ, **keys, "AWS_ENDPOINT_URL_S3": pods.endpoint()}
    command = ("-m", "holdfast_server.main", "admin", "bucket", "etag", bucket, "--set", "Opaque")
    async with asyncio.timeout(KNOWN_SECONDS):
        while (await run_command(sys.executable, command, environment, timeout_seconds=KNOWN_SECONDS)).code:
            await asyncio.sleep(0.2)


@contextmanager
def served_client(services: Services, bucket: str = "", **config: object) -> Iterator[Any]:
    """An S3 client of an API that is served for it, with `bucket` made; `config` as of botocore.

    It asks a second time, as a connection may be closed between two requests.
    """
    with served(services) as endpoint, closing(client_of(endpoint, attempts=2, **config)) as client:  # type: ignore[arg-type]
        if bucket:
            client.create_bucket(Bucket=bucket)
        yield client


class Raised(Protocol):
    """What `pytest.raises` gives."""

    @property
    def value(self) -> Any: ...


def code_of(raised: Raised) -> str:
    """The S3 code of what a client raised."""
    return str(raised.value.response["Error"]["Code"])


def refusal(call: Callable[..., Any], **arguments: Any) -> str:
    """The S3 code that a call is refused with; empty where it is not."""
    try:
        call(**arguments)
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return ""
