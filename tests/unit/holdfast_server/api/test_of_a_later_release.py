"""A bucket that a later release wrote, and what this one says of it while pods are being upgraded."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from holdfast_server.admin.heal_requests import HealRequests
from holdfast_server.api import bucket_record
from holdfast_server.api.bucket_record import NEWEST_FORMAT, BucketRecord
from holdfast_server.contract.healing import StuckRegister


async def put(api: Any, bucket: BucketRecord) -> None:
    await api.services.objects.put_document(f"bucket/{bucket.name}", bucket_record.encode(bucket))


@pytest.fixture
async def later(unserved_api: Any) -> BucketRecord:
    now_ms = unserved_api.clock.now_ms()
    bucket = BucketRecord(id=b"L" * 16, name="later", owner="root", region="us-east-1", created_ms=now_ms)
    await put(unserved_api, msgspec.structs.replace(bucket, format=NEWEST_FORMAT + 1))
    await put(unserved_api, msgspec.structs.replace(bucket, id=b"N" * 16, name="now"))
    return bucket


@pytest.mark.parametrize("headers", [{}, {"origin": "https://page.example"}])
async def test_its_objects_are_for_another_pod_to_serve(
    unserved_api: Any, later: BucketRecord, headers: dict[str, str]
) -> None:
    """Browsers were told 500, and lost their connection."""
    answer = await unserved_api.ask("GET", "/later/k", **headers)
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert b"<Code>ServiceUnavailable</Code>" in answer.body


async def test_what_is_stuck_is_told_by_the_names_of_all_buckets(unserved_api: Any, later: BucketRecord) -> None:
    def stuck(bucket_id: bytes) -> StuckRegister:
        return StuckRegister(
            kind="object",
            bucket_id=bucket_id.hex(),
            key="k",
            version="",
            stamp=1,
            copies=1,
            copies_needed=2,
            since_ms=1,
        )

    sets = [SimpleNamespace(pool="main", index=0, stuck_samples=[stuck(b"L" * 16), stuck(b"N" * 16)])]
    state = SimpleNamespace(healing=SimpleNamespace(sets=sets))

    async def look() -> Any:
        return SimpleNamespace(answers=[SimpleNamespace(state=state)])

    requests = HealRequests(unserved_api.services, SimpleNamespace(look=look), None)  # type: ignore[arg-type]
    assert [one.bucket for one in await requests.stuck()] == ["later", "now"]
