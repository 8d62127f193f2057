"""Copies that outlast a client's patience: blanks, then the document or the error; nothing runs on alone."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from holdfast_server.api.call import Call
from holdfast_server.api.long_answers import answer_patiently
from holdfast_server.objects.port import Unavailable
from holdfast_server.s3.documents_out import copy_object_xml
from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.request import BodyStream, Response
from holdfast_server.s3.xml_tree import parse

REQUEST = SimpleNamespace(raw_path="/b/k")
CALL = cast(
    Call,
    SimpleNamespace(request_id="R", verified=SimpleNamespace(request=REQUEST), services=SimpleNamespace(pod_name="p")),
)


async def work(may_end: asyncio.Event, error: Exception | None = None) -> Response:
    await may_end.wait()
    if error is not None:
        raise error
    return Response(status=200, body=copy_object_xml("etag", 1000))


async def taken(answer: Response, may_end: asyncio.Event) -> bytes:
    """The work may end once the declaration and two blanks have come."""
    assert isinstance(answer.body, BodyStream)
    pieces: list[bytes] = []
    async for piece in answer.body.pieces:
        pieces.append(bytes(piece))
        if len(pieces) == 3:
            may_end.set()
    return b"".join(pieces)


async def test_what_ends_soon_has_its_own_status() -> None:
    at_once = asyncio.Event()
    at_once.set()
    assert isinstance((await answer_patiently(CALL, work(at_once), 60)).body, bytes)
    with pytest.raises(S3Error):
        await answer_patiently(CALL, work(at_once, S3Error("NoSuchKey")), 60)


@pytest.mark.parametrize(("error", "root"), [(None, "CopyObjectResult"), (Unavailable("x"), "Error")])
async def test_what_takes_long_is_blanks_and_then_one_whole_document(error: Any, root: str) -> None:
    may_end = asyncio.Event()
    body = await taken(await answer_patiently(CALL, work(may_end, error), 0.02), may_end)
    assert b"  " in body
    assert parse(body, 10_000).name == root


@pytest.mark.parametrize("begun", [False, True])
async def test_when_the_client_goes_the_work_ends(begun: bool) -> None:
    ended = asyncio.Event()

    async def endless() -> Response:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()
        raise AssertionError

    answer = await answer_patiently(CALL, endless(), 0.01)
    assert isinstance(answer.body, BodyStream)
    pieces = cast(Any, answer.body.pieces)
    if begun:
        await anext(pieces)
    await pieces.aclose()
    assert ended.is_set()
