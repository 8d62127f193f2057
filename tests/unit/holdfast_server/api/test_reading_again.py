"""A version that is overwritten, and whose space is taken back, between its look-up and its first byte (rule 13)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from holdfast_server.api.admission import Ticket
from holdfast_server.api.bucket_record import decode
from holdfast_server.api.dispatch import Dispatcher
from holdfast_server.objects.record import STRIPE_SIZE_BYTES
from holdfast_server.s3.request import BodyStream, Request, Response
from holdfast_server.s3.signing import KeyPair, sign_headers
from holdfast_server.testing.memory_cluster import BytesBody, MemoryCluster
from holdfast_server.testing.memory_services import ROOT_PASSWORD, ROOT_USER, memory_services
from holdfast_server.testing.virtual_time import VirtualClock

pytestmark = pytest.mark.virtual_time

OLD = random.Random(1).randbytes(STRIPE_SIZE_BYTES + 5)
NEW = random.Random(2).randbytes(2 * STRIPE_SIZE_BYTES + 9)
SMALL = b"small enough to be in the record"


class NoBody:
    size_bytes: int | None = 0

    async def pieces(self) -> AsyncIterator[bytes]:
        return
        yield b""


class Store:
    """The API over four memory drives that take superseded shards back at once."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.cluster = MemoryCluster(self.clock)
        for drive in self.cluster.drives:
            drive._reclaim_delay_seconds = 0.0
        self.services = memory_services(self.cluster.store, self.clock)
        self.dispatcher = Dispatcher(self.services)
        self.writer = self.cluster.new_store()
        self.bucket_id = b""

    async def ask(self, method: str, path: str, **headers: str) -> Response:
        now_ms = self.clock.now_ms()
        named = {"host": "x", "content-length": "0", **headers}
        signed = sign_headers(KeyPair(ROOT_USER, ROOT_PASSWORD), method, path, "", named, now_ms)
        request = Request(
            method=method, raw_path=path, raw_query="", headers=signed, remote="", received_ms=now_ms, secure=False
        )
        return (await self.dispatcher.answer(request, NoBody(), "REQUEST", Ticket(self.services.memory)))[1]

    async def body(self, response: Response) -> bytes:
        if isinstance(response.body, BodyStream):
            return b"".join([bytes(piece) async for piece in response.body.pieces])
        return bytes(response.body)

    async def replace(self, data: bytes | None) -> None:
        """Overwrite the key (None: delete it), and take back what it had."""
        if data is None:
            await self.writer.delete_object(self.bucket_id, "k")
        else:
            await self.writer.put_object(self.bucket_id, "k", BytesBody(data))
        await self.writer.background.drained()  # the reader's own repairs may wait for this hook
        assert self.cluster.reap() >= 3

    def replace_before_the_first_block(self, *versions: bytes | None) -> None:
        """Each read of a shard finds that the next of these versions has been written meanwhile."""
        waiting = list(versions)
        once = asyncio.Lock()

        async def hook(_position: int, verb: str, _arguments: tuple[Any, ...]) -> None:
            if verb != "read_blocks":
                return
            async with once:
                if waiting:
                    await self.replace(waiting.pop(0))

        self.cluster.hook = hook


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    made = Store()
    assert (await made.ask("PUT", "/b01")).status == 200
    document = await made.services.objects.get_document("bucket/b01")
    assert document is not None
    made.bucket_id = decode(document.body).id
    await made.writer.put_object(made.bucket_id, "k", BytesBody(OLD))
    await made.cluster.settle()
    yield made
    made.cluster.hook = None
    await made.cluster.close()


@pytest.mark.parametrize("newer", [NEW, SMALL])
async def test_a_get_answers_the_version_that_took_its_place(store: Store, newer: bytes) -> None:
    store.replace_before_the_first_block(newer)
    response = await store.ask("GET", "/b01/k")
    assert response.status == 200
    assert await store.body(response) == newer


async def test_headers_and_range_are_those_of_the_version_that_is_sent(store: Store) -> None:
    store.replace_before_the_first_block(NEW)
    response = await store.ask("GET", "/b01/k", range=f"bytes={STRIPE_SIZE_BYTES}-")
    assert response.status == 206
    assert response.headers["content-range"] == f"bytes {STRIPE_SIZE_BYTES}-{len(NEW) - 1}/{len(NEW)}"
    assert await store.body(response) == NEW[STRIPE_SIZE_BYTES:]


async def test_a_get_of_what_was_deleted_meanwhile_says_so(store: Store) -> None:
    store.replace_before_the_first_block(None)
    assert (await store.ask("GET", "/b01/k")).status == 404


async def test_conditions_are_checked_against_the_version_that_is_sent(store: Store) -> None:
    etag = (await store.ask("HEAD", "/b01/k")).headers["etag"]
    store.replace_before_the_first_block(NEW)
    assert (await store.ask("GET", "/b01/k", **{"if-match": etag})).status == 412


async def test_a_copy_copies_the_version_that_took_its_sources_place(store: Store) -> None:
    store.replace_before_the_first_block(NEW)
    assert (await store.ask("PUT", "/b01/copy", **{"x-amz-copy-source": "/b01/k"})).status == 200
    store.cluster.hook = None
    assert await store.body(await store.ask("GET", "/b01/copy")) == NEW


async def test_a_key_overwritten_faster_than_it_is_read_is_answered_in_the_end(store: Store) -> None:
    store.replace_before_the_first_block(*[NEW, OLD] * 50)
    async with asyncio.timeout(10):
        response = await store.ask("GET", "/b01/k")
    assert response.status == 503


async def test_shards_that_are_lost_for_good_are_not_looked_for_over_and_over(store: Store) -> None:
    for drive in store.cluster.drives[:3]:
        drive._shards.clear()
    async with asyncio.timeout(2):
        response = await store.ask("GET", "/b01/k")
    assert response.status == 503
