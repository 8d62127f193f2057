"""One erasure set of memory drives under a real object store, with a hook before every call on a drive.

For tests of the object layer: take drives away, make call *n* fail, watch what stays staged.  `BytesBody` is a
body whose bytes and refusals the test chooses.

Not here: several coordinators and lost messages (`unreliable_network`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import md5
from typing import Any, cast

from holdfast_server.clock.port import Clock
from holdfast_server.clock.stamp import HybridClock
from holdfast_server.contract.config import ErasureConfig, KeyFiles, PoolConfig, ServerConfig, TenantConfig
from holdfast_server.drives import keys
from holdfast_server.drives.port import Drive, DriveOffline, DriveState, DriveStatus, Register
from holdfast_server.objects.erasure_set import ErasureSet
from holdfast_server.objects.port import Attributes, Digest, Filler, Versioning
from holdfast_server.objects.record import object_register
from holdfast_server.objects.store import ObjectStore
from holdfast_server.placement.map import PoolMap
from holdfast_server.testing.memory_drive import MemoryDrive
from holdfast_server.testing.virtual_time import AtOnce

BUCKET = b"the bucket's id."

Hook = Callable[[int, str, tuple[Any, ...]], Awaitable[None]]
"""Called with position, verb and arguments before the call reaches the drive; may raise or take its time."""


class CutOff:
    """A hook: after so many calls nothing reaches any drive, as if the coordinator were dead."""

    def __init__(self, after_calls: int) -> None:
        self._left = after_calls

    async def __call__(self, position: int, verb: str, arguments: tuple[Any, ...]) -> None:
        self._left -= 1
        if self._left < 0:
            raise DriveOffline("the coordinator is dead")

    @property
    def spared(self) -> bool:
        """Whether every call has got through."""
        return self._left >= 0


class BytesBody:
    """A body; `chunk_size_bytes` cuts it, `failure` is raised after the bytes, `refusal` by `finish`."""

    def __init__(
        self,
        data: bytes,
        *,
        chunk_size_bytes: int = 300_000,
        failure: Exception | None = None,
        refusal: Exception | None = None,
        headers: dict[str, str] | None = None,
        versioning: Versioning = Versioning.OFF,
        fills: bool = False,
        fails_after_fills: int = 0,
    ) -> None:
        """`fills`: it is received in place, and raises its failure after so many pieces of stripes."""
        self.size_bytes: int | None = len(data)
        self.filler: Filler | None = self if fills else None
        self._filled = 0
        self._fills_left = fails_after_fills
        self._md5 = md5(usedforsecurity=False)
        self.digests: Sequence[Digest] = (self._md5,)
        self.finished = 0
        self._data = data
        self._chunk_size_bytes = chunk_size_bytes
        self._failure = failure
        self._refusal = refusal
        self._headers = headers or {}
        self._versioning = versioning

    async def fill(self, targets: Sequence[memoryview], go_on: Callable[[], bool]) -> int:
        for full, target in enumerate(targets, 1):
            if self._failure is not None:
                self._fills_left -= 1
                if self._fills_left < 0 or self._filled + len(target) == len(self._data):
                    raise self._failure
            target[:] = self._data[self._filled : self._filled + len(target)]
            self._filled += len(target)
            if not go_on():
                return full
        return len(targets)

    async def chunks(self) -> AsyncIterator[bytes | memoryview]:
        view = memoryview(self._data)
        for start in range(0, len(view), self._chunk_size_bytes):
            yield view[start : start + self._chunk_size_bytes]
        if self._failure is not None:
            raise self._failure

    def finish(self) -> Attributes:
        self.finished += 1
        if self._refusal is not None:
            raise self._refusal
        return Attributes(etag=self._md5.hexdigest(), headers=self._headers, versioning=self._versioning)


class HookedDrive:
    """`drives.port.Drive`: another one, with the cluster's hook before each call."""

    local = True

    def __init__(self, drive: MemoryDrive, cluster: MemoryCluster) -> None:
        self.pool, self.set_index, self.position = drive.pool, drive.set_index, drive.position
        self._drive = drive
        self._cluster = cluster

    @property
    def state(self) -> DriveState:
        return self._drive.state

    def status(self) -> DriveStatus:
        return self._drive.status()

    @property
    def repair_queue_length(self) -> int:
        return self._drive.repair_queue_length

    def __getattr__(self, verb: str) -> Callable[..., Awaitable[Any]]:
        if verb.startswith("_"):
            raise AttributeError(verb)
        method = getattr(self._drive, verb)

        async def call(*arguments: Any) -> Any:
            # A commit is a commit, with its shard or without.
            told = "commit" if verb == "commit_with_shard" else verb
            self._cluster.calls.append((self.position, told))
            if self._cluster.hook is not None:
                await self._cluster.hook(self.position, told, arguments)
            return await method(*arguments)

        return call


