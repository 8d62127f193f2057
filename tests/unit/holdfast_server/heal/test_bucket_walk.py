"""The walk over buckets: what is due goes, once; what was written meanwhile stays; usage is counted; strays go."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from holdfast_server.api import bucket_record
from holdfast_server.api.bucket_record import ENABLED, SUSPENDED, VERSIONED_FORMAT, BucketRecord, document_name
from holdfast_server.api.deleted_buckets import SETTLED_MS, remember_deleted
from holdfast_server.api.expiring import LifecycleKeeper
from holdfast_server.contract.healing import BucketWalkProgress
from holdfast_server.drives.port import CommitMode, CommitRequest, CommitStatus, DriveOffline, Held, Register
from holdfast_server.heal.bucket_walk import leads
from holdfast_server.heal.service import HealService
from holdfast_server.heal.settings import HealSettings
from holdfast_server.objects.port import Unavailable, Versioning
from holdfast_server.objects.record import UPLOAD_SPACE, object_register
from holdfast_server.objects.store import ObjectStore
from holdfast_server.s3.expiry import Calendar
from holdfast_server.s3.lifecycle import LifecycleRule, Terms
from holdfast_server.testing.memory_cluster import BUCKET, BytesBody, MemoryCluster
from holdfast_server.testing.memory_services import memory_services

DAY_SECONDS = 10.0
CALENDAR = Calendar(10_000)
SETTINGS = HealSettings(bucket_page=3, bucket_pass_seconds=1.0, bucket_share=0.5, returned_delay_seconds=1e12)
NAME = "bucket"


def rule(**terms: Any) -> LifecycleRule:
    return LifecycleRule(id=terms.pop("id", "r"), enabled=True, filter=Terms(prefix=terms.pop("prefix", "")), **terms)


async def make_bucket(cluster: MemoryCluster, *rules: LifecycleRule, versioning: str = "") -> BucketRecord:
    made = BucketRecord(
        id=BUCKET, name=NAME, owner="root", region="r", created_ms=1, lifecycle=list(rules), versioning=versioning,
        format=VERSIONED_FORMAT if versioning else 1,
    )  # fmt: skip
    await cluster.store.put_document(document_name(NAME), bucket_record.encode(made))
    return made


class Pod:
    """One pod with one drive of the set; its own coordinator and its own cache of buckets."""

    def __init__(self, cluster: MemoryCluster, position: int = 0, calendar: Calendar = CALENDAR) -> None:
        self.drive: Any = cluster._hooked[0][position]
        self.store = cluster.new_store()
        self.services = memory_services(self.store, cluster.clock)
        self.keeper = LifecycleKeeper(self.services, cluster.clock.now_ms, self.services.quotas, calendar)
        self.healing = HealService(self.store, lambda: (self.drive,), cluster.clock, SETTINGS, keeper=self.keeper)
        self.cluster = cluster

    async def walk(self) -> None:
        """One whole pass."""
        assert self.healing.walk is not None
        erasure_set, state = self.healing.set_of(self.drive), self.healing.work_of(0).walk
        state.hurry = True
        while await self.healing.walk.step(self.drive, erasure_set, state):
            pass
        await self.cluster.settle()

    @property
    def told(self) -> BucketWalkProgress:
        return self.healing.report().drives[0].buckets


async def keys(cluster: MemoryCluster) -> list[str]:
    return [entry.key for entry in (await cluster.store.list_objects(BUCKET)).entries]


async def versions(cluster: MemoryCluster) -> list[tuple[str, bool]]:
    """Key and whether it is a marker, newest first."""
    listing = await cluster.store.list_versions(BUCKET)
    return [(entry.key, entry.record.marker) for entry in listing.entries]


async def put_version(cluster: MemoryCluster, key: str, body: bytes = b"x") -> None:
    await cluster.store.put_object(BUCKET, key, BytesBody(body, versioning=Versioning.ENABLED))


async def test_what_is_due_goes_and_what_is_not_stays(cluster: MemoryCluster) -> None:
    await make_bucket(
        cluster, rule(prefix="old/", days=1), rule(id="s", prefix="s/", days=1, all_of=Terms(larger_than_bytes=3))
    )
    for number in range(8):
        await cluster.put(f"old/{number}", b"x")
    await cluster.put("keep", b"x")
    await cluster.put("s/large", b"12345")
    await cluster.put("s/small", b"123")
    pod = Pod(cluster)
    await pod.walk()
    assert len(await keys(cluster)) == 11, "not due yet"
    await cluster.clock.sleep(DAY_SECONDS)
    await cluster.put("old/new", b"x")
    await pod.walk()
    assert await keys(cluster) == ["keep", "old/new", "s/small"]
    assert pod.told.expired == {"expired": 9, "noncurrent": 0, "delete_marker": 0, "upload": 0}
    await pod.walk()
    assert pod.told.expired["expired"] == 9


async def test_two_pods_at_once_end_each_thing_once(cluster: MemoryCluster) -> None:
    await make_bucket(cluster, rule(days=1), versioning=ENABLED)
    for number in range(5):
        await put_version(cluster, f"k{number}")
    await cluster.clock.sleep(DAY_SECONDS)
    pods = [Pod(cluster), Pod(cluster)]
    await asyncio.gather(*(pod.walk() for pod in pods))
    assert await versions(cluster) == [(f"k{number}", marker) for number in range(5) for marker in (True, False)]
    assert sum(pod.told.expired["expired"] for pod in pods) == 5


@pytest.mark.parametrize("versioning", ["", ENABLED, SUSPENDED])
async def test_what_is_overwritten_between_decision_and_deletion_is_not_lost(
    cluster: MemoryCluster, versioning: str
) -> None:
    """Whenever another writes over it, the new object is there afterwards, and nothing hides it."""
    keeps = {"": Versioning.OFF, ENABLED: Versioning.ENABLED, SUSPENDED: Versioning.SUSPENDED}[versioning]
    for moment in range(1, 60):
        made = MemoryCluster(cluster.clock, 4, 2, 1)
        await make_bucket(made, rule(days=1), versioning=versioning)
        await made.store.put_object(BUCKET, "k", BytesBody(b"old", versioning=keeps))
        await made.settle()
        await made.clock.sleep(DAY_SECONDS)
        writer = made.new_store()
        calls = 0
        writing: list[asyncio.Task[None]] = []

        async def hook(position: int, verb: str, _: Any) -> None:
            nonlocal calls
            calls += 1
            if calls == moment:  # noqa: B023
                writing.append(asyncio.create_task(write_like_a_client(writer, keeps)))  # noqa: B023
                await asyncio.sleep(0.001)

        made.hook = hook
        await Pod(made).walk()
        made.hook = None
        if writing:
            await asyncio.gather(*writing)
            await made.settle()
            assert await made.get("k") == b"new", f"written at call {moment}"
        await writer.close()
        await made.close()
        if not writing:
            return
    raise AssertionError("the walk makes more calls than moments were tried")


async def write_like_a_client(writer: ObjectStore, keeps: Versioning) -> None:
    """Again after a 503."""
    while True:
        try:
            await writer.put_object(BUCKET, "k", BytesBody(b"new", versioning=keeps))
            return
        except Unavailable:
            await asyncio.sleep(0.1)


async def test_replaced_versions_and_lone_markers_go_by_their_rules(cluster: MemoryCluster) -> None:
    await make_bucket(
        cluster, rule(noncurrent_days=1, newer_versions=1), rule(id="m", expired_marker=True), versioning=ENABLED
    )
    for number in range(4):
        await put_version(cluster, "k", str(number).encode())
    await put_version(cluster, "gone")
    await cluster.store.delete_object(BUCKET, "gone", versioning=Versioning.ENABLED)
    await cluster.store.delete_object(BUCKET, "never", versioning=Versioning.ENABLED)
    await cluster.clock.sleep(DAY_SECONDS)
    pod = Pod(cluster)
    await pod.walk()
    assert await versions(cluster) == [("gone", True), ("gone", False), ("k", False), ("k", False)]
    assert pod.told.expired == {"expired": 0, "noncurrent": 2, "delete_marker": 1, "upload": 0}
    assert await cluster.get("k") == b"3"


async def test_more_versions_than_a_page_has_are_seen_as_one_row(
    cluster: MemoryCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast_server.api.expiring.VERSIONS_PER_PAGE", 3)
    await make_bucket(cluster, rule(noncurrent_days=1, newer_versions=4), versioning=ENABLED)
    for number in range(12):
        await put_version(cluster, "k", str(number).encode())
    await put_version(cluster, "k2")
    await cluster.clock.sleep(DAY_SECONDS)
    await Pod(cluster).walk()
    assert await versions(cluster) == [("k", False)] * 5 + [("k2", False)]
    assert await cluster.get("k") == b"11"


async def test_stale_uploads_are_aborted(cluster: MemoryCluster) -> None:
    await make_bucket(cluster, rule(prefix="u/", abort_days=1))
    stale = await cluster.store.create_upload(BUCKET, "u/k", {}, b"")
    other = await cluster.store.create_upload(BUCKET, "other", {}, b"")
    await cluster.clock.sleep(DAY_SECONDS)
    fresh = await cluster.store.create_upload(BUCKET, "u/k", {}, b"")
    pod = Pod(cluster)
    await pod.walk()
    assert await cluster.store.get_upload(BUCKET, "u/k", stale) is None
    assert await cluster.store.get_upload(BUCKET, "u/k", fresh) is not None
    assert await cluster.store.get_upload(BUCKET, "other", other) is not None
    assert pod.told.expired["upload"] == 1


async def test_rules_that_were_taken_back_meanwhile_delete_nothing(cluster: MemoryCluster) -> None:
    bucket = await make_bucket(cluster, rule(days=1))
    await cluster.put("k", b"x")
    await cluster.clock.sleep(DAY_SECONDS)
    pod = Pod(cluster)
    look = pod.keeper.look

    async def look_and_lose_the_rules() -> Any:
        found = await look()
        without = msgspec.structs.replace(bucket, lifecycle=[])
        await cluster.store.put_document(document_name(NAME), bucket_record.encode(without))
        return found

    pod.keeper.look = look_and_lose_the_rules  # type: ignore[method-assign]
    await pod.walk()
    assert await keys(cluster) == ["k"]


async def test_a_pod_whose_clock_is_ahead_goes_by_the_others(cluster: MemoryCluster) -> None:
    """The keeper is given a time that all clocks have reached; the pod's own is not asked."""
    await make_bucket(cluster, rule(days=1))
    await cluster.put("k", b"x")
    pod = Pod(cluster)
    began_ms = cluster.clock.now_ms()
    pod.keeper.now_ms = lambda: began_ms  # type: ignore[method-assign]
    await cluster.clock.sleep(50 * DAY_SECONDS)
    await pod.walk()
    assert await keys(cluster) == ["k"]


