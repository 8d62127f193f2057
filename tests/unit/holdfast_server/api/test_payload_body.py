"""A body on its way from the wire to the object layer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from holdfast_server.api.payload_body import MAX_VIEWS, WireBody
from holdfast_server.s3.payload import payload_of
from holdfast_server.s3.sigv4 import SigningContext


class Incoming:
    def __init__(self, *pieces: bytes) -> None:
        self._pieces = pieces

    async def pieces(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece


@pytest.mark.parametrize("chunk_bytes", [2, 3, 1000])
async def test_however_small_its_chunks_are_a_body_comes_in_few_pieces(chunk_bytes: int) -> None:
    data = bytes(range(256)) * 100
    chunks = [data[at : at + chunk_bytes] for at in range(0, len(data), chunk_bytes)]
    wire = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    headers = {"x-amz-decoded-content-length": str(len(data))}
    payload = payload_of(headers, SigningContext("STREAMING-UNSIGNED-PAYLOAD-TRAILER"))
    renewed: list[bool] = []

    async def renew() -> None:
        renewed.append(True)

    incoming = Incoming(wire[:20_000], wire[20_000:])
    body = WireBody(payload, cast(Any, incoming), cast(Any, SimpleNamespace(renew=renew)), {})
    views = [view async for view in body.chunks()]
    assert b"".join(views) == data
    assert len(views) <= 2 * MAX_VIEWS
    assert renewed == [True]