class MemoryCluster:
    """One pool, `sets` erasure sets of `set_size` drives each."""

    def __init__(self, clock: Clock, set_size: int = 4, parity: int = 2, sets: int = 1) -> None:
        self.clock = clock
        self.pools = _pools(set_size, parity, sets)
        self.by_set = [
            [MemoryDrive(clock, set_index=s, position=p, drive_id=bytes((s, p)) * 8) for p in range(set_size)]
            for s in range(sets)
        ]
        self.hook: Hook | None = None
        self.calls: list[tuple[int, str]] = []
        self._hooked: list[list[Drive]] = [
            [cast(Drive, HookedDrive(drive, self)) for drive in drives] for drives in self.by_set
        ]
        self._stores: list[ObjectStore] = []
        self.store = self.new_store()

    def new_store(self) -> ObjectStore:
        """Another coordinator over the same drives."""
        node = len(self._stores)
        store = ObjectStore(self.pools, lambda _, index: self._hooked[index], self.clock, HybridClock(node), AtOnce())
        self._stores.append(store)
        return store

    @property
    def drives(self) -> list[MemoryDrive]:
        return self.by_set[0]

    def reap(self) -> int:
        """Of every drive what is due; how many shards."""
        return sum(drive.reap() for drive in self.drives)

    async def settle(self) -> None:
        """Everything in the background has ended."""
        for store in self._stores:
            await store.background.drained()

    async def close(self) -> None:
        for store in self._stores:
            await store.close()

    # ---------------------------------------------------------------- what tests say most

    async def put(self, key: str, data: bytes, **more: Any) -> None:
        await self.store.put_object(BUCKET, key, BytesBody(data, **more))

    async def get(self, key: str, start: int = 0, length: int | None = None) -> bytes | None:
        reader = await self.store.open_object(BUCKET, key)
        if reader is None:
            return None
        wanted = reader.record.size_bytes - start if length is None else length
        return b"".join([bytes(chunk) async for chunk in reader.chunks(start, wanted)])

    def set_of(self, key: str) -> ErasureSet:
        return self.store.set_of(object_register(BUCKET, key))

    async def heal(self, key: str, verify: bool = False) -> bool:
        """One pass; whether the object is whole."""
        healed = await self.store.heal(self.set_of(key), object_register(BUCKET, key), verify)
        await self.settle()
        return healed.whole

    def stamps(self, register: Register) -> list[list[int]]:
        """What each drive of the first set holds, by position."""
        row = keys.row_key(register)
        return [[h.stamp for h in d._states[row].records] if row in d._states else [] for d in self.drives]

    def unnamed_shards(self) -> set[bytes]:
        """Shards on any drive that no record there names and nobody is about to reclaim."""
        return {
            data_id
            for drives in self.by_set
            for drive in drives
            for data_id in drive.shard_ids() - drive.named_shards() - set(drive._trash)
        }

    @contextmanager
    def away(self, *positions: int) -> Iterator[None]:
        """These drives of the first set are offline, and known to be."""
        for position in positions:
            self.drives[position].offline = True
        try:
            yield
        finally:
            for position in positions:
                self.drives[position].offline = False


def _pools(set_size: int, parity: int, sets: int) -> PoolMap:
    pool = PoolConfig(
        name="main",
        servers=set_size,
        volumes_per_server=sets,
        erasure=ErasureConfig(set_size=set_size, parity=parity),
        pod_name_prefix="pod-",
        drive_path="/data{volume}",
    )
    key_files = KeyFiles(root_user_file="", root_password_file="", peer_key_file="")
    return PoolMap(ServerConfig(tenant=TenantConfig(id="tenant", name="tenant"), pools=[pool], keys=key_files))