async def test_usage_is_counted_per_bucket_and_outlives_the_pod(cluster: MemoryCluster) -> None:
    await make_bucket(cluster, versioning=ENABLED)
    for number in range(5):
        await put_version(cluster, f"k{number}", b"x" * number)
    await put_version(cluster, "k4", b"yy")
    await cluster.store.delete_object(BUCKET, "k0", versioning=Versioning.ENABLED)
    upload = await cluster.store.create_upload(BUCKET, "mp", {}, b"")
    await cluster.store.put_part(BUCKET, "mp", upload, 1, BytesBody(b"x" * 70))
    await cluster.settle()
    pod = Pod(cluster)
    assert pod.healing.report().drives[0].usage_counted_ms == 0
    await pod.walk()
    (one,) = pod.healing.report().drives[0].usage
    assert (one.bucket_id, one.objects, one.versions, one.size_bytes) == (BUCKET.hex(), 4, 7, 12)
    assert (one.parts, one.parts_size_bytes) == (1, 70)
    again = Pod(cluster)
    await again.healing.heal_once()
    assert again.healing.report().drives[0].usage == [one]


async def test_one_drive_of_a_set_walks_and_another_when_it_is_away(cluster: MemoryCluster) -> None:
    def leaders() -> list[int]:
        return [p for p in range(4) if leads(cluster._hooked[0][p], cluster.store.all_sets()[0])]  # type: ignore[arg-type]

    assert leaders() == [0]
    with cluster.away(0, 1):
        assert leaders() == [2]
    await make_bucket(cluster, rule(days=1))
    await cluster.put("k", b"x")
    await cluster.clock.sleep(DAY_SECONDS)
    await Pod(cluster, position=3).walk()
    assert await keys(cluster) == ["k"]


