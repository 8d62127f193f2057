"""Every asynchronous test here runs in virtual time, over drives in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from holdfast_server.testing.memory_cluster import MemoryCluster
from holdfast_server.testing.virtual_time import VirtualClock, VirtualLoop


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, type[VirtualLoop]]:
    return {"virtual": VirtualLoop}


@pytest.fixture
async def cluster() -> AsyncIterator[MemoryCluster]:
    """Four drives, two of parity: K 2, W 3, R 2."""
    made = MemoryCluster(VirtualClock(), 4, 2, 1)
    yield made
    made.hook = None
    await made.close()
