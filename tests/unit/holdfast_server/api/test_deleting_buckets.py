"""Rule 12: mark, let go, look, decide.  Over the in-memory object layer, with peers that answer as a test says."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest

from holdfast_server.api import bucket_record
from holdfast_server.api.buckets import STALE_MARK_MS
from holdfast_server.api.buckets_cache import LEASE_SECONDS
from holdfast_server.api.dispatch import Dispatcher
from holdfast_server.clock.system import SystemClock
from holdfast_server.objects.port import Unavailable
from holdfast_server.s3.request import Request, Response
from holdfast_server.s3.signing import KeyPair, sign_headers
from holdfast_server.testing.memory_services import ROOT_PASSWORD, ROOT_USER, memory_services


class SkippingClock(SystemClock):
    """Sleeps at once, and remembers for how long it should have."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


class GivenBody:
    def __init__(self, data: bytes) -> None:
        self.size_bytes: int | None = len(data)
        self._data = data

    async def pieces(self):
        if self._data:
            yield self._data


class Api:
    """Asks the dispatcher directly, signed as root."""

    def __init__(self) -> None:
        self.clock = SkippingClock()
        self.services = memory_services(clock=self.clock)

    async def ask(self, method: str, path: str, body: bytes = b"", query: str = "", **headers: str) -> Response:
        named = {"host": "x", "content-length": str(len(body)), **headers}
        now_ms = self.clock.now_ms()
        signed = sign_headers(KeyPair(ROOT_USER, ROOT_PASSWORD), method, path, query, named, now_ms)
        request = Request(
            method=method, raw_path=path, raw_query=query, headers=signed, remote="", received_ms=now_ms, secure=False
        )
        return (await Dispatcher(self.services).answer(request, GivenBody(body), "REQUEST"))[1]

    async def stored(self) -> bucket_record.BucketRecord | None:
        document = await self.services.objects.get_document("bucket/b01")
        return bucket_record.decode(document.body) if document else None


@pytest.fixture
async def api() -> Api:
    made = Api()
    assert (await made.ask("PUT", "/b01")).status == 200
    return made


async def test_an_empty_bucket_goes_at_once_when_every_pod_confirms(api: Api) -> None:
    assert (await api.ask("DELETE", "/b01")).status == 204
    assert await api.stored() is None
    assert api.clock.slept == []


async def test_with_a_pod_unreachable_its_lease_is_waited_out(api: Api) -> None:
    async def one_is_silent(bucket_id: bytes) -> bool:
        return False

    api.services = dataclasses.replace(api.services, fence_bucket_everywhere=one_is_silent)
    assert (await api.ask("DELETE", "/b01")).status == 204
    assert api.clock.slept == [LEASE_SECONDS + api.services.limits.operation_seconds]


async def test_an_object_that_arrives_before_the_fence_keeps_the_bucket(api: Api) -> None:
    async def late_write(bucket_id: bytes) -> bool:
        objects, self_body = api.services.objects, LateBody()
        await objects.put_object(bucket_id, "late", self_body)
        return True

    api.services = dataclasses.replace(api.services, fence_bucket_everywhere=late_write)
    answer = await api.ask("DELETE", "/b01")
    assert answer.status == 409
    assert b"BucketNotEmpty" in answer.body
    stored = await api.stored()
    assert stored is not None
    assert not stored.deleting


class LateBody:
    size_bytes = 1
    digests = ()

    async def chunks(self):
        yield b"1"

    def finish(self):
        from holdfast_server.objects.port import Attributes

        return Attributes(etag="e")


async def test_a_failed_look_takes_the_mark_back(api: Api) -> None:
    def fail(verb: str) -> None:
        if verb == "list_objects":
            raise Unavailable("below quorum")

    api.services.objects.failure = fail
    answer = await api.ask("DELETE", "/b01")
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    api.services.objects.failure = None
    assert (await api.ask("PUT", "/b01/k", b"x")).status == 200


async def test_open_uploads_go_with_the_bucket(api: Api) -> None:
    assert (await api.ask("POST", "/b01/k", query="uploads")).status == 200
    assert (await api.ask("DELETE", "/b01")).status == 204
    assert not api.services.objects._uploads


async def test_a_stale_mark_is_taken_back_by_the_next_writer(api: Api) -> None:
    stored = await api.stored()
    for age_ms, first, second in ((1000, 503, 503), (STALE_MARK_MS + 1000, 503, 200)):
        marked = msgspec.structs.replace(
            stored, state="deleting", mark=b"m" * 16, marked_ms=api.clock.now_ms() - age_ms
        )
        await api.services.objects.put_document("bucket/b01", bucket_record.encode(marked))
        api.services.buckets.forget("b01")
        assert (await api.ask("PUT", "/b01/k", b"x")).status == first
        assert (await api.ask("PUT", "/b01/k", b"x")).status == second


async def test_two_deletes_do_not_finish_each_others_work(api: Api) -> None:
    async def other_attempt(bucket_id: bytes) -> bool:
        stored = await api.stored()
        await api.services.objects.put_document(
            "bucket/b01", bucket_record.encode(msgspec.structs.replace(stored, mark=b"o" * 16))
        )
        return True

    api.services = dataclasses.replace(api.services, fence_bucket_everywhere=other_attempt)
    assert (await api.ask("DELETE", "/b01")).status == 503
    stored = await api.stored()
    assert stored is not None
    assert stored.mark == b"o" * 16
