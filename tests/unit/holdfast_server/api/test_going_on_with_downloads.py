"""If-Range: a download is gone on with only where the object is still the one that it began with."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_of_another_object_everything_is_sent(unserved_api, method: str) -> None:
    await unserved_api.ask("PUT", "/b01")
    old = (await unserved_api.ask("PUT", "/b01/k", b"0123456789")).headers["etag"]
    now = (await unserved_api.ask("PUT", "/b01/k", b"abcdefghij")).headers["etag"]
    rest = {"range": "bytes=4-"}
    whole = await unserved_api.ask(method, "/b01/k", **rest, **{"if-range": old})
    assert (whole.status, whole.headers["etag"]) == (200, now)
    assert "content-range" not in whole.headers
    part = await unserved_api.ask(method, "/b01/k", **rest, **{"if-range": now})
    assert (part.status, part.headers["content-range"]) == (206, "bytes 4-9/10")
    if method == "GET":
        assert (whole.body, part.body) == (b"abcdefghij", b"efghij")
