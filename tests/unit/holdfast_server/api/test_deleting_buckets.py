"""Rule 12: mark, let go, look, decide.  Over the in-memory object layer, with peers that answer as a test says."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest

from holdfast_server.api import bucket_record
from holdfast_server.api.buckets import STALE_MARK_MS
from holdfast_server.api.buckets_cache import LEASE_SECONDS
from holdfast_server.objects.port import Attributes, Unavailable


@pytest.fixture
async def api(unserved_api):
    assert (await unserved_api.ask("PUT", "/b01")).status == 200
    return unserved_api


async def test_an_empty_bucket_goes_at_once_when_every_pod_confirms(api) -> None:
    assert (await api.ask("DELETE", "/b01")).status == 204
    assert await api.stored() is None
    assert api.clock.slept == []


async def test_with_a_pod_unreachable_its_lease_is_waited_out(api) -> None:
    async def one_is_silent(bucket_id: bytes) -> bool:
        return False

    api.services = dataclasses.replace(api.services, fence_bucket_everywhere=one_is_silent)
    assert (await api.ask("DELETE", "/b01")).status == 204
    assert api.clock.slept == [pytest.approx(LEASE_SECONDS + api.services.limits.operation_seconds, abs=2)]


async def test_an_object_that_arrives_before_the_fence_keeps_the_bucket(api) -> None:
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
    filler = None

    async def chunks(self):
        yield b"1"

    def finish(self):
        return Attributes(etag="e")


async def test_a_failed_look_takes_the_mark_back(api) -> None:
    def fail(verb: str) -> None:
        if verb == "list_objects":
            raise Unavailable("below quorum")

    api.services.objects.failure = fail
    answer = await api.ask("DELETE", "/b01")
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    api.services.objects.failure = None
    assert (await api.ask("PUT", "/b01/k", b"x")).status == 200


async def test_open_uploads_go_with_the_bucket(api) -> None:
    assert (await api.ask("POST", "/b01/k", query="uploads")).status == 200
    assert (await api.ask("DELETE", "/b01")).status == 204
    assert not api.services.objects._uploads


async def test_a_stale_mark_is_taken_back_by_the_next_writer(api) -> None:
    stored = await api.stored()
    for age_ms, first, second in ((1000, 503, 503), (STALE_MARK_MS + 1000, 503, 200)):
        marked = msgspec.structs.replace(
            stored, state="deleting", mark=b"m" * 16, marked_ms=api.clock.now_ms() - age_ms
        )
        await api.services.objects.put_document("bucket/b01", bucket_record.encode(marked))
        api.services.buckets.forget("b01")
        assert (await api.ask("PUT", "/b01/k", b"x")).status == first
        assert (await api.ask("PUT", "/b01/k", b"x")).status == second


async def test_two_deletes_do_not_finish_each_others_work(api) -> None:
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
