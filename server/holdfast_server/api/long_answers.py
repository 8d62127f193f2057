"""Keeping a client waiting for work that may outlast its patience: copies, done by the pod itself.

As S3 does: what takes longer than `QUIET_SECONDS` is answered with 200 at once, and blanks follow until the
document is there; a failure after that is an `<Error>` document in a 200, which SDKs know to look for.  What ends
sooner has its true status.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from holdfast_server.api.call import Call
from holdfast_server.api.failures import to_s3_error
from holdfast_server.s3.documents_out import XML_CONTENT_TYPE
from holdfast_server.s3.errors import error_xml
from holdfast_server.s3.request import BodyStream, Response
from holdfast_server.s3.xml_text import DECLARATION

QUIET_SECONDS = 10.0
"""Far below the read timeouts of SDKs (60 s) and of proxies (30 s)."""


async def answer_patiently(call: Call, work: Coroutine[Any, Any, Response], quiet_seconds: float) -> Response:
    """Run `work`, which ends in a small XML response or raises."""
    task = asyncio.create_task(work, name=f"long {call.request_id}")
    try:
        done, _ = await asyncio.wait((task,), timeout=quiet_seconds)
    except asyncio.CancelledError:
        await _end(task)
        raise
    if done:
        return task.result()
    pieces = _LongDocument(call, task, quiet_seconds)
    return Response(
        status=200, headers={"content-type": XML_CONTENT_TYPE}, body=BodyStream(pieces=pieces, size_bytes=None)
    )


class _LongDocument:
    """The body's pieces.  No generator: one that was never begun would not end the work when it is closed."""

    def __init__(self, call: Call, task: asyncio.Task[Response], quiet_seconds: float) -> None:
        self._call = call
        self._task = task
        self._quiet_seconds = quiet_seconds
        self._begun = False
        self._complete = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        declaration = DECLARATION.encode()
        if not self._begun:
            self._begun = True
            return declaration
        if self._complete:
            raise StopAsyncIteration
        if not (await asyncio.wait((self._task,), timeout=self._quiet_seconds))[0]:
            return b" "
        self._complete = True
        return _document(self._call, self._task).removeprefix(declaration)

    async def aclose(self) -> None:
        await _end(self._task)


def _document(call: Call, task: asyncio.Task[Response]) -> bytes:
    error = task.exception()
    if error is None:
        body = task.result().body
        assert isinstance(body, bytes)
        return body
    return error_xml(to_s3_error(error), call.verified.request.raw_path, call.request_id, call.services.pod_name)


async def _end(task: asyncio.Task[Response]) -> None:
    """The client is gone, or has its answer: nothing of the work outlives it."""
    task.cancel()
    await asyncio.wait((task,))
