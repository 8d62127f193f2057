"""Every asynchronous test here runs in virtual time, over drives in memory; but for those of threads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from holdfast_server.testing.memory_cluster import MemoryCluster
from holdfast_server.testing.virtual_time import VirtualClock, VirtualLoop

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, LoopFactory]:
    if item.get_closest_marker("real_threads"):
        return {"real": asyncio.new_event_loop}
    return {"virtual": VirtualLoop}


@pytest.fixture
async def make_cluster() -> AsyncIterator[Callable[..., MemoryCluster]]:
    clusters: list[MemoryCluster] = []

    def make(set_size: int = 4, parity: int = 2, sets: int = 1) -> MemoryCluster:
        clusters.append(MemoryCluster(VirtualClock(), set_size, parity, sets))
        return clusters[-1]

    yield make
    for cluster in clusters:
        cluster.hook = None
        await cluster.close()
    left = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
    assert not left, f"tasks outlive their request: {left}"


@pytest.fixture
async def cluster(make_cluster: Callable[..., MemoryCluster]) -> MemoryCluster:
    """Four drives, two of parity: K 2, W 3, R 2."""
    return make_cluster()
