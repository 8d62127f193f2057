"""What several tests are served by: four pods as real processes, or the API over the object layer in memory."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest

from holdfast_server.testing.boto import endpoint_of, patient_client_of
from holdfast_server.testing.memory_services import Endpoint, memory_services, served
from holdfast_server.testing.pods import PodProcesses

SERVERS = 4


@pytest.fixture(scope="module")
def pods(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PodProcesses]:
    """One erasure set of four pods with a drive each."""
    made = PodProcesses(tmp_path_factory.mktemp("pods"), servers=SERVERS, volumes=1)
    try:
        asyncio.run(made.start_all())
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module", params=["memory", "pods"])
def endpoints(request: pytest.FixtureRequest) -> Iterator[list[Endpoint]]:
    """Of one store; on pods one of each, in memory a single one."""
    if request.param == "memory":
        with served(memory_services()) as endpoint:
            yield [endpoint]
        return
    made: PodProcesses = request.getfixturevalue("pods")
    yield [endpoint_of(made, pod) for pod in range(SERVERS)]


@pytest.fixture
def clients(pods: PodProcesses) -> Iterator[list[Any]]:
    """One of each pod, with the retries that clients have."""
    with ExitStack() as stack:
        yield [stack.enter_context(closing(patient_client_of(pods, pod))) for pod in range(pods.servers)]


@pytest.fixture
def bucket(s3: Any) -> str:
    """A new one; `s3` is the module's own client."""
    name = f"test-{uuid.uuid4().hex[:16]}"
    s3.create_bucket(Bucket=name)
    return name