@pytest.mark.parametrize("units", [1, 2, 3, 5, 8])
async def test_a_restarted_pod_goes_on_where_it_was(cluster: MemoryCluster, units: int) -> None:
    await make_bucket(cluster, rule(days=1))
    for number in range(14):
        await cluster.put(f"k{number:02}", b"x")
    await cluster.clock.sleep(DAY_SECONDS)
    first = Pod(cluster)
    assert first.healing.walk is not None
    state = first.healing.work_of(0).walk
    for _ in range(units):
        await first.healing.walk.step(first.drive, first.healing.set_of(first.drive), state)
        state.keep_at = float("-inf")
    cluster.drives[0].restart()
    second = Pod(cluster)
    await second.walk()
    assert await keys(cluster) == []
    assert first.told.expired["expired"] + second.told.expired["expired"] == 14


async def test_a_call_that_fails_leaves_the_rest_to_a_later_pass(cluster: MemoryCluster) -> None:
    for failing in range(0, 200, 7):
        made = MemoryCluster(cluster.clock, 4, 2, 1)
        await make_bucket(made, rule(days=1))
        for number in range(5):
            await made.put(f"k{number}", b"x")
        await made.clock.sleep(DAY_SECONDS)
        calls = 0

        async def fail_once(position: int, verb: str, _: Any) -> None:
            nonlocal calls
            calls += 1
            if calls == failing + 1:  # noqa: B023
                raise DriveOffline("gone for a moment")

        made.hook = fail_once
        pod = Pod(made)
        for _ in range(3):
            try:
                await pod.walk()
            except (DriveOffline, Unavailable):
                continue
        made.hook = None
        await pod.walk()
        assert await keys(made) == []
        await made.close()


