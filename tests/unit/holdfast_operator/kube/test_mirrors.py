"""Reads from memory: what they spare, what they announce, and when they are not to be believed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from holdfast_operator import labels
from holdfast_operator.kube import cache
from holdfast_operator.kube.cache import MirroredKubeClient
from holdfast_operator.kube.errors import KubeConflict, KubeUnavailable, WatchExpired
from holdfast_operator.kube.fence import FencedKubeClient
from holdfast_operator.kube.port import POD, SECRET, TENANT, Kind, Manifest, WatchEvent
from holdfast_operator.testing.memory_kube import MemoryKubeClient

NEWER = 1000
"""Added to a version, it is later than all that the cluster in memory gives."""


def manifest(kind: Kind, name: str, tenant: str = "logs", version: int | None = None, **more: Any) -> Manifest:
    metadata: dict[str, Any] = {"name": name, "namespace": "loki", "labels": labels.tenant_labels(tenant)}
    if version is not None:
        metadata |= {"resourceVersion": str(version), "uid": "u"}
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, **more}


class Source:
    """`KubeWatcher` over the cluster in memory; streams say what the test puts into them."""

    def __init__(self, kube: MemoryKubeClient) -> None:
        self.kube = kube
        self.streams: dict[str, asyncio.Queue[WatchEvent | Exception]] = {}
        self.lists = self.begun = 0
        self.down = False
        self.ending: Exception | None = None
        """How watches end as soon as they are begun, where that is given."""
        self.expiring_lists = 0
        """How many lists of Secrets are too old by their second page."""

    async def list_for_watch(self, kind: Kind, namespace: str | None, selector: str) -> tuple[list[Manifest], str]:
        if self.down:
            raise KubeUnavailable("no answer")
        self.lists += kind == SECRET
        if kind == SECRET and self.lists <= self.expiring_lists:
            raise WatchExpired("410: the continue parameter is too old")
        return await self.kube.list_objects(kind, namespace), "1"

    async def watch(
        self, kind: Kind, namespace: str | None, selector: str, resource_version: str
    ) -> AsyncIterator[WatchEvent]:
        if self.down:
            raise KubeUnavailable("no answer")
        stream = self.streams[kind.kind] = asyncio.Queue()
        yield WatchEvent("BOOKMARK", {"metadata": {"resourceVersion": resource_version}})
        if self.ending is not None:
            self.begun += kind == SECRET
            await asyncio.sleep(0)
            if isinstance(self.ending, EOFError):
                return
            raise self.ending
        while True:
            event = await stream.get()
            if isinstance(event, Exception):
                raise event
            yield event

    def tell(self, kind: Kind, event: WatchEvent | Exception) -> None:
        self.streams[kind.kind].put_nowait(event)


class Bench:
    def __init__(self) -> None:
        self.kube = MemoryKubeClient()
        self.source = Source(self.kube)
        self.announced: list[str] = []
        self.reads: list[str] = []
        self.now = 0.0
        self.client = MirroredKubeClient(
            self.kube, self.kube, self.source, (), lambda space, name: self.announced.append(name), lambda: self.now
        )

    def count_reads(self) -> None:
        self.kube.fail_on = lambda verb, kind, name: (
            self.reads.append(f"{verb} {kind}") if verb in ("get", "list") else None
        )

    async def secrets(self) -> list[str]:
        found = await self.client.list_objects(SECRET, "loki", labels.tenant_labels("logs"))
        return [item["metadata"]["name"] for item in found]


async def until(check: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not check():
            await asyncio.sleep(0.001)


@asynccontextmanager
async def mirrored(bench: Bench) -> AsyncIterator[None]:
    task = asyncio.create_task(bench.client.run())
    await until(lambda: len(bench.source.streams) == len(cache.SCOPES))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(cache, "FIRST_RETRY_SECONDS", 0.001)
    monkeypatch.setattr(cache, "LAST_RETRY_SECONDS", 0.001)
    return Bench()


async def test_what_is_mirrored_is_read_without_a_request(bench: Bench) -> None:
    bench.kube.put(manifest(SECRET, "logs-root"))
    bench.kube.put(manifest(SECRET, "other-root", "other"))
    async with mirrored(bench):
        bench.count_reads()
        assert await bench.secrets() == ["logs-root"]
        found = await bench.client.get(SECRET, "loki", "logs-root")
        assert found is not None
        assert (found["apiVersion"], found["kind"]) == ("v1", "Secret")
        assert bench.reads == []


async def test_a_reader_cannot_change_what_others_read(bench: Bench) -> None:
    bench.kube.put(manifest(SECRET, "logs-root", data={"a": "1"}))
    async with mirrored(bench):
        (await bench.client.list_objects(SECRET, "loki", labels.tenant_labels("logs")))[0]["data"]["a"] = "2"
        assert (await bench.client.list_objects(SECRET, "loki", labels.tenant_labels("logs")))[0]["data"] == {"a": "1"}


async def test_an_absence_is_believed_only_of_a_kind_that_is_mirrored_whole(bench: Bench) -> None:
    async with mirrored(bench):
        bench.count_reads()
        assert await bench.client.get(TENANT, "loki", "logs") is None
        assert bench.reads == []
        bench.kube.put({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mine", "namespace": "loki"}})
        assert await bench.client.get(SECRET, "loki", "mine") is not None
        assert bench.reads == ["get Secret"]


async def test_the_operator_reads_what_it_wrote_and_is_not_told_of_it(bench: Bench) -> None:
    async with mirrored(bench):
        written = await bench.client.apply(manifest(SECRET, "logs-root"))
        bench.announced.clear()
        assert await bench.secrets() == ["logs-root"]
        bench.source.tell(SECRET, WatchEvent("ADDED", written))
        bench.source.tell(POD, WatchEvent("ADDED", manifest(POD, "p", "marker", 5)))
        await until(lambda: "marker" in bench.announced)
        await asyncio.sleep(0.01)
        assert "logs" not in bench.announced


async def test_an_older_event_replaces_nothing_but_is_announced(bench: Bench) -> None:
    """Between what the operator read and what it wrote somebody else may have written."""
    async with mirrored(bench):
        written = await bench.client.apply(manifest(SECRET, "logs-root", data={"a": "new"}))
        older = int(written["metadata"]["resourceVersion"]) - 1
        bench.announced.clear()
        bench.source.tell(
            SECRET, WatchEvent("MODIFIED", manifest(SECRET, "logs-root", version=older, data={"a": "old"}))
        )
        await until(lambda: bench.announced == ["logs"])
        assert (await bench.client.get(SECRET, "loki", "logs-root") or {})["data"] == {"a": "new"}


async def test_the_late_answer_to_a_write_does_not_bring_back_what_is_gone(bench: Bench) -> None:
    bench.kube.put(manifest(SECRET, "logs-root"))
    async with mirrored(bench):
        bench.announced.clear()
        bench.source.tell(SECRET, WatchEvent("DELETED", manifest(SECRET, "logs-root", version=NEWER)))
        await until(lambda: bench.announced)
        await bench.client.apply(manifest(SECRET, "logs-root"))
        assert await bench.secrets() == []
        bench.source.tell(SECRET, WatchEvent("ADDED", manifest(SECRET, "logs-root", version=NEWER + 1)))
        bench.announced.clear()
        await until(lambda: bench.announced)
        assert await bench.secrets() == ["logs-root"]


async def test_after_a_gap_everything_is_listed_again_and_what_vanished_is_announced(bench: Bench) -> None:
    bench.kube.put(manifest(SECRET, "logs-root"))
    bench.kube.put(manifest(SECRET, "old-root", "old"))
    async with mirrored(bench):
        bench.kube.remove(("Secret", "loki", "old-root"))
        bench.kube.put(manifest(SECRET, "new-root", "new"))
        bench.announced.clear()
        bench.source.tell(SECRET, WatchExpired("410"))
        await until(lambda: bench.source.lists == 2)
        await until(lambda: {"old", "new"} <= set(bench.announced))
        assert "logs" not in bench.announced
        assert await bench.client.list_objects(SECRET, "loki", labels.tenant_labels("old")) == []


@pytest.mark.parametrize("ending", [WatchExpired("410: too old"), EOFError()])
async def test_watches_that_end_at_once_are_begun_anew_in_peace(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, ending: Exception
) -> None:
    """Each costs an API server that is in trouble a list of everything; or a proxy closes what it has just opened."""
    monkeypatch.setattr(cache, "FIRST_RETRY_SECONDS", 3600.0)
    bench.source.ending = ending
    async with mirrored(bench):
        await until(lambda: bench.source.begun)
        for _ in range(200):
            await asyncio.sleep(0)
        assert (bench.source.begun, bench.source.lists) == (1, 1)


async def test_a_list_that_is_too_old_by_its_second_page_is_begun_anew(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "FIRST_RETRY_SECONDS", 0.0)
    bench.source.expiring_lists = 2
    bench.kube.put(manifest(SECRET, "logs-root"))
    async with mirrored(bench):
        await until(lambda: bench.source.lists == 3)
        assert len(await bench.client.list_objects(SECRET, "loki", labels.tenant_labels("logs"))) == 1


async def test_a_mirror_that_has_been_cut_off_for_long_is_not_asked(bench: Bench) -> None:
    bench.kube.put(manifest(SECRET, "logs-root"))
    bench.kube.put(manifest(SECRET, "other-root", "other"))
    async with mirrored(bench):
        bench.count_reads()
        bench.source.down = True
        bench.source.tell(SECRET, KubeUnavailable("reset"))
        await asyncio.sleep(0.02)
        assert await bench.secrets() == ["logs-root"]
        assert bench.reads == [], "a short gap is no reason to go to the API server"
        bench.now += cache.STALE_SECONDS
        assert await bench.secrets() == ["logs-root"]
        assert bench.reads == ["list Secret"]
        bench.announced.clear()
        bench.source.down = False
        await until(lambda: set(bench.announced) == {"logs", "other"})
        bench.reads.clear()
        assert await bench.secrets() == ["logs-root"]
        assert bench.reads == []


async def test_before_the_first_list_reads_go_to_the_api_server(bench: Bench) -> None:
    bench.kube.put(manifest(SECRET, "logs-root"))
    bench.source.down = True
    task = asyncio.create_task(bench.client.run())
    bench.count_reads()
    assert await bench.secrets() == ["logs-root"]
    assert bench.reads == ["list Secret"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_versions_that_are_no_numbers_are_not_mirrored(bench: Bench) -> None:
    kept = bench.kube.put(manifest(SECRET, "logs-root"))
    bench.kube.objects["Secret", "loki", "logs-root"]["metadata"]["resourceVersion"] = "abc"
    assert kept
    task = asyncio.create_task(bench.client.run())
    await until(lambda: bench.source.lists > 2)
    bench.count_reads()
    assert await bench.secrets() == ["logs-root"]
    assert bench.reads == ["list Secret"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_without_the_lease_nothing_is_written_and_everything_read() -> None:
    kube = MemoryKubeClient()
    held = True
    client = FencedKubeClient(kube, lambda: held)
    stored = await client.apply(manifest(SECRET, "logs-root"))
    held = False
    assert await client.get(SECRET, "loki", "logs-root") == stored
    writes = [
        client.apply(stored),
        client.create(manifest(SECRET, "x")),
        client.merge(stored, {}),
        client.delete(stored),
        client.evict("loki", "p"),
        client.patch_status(TENANT, "loki", "logs", {}),
    ]
    before = list(kube.calls)
    for write in writes:
        with pytest.raises(KubeUnavailable, match="lease"):
            await write
    assert kube.calls == before


async def test_an_apply_at_a_version_changes_no_other_one() -> None:
    kube = MemoryKubeClient()
    stored = await kube.apply(manifest(SECRET, "logs-root", data={"a": "1"}))
    read = stored["metadata"]["resourceVersion"]
    wanted = manifest(SECRET, "logs-root", data={"a": "2"})
    wanted["metadata"]["resourceVersion"] = read
    await kube.apply(wanted)
    with pytest.raises(KubeConflict):
        await kube.apply(wanted)
