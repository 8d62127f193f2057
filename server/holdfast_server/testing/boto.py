"""boto3 as tests use it: path style, as root unless told otherwise, with as many attempts as are asked for."""

from __future__ import annotations

from typing import Any, Protocol

import boto3  # type: ignore[import-untyped]
from botocore.config import Config

from holdfast_server.testing.memory_services import Endpoint


def client_of(
    endpoint: Endpoint, access_key: str = "", secret_key: str = "", *, attempts: int = 1, **config: object
) -> Any:
    """An S3 client; `config` as of botocore.  With one attempt a test sees every failure, with more what users see."""
    options = {
        "s3": {"addressing_style": "path"},
        "retries": {"total_max_attempts": attempts, "mode": "standard"},
        **config,
    }
    return boto3.client(
        "s3",
        endpoint_url=endpoint.url,
        aws_access_key_id=access_key or endpoint.access_key,
        aws_secret_access_key=secret_key or endpoint.secret_key,
        region_name="us-east-1",
        config=Config(**options),
    )


class Raised(Protocol):
    """What `pytest.raises` gives."""

    @property
    def value(self) -> Any: ...


def code_of(raised: Raised) -> str:
    """The S3 code of what a client raised."""
    return str(raised.value.response["Error"]["Code"])
