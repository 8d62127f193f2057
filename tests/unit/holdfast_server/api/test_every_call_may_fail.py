"""Each call of the object layer fails once, over all calls of a client's working day: the answer is 503, the
step can be repeated, and nothing is left in between."""

from __future__ import annotations

import hashlib
import re

import pytest

from holdfast_server.objects.port import OutOfSpace, Unavailable

MIB = 1 << 20
PART = bytes(5 * MIB)
UPLOAD_ID = re.compile(rb"<UploadId>(.*)</UploadId>")


async def day(api, step) -> None:
    """Every verb family once; `step` repeats a request until it succeeds."""
    await step("PUT", "/b01")
    await step("PUT", "/b01/k", b"data", **{"if-none-match": "*"})
    assert (await step("GET", "/b01/k")).body == b"data"
    await step("HEAD", "/b01/k")
    await step("PUT", "/b01/copy", **{"x-amz-copy-source": "/b01/k"})
    started = await step("POST", "/b01/big", query="uploads")
    upload = UPLOAD_ID.search(started.body)[1].decode()
    await step("PUT", "/b01/big", PART, query=f"partNumber=1&uploadId={upload}")
    await step("PUT", "/b01/big", query=f"partNumber=2&uploadId={upload}", **{"x-amz-copy-source": "/b01/k"})
    assert (await step("GET", "/b01/big", query=f"uploadId={upload}")).body.count(b"<Part>") == 2
    etags = [hashlib.md5(PART).hexdigest(), hashlib.md5(b"data").hexdigest()]
    parts = "".join(f"<Part><PartNumber>{n}</PartNumber><ETag>{etag}</ETag></Part>" for n, etag in enumerate(etags, 1))
    document = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
    await step("POST", "/b01/big", document, query=f"uploadId={upload}")
    assert (await step("GET", "/b01", query="list-type=2")).body.count(b"<Contents>") == 3
    assert b"<Name>b01</Name>" in (await step("GET", "/")).body
    for key in ("k", "copy", "big"):
        await step("DELETE", f"/b01/{key}")
    await step("DELETE", "/b01")
    api.services.objects.failure = None
    assert await api.stored() is None


async def count_calls(api) -> int:
    calls: list[str] = []
    api.services.objects.failure = calls.append
    await day(api, lambda *arguments, **named: api.ask(*arguments, **named))
    return len(calls)


@pytest.mark.parametrize(("error", "status"), [(Unavailable("below quorum"), 503), (OutOfSpace("full"), 507)])
async def test_every_call_may_fail_once(unserved_api, error: Exception, status: int) -> None:
    api = unserved_api
    total = await count_calls(api)
    assert total > 20
    for number in range(total):
        left = [number]

        def fail(verb: str, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == -1:
                raise type(error)(*error.args)

        async def step(*arguments: object, **named: object):
            answer = await api.ask(*arguments, **named)
            if answer.status >= 300:
                assert answer.status == status, answer.body
                answer = await api.ask(*arguments, **named)
            assert answer.status < 300, answer.body
            return answer

        api.services.objects.failure = fail
        api.services.buckets.forget("b01")
        await day(api, step)
        assert left[0] < 0
