"""Asynchronous tests that are marked `virtual_time` run in it: what they wait for comes at its time however busy the
machine is.  Folders may have it for all of their tests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from holdfast_server.testing.virtual_time import VirtualLoop

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, LoopFactory]:
    if item.get_closest_marker("virtual_time"):
        return {"virtual": VirtualLoop}
    return {"real": asyncio.new_event_loop}
