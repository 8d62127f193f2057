"""Half a picture is none: one list that fails, and nothing of that failure stays with the worker that asked."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from holdfast_operator.kube.errors import KubeUnavailable
from holdfast_operator.kube.port import STATEFUL_SET, Kind, Manifest
from holdfast_operator.observe.cluster import list_live_objects
from holdfast_operator.testing.memory_kube import MemoryKubeClient


class _WithoutStatefulSets(MemoryKubeClient):
    async def list_objects(
        self, kind: Kind, namespace: str | None, labels: Mapping[str, str] | None = None
    ) -> list[Manifest]:
        await asyncio.sleep(0)
        if kind == STATEFUL_SET:
            raise KubeUnavailable("no answer")
        await asyncio.Event().wait()
        return []


async def test_a_list_that_fails_is_raised_at_once_and_leaves_no_cancellation_counted() -> None:
    """One left would make a later time limit of the worker, when it runs out, end it (before Python 3.11.3)."""
    task = asyncio.current_task()
    assert task is not None
    for _ in range(2):
        with pytest.raises(KubeUnavailable, match="no answer"):
            await list_live_objects(_WithoutStatefulSets(), "here", "logs")
        assert task.cancelling() == 0