async def stray(cluster: MemoryCluster, bucket_id: bytes) -> list[Register]:
    """What a write left that took effect after its bucket was gone."""
    await cluster.store.put_object(bucket_id, "late", BytesBody(b"x" * 10))
    upload = await cluster.store.create_upload(bucket_id, "late", {}, b"")
    await cluster.settle()
    return [object_register(bucket_id, "late"), Register(UPLOAD_SPACE + bucket_id, "late", upload)]


async def test_what_a_deleted_bucket_left_is_removed_once_nothing_can_be_under_way(cluster: MemoryCluster) -> None:
    gone = BucketRecord(id=b"of a gone bucket", name="gone", owner="root", region="r", created_ms=1)
    pod = Pod(cluster)
    await remember_deleted(pod.services, gone)
    left = await stray(cluster, gone.id)
    await pod.walk()
    assert all([await cluster.store.live(register) for register in left])
    await cluster.clock.sleep(SETTLED_MS / 1000)
    await pod.walk()
    assert not any([await cluster.store.live(register) for register in left])
    assert pod.told.strays_removed == 2


async def test_a_bucket_that_nobody_is_known_to_have_deleted_is_left_alone(cluster: MemoryCluster) -> None:
    """Its document may have been lost."""
    left = await stray(cluster, b"who knows it? us")
    await cluster.clock.sleep(SETTLED_MS / 1000)
    pod = Pod(cluster)
    await pod.walk()
    assert all([await cluster.store.live(register) for register in left])
    assert (pod.told.strays_removed, pod.told.unknown_buckets) == (0, 1)


async def test_a_bucket_whose_deletion_was_given_up_keeps_its_objects(cluster: MemoryCluster) -> None:
    bucket = await make_bucket(cluster)
    await cluster.put("k", b"x")
    pod = Pod(cluster)
    await remember_deleted(pod.services, bucket)
    await cluster.clock.sleep(SETTLED_MS / 1000)
    await pod.walk()
    assert await keys(cluster) == ["k"]


async def test_a_record_that_cannot_be_read_holds_up_nothing_else(cluster: MemoryCluster) -> None:
    """A later release wrote it, say, and this one came back."""
    await make_bucket(cluster, rule(days=1))
    await cluster.put("a", b"x")
    await cluster.put("c", b"x")
    held = Held(
        cluster.store.set_of(object_register(BUCKET, "b")).next_stamp(), False, b"HfO\x7f of a later release", -1, None
    )
    request = CommitRequest(object_register(BUCKET, "b"), held, CommitMode.PLAIN)
    assert (await cluster.drives[0].commit(request)).status is CommitStatus.OK
    await cluster.clock.sleep(DAY_SECONDS)
    pod = Pod(cluster)
    await pod.walk()
    assert pod.told.expired["expired"] == 2
    assert pod.told.last_pass_ended_ms
