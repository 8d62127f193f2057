"""The object store: the façade of this package (`objects.port.Objects`), and the wiring of its parts.

A call finds the erasure sets where its key may be (`placement`), for most keys one, then reads or writes one register
over them (`look_up`, `erasure_set`), its shards through `writing` and `reading`.  Multipart uploads add `multipart`.

Invariants kept here: a drive has its shard staged before it is offered the record that names it; a write that
fails leaves no staged shards behind; what is found bad or missing while reading is healed in the background.

Not here: S3 (`api`), background repair (`heal`), who the peers are (`wiring` hands in the drives).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import aclosing
from typing import Any, TypeVar

import msgspec

from holdfast_server.clock.bounds import TimeBounds
from holdfast_server.clock.port import Clock
from holdfast_server.clock.stamp import HybridClock
from holdfast_server.contract import geometry
from holdfast_server.contract.geometry import Quorums
from holdfast_server.drives.port import HIDDEN_INDEX, MAX_SCAN_ENTRIES, NO_SHARD, Drive, Held, Register
from holdfast_server.erasure.codec import Codec, codec
from holdfast_server.memory.pod_memory import PodMemory
from holdfast_server.objects import quorum, record, resolving
from holdfast_server.objects.amending import Change, amend
from holdfast_server.objects.background import Background
from holdfast_server.objects.coding import coding_threads, digesting_threads
from holdfast_server.objects.epochs import Epochs
from holdfast_server.objects.erasure_set import Committed, Deliver, ErasureSet, Refill, bare
from holdfast_server.objects.foreground import Foreground
from holdfast_server.objects.healing import Healed, Healer
from holdfast_server.objects.listing import Run, Walk, start_after
from holdfast_server.objects.look_up import LookUp
from holdfast_server.objects.merged_listing import walk_placed, walk_sets
from holdfast_server.objects.multipart import Uploads
from holdfast_server.objects.port import (
    Attributes,
    Body,
    Condition,
    Listed,
    Listing,
    ObjectError,
    PartRef,
    Reader,
    Redundancy,
    UploadInfo,
    Versioning,
    VersionListing,
)
from holdfast_server.objects.read_repair import ReadRepair
from holdfast_server.objects.reading import ObjectReader, ShardReader, join_inline
from holdfast_server.objects.record import INLINE_LIMIT_BYTES, Extent, Geometry, Kind, Record, VersionInfo, place_of
from holdfast_server.objects.sealed import key_of_extent
from holdfast_server.objects.sources import order_sources
from holdfast_server.objects.version_listing import list_versions
from holdfast_server.objects.versions import Versions, marker_over
from holdfast_server.objects.writing import Carried, ShardWriter, Staged
from holdfast_server.placement.map import PoolMap, SetId
from holdfast_server.sealing.chunks import ChunkSealer
from holdfast_server.sealing.envelope import Seal, Sealing

T = TypeVar("T")


class ObjectStore:
    """Implements `objects.port.Objects` over the drives of a tenant."""

    def __init__(
        self,
        pools: PoolMap,
        drives: Callable[[str, int], list[Drive]],
        clock: Clock,
        stamps: HybridClock,
        coding: Executor | None = None,
        memory: PodMemory | None = None,
        bounds: TimeBounds | None = None,
    ) -> None:
        """`drives(pool, set index)` gives the N drives of a set in position order, local and remote alike.
        `coding` are the threads that code and digest, ended by `close`; by default it makes its own.  `memory` is what
        reads and writes take their bytes from; by default one with the usual limits.  By `bounds` locks end; by default
        the pod's own clock is the only one."""
        self.memory = memory or PodMemory()
        self.clock = clock
        self.bounds = bounds or TimeBounds(clock)
        self.epochs = Epochs(pools, clock)
        self.background = Background(self.memory.limits.background_tasks)
        self._drives = drives
        self._stamps = stamps
        self._executor = coding or coding_threads()
        self._digesting = coding or digesting_threads()
        self.healer = Healer(clock, self._executor)
        self.foreground = Foreground()
        self.read_repair = ReadRepair(self.background)
        self._sets: dict[SetId, ErasureSet] = {}
        self._uploads = Uploads(self)
        self.versions = Versions(self)

    async def close(self) -> None:
        await self.background.close()
        self._executor.shutdown(wait=True)
        self._digesting.shutdown(wait=True)

    # ---------------------------------------------------------------- placement

    @property
    def pools(self) -> PoolMap:
        """The map in force; another is put in its place through `epochs`."""
        return self.epochs.pools

    def set_of(self, register: Register) -> ErasureSet:
        """Where a register is written now."""
        return self.erasure_set(self.pools.write_set(register.space[1:], register.key))

    def look_up(self, register: Register) -> LookUp:
        """The register over all sets where it may be."""
        return self._look_up(register, self.pools)

    def look_up_in(self, erasure_set: ErasureSet, register: Register) -> LookUp:
        """A register that can be in no other set, whatever the map says: what rests does so where its shards are."""
        return LookUp(register, [erasure_set], self.clock, self.background)

    def _look_up(self, register: Register, pools: PoolMap) -> LookUp:
        sets = [self.erasure_set(set_id) for set_id in pools.look_up_sets(register.space[1:], register.key)]
        return LookUp(register, sets, self.clock, self.background)

    def erasure_set(self, set_id: SetId) -> ErasureSet:
        found = self._sets.get(set_id)
        if found is None:
            found = self._sets[set_id] = ErasureSet(
                set_id,
                self.pools.quorums(set_id),
                lambda: self._drives(set_id.pool, set_id.index),
                self.clock,
                self._stamps,
                self.background,
                self.healer,
            )
        return found

    def all_sets(self) -> list[ErasureSet]:
        return [self.erasure_set(set_id) for set_id in self.pools.all_sets()]

    def numbers(self, erasure_set: ErasureSet, redundancy: Redundancy) -> Quorums:
        """Of what is written into that set now."""
        if redundancy is Redundancy.REDUCED:
            return self.pools.reduced_quorums(erasure_set.set_id)
        return erasure_set.quorums

    def rotation(self, register: Register, erasure_set: ErasureSet) -> int:
        return self.pools.rotation(register.space[1:], register.key, erasure_set.quorums.set_size)

    def new_id(self) -> bytes:
        return self.clock.random_bytes(16)

    # ---------------------------------------------------------------- objects

    async def put_object(
        self,
        bucket_id: bytes,
        key: str,
        body: Body,
        condition: Condition | None = None,
        seal: Seal | None = None,
        redundancy: Redundancy = Redundancy.FULL,
    ) -> Record:
        register = record.object_register(bucket_id, key)
        return await self.write_body(register, Kind.OBJECT, body, condition, seal=seal, redundancy=redundancy)

    async def write_body(
        self,
        register: Register,
        kind: Kind,
        body: Body,
        condition: Condition | None = None,
        inline_limit_bytes: int = INLINE_LIMIT_BYTES,
        home: ErasureSet | None = None,
        seal: Seal | None = None,
        number: int = 0,
        redundancy: Redundancy = Redundancy.FULL,
        like: Geometry | None = None,
    ) -> Record:
        """Stage a body and commit the record that names it.  `home`: as for `commit_record`; `number`: of a part;
        `like`: cut as that says, and not by `redundancy` as it is now."""
        erasure_set = home or self.set_of(register)
        rotation = self.rotation(register, erasure_set)
        numbers = self.numbers(erasure_set, redundancy)
        if like is not None:
            numbers = geometry.quorums(erasure_set.quorums.set_size, like.parity_shards)
        code = codec(numbers.data_shards, numbers.parity_shards)
        data_id = self.new_id()
        sealer = ChunkSealer(key_of_extent(seal, data_id, number)) if seal is not None else None
        writer = ShardWriter(
            code, numbers.write_quorum, self._executor, self._digesting, self.background, self.memory.writes, sealer
        )
        targets = erasure_set.require_write_quorum(numbers)

        def versioning_of(attributes: Attributes) -> Versioning:
            return attributes.versioning if kind is Kind.OBJECT else Versioning.OFF

        def may_carry(attributes: Attributes) -> bool:
            # Elsewhere something else is done to the register first, which had better not be in vain.
            return condition is None and versioning_of(attributes) is Versioning.OFF

        staged = await writer.write(body, targets, rotation, data_id, inline_limit_bytes, may_carry)
        template = _record_of(kind, staged, code, seal)

        def make(template: Record) -> Made:
            return self.made(template, erasure_set, staged.positions, rotation, staged.inline)

        async def commit() -> Record:
            holding: frozenset[int] = frozenset()
            try:
                versioning = versioning_of(staged.attributes)
                if versioning is Versioning.OFF:
                    made = make(template)
                    committed = await self._commit(
                        register, erasure_set, home is not None, condition, made, carried=staged.carried
                    )
                else:
                    made, committed = await self._make_current(
                        register, erasure_set, template, versioning, make, condition
                    )
                holding = committed.positions
            finally:
                if staged.carried is not None:
                    staged.carried.close()
                # Undecided, refused, or not by all: a drive that named the shards in a record keeps them
                # whatever it is told, others let go.
                others = {p: targets[p] for p in staged.positions - holding}
                if staged.data_id and others:
                    self.background.spawn(writer.discard(others, staged.data_id))
            return made.record(committed.stamp)

        return await self.background.shielded(commit())

    async def commit_record(
        self,
        register: Register,
        template: Record,
        condition: Condition | None = None,
        home: ErasureSet | None = None,
    ) -> Record:
        """Commit a record without shards; returns it as it was committed.

        `home`: the one set where this register can be, whatever the map says (an upload, a part of one).
        """
        erasure_set = home or self.set_of(register)
        made = self.made(template, erasure_set)
        write = self._commit(register, erasure_set, home is not None, condition, made)
        committed = await self.background.shielded(write)
        return made.record(committed.stamp)

    async def commit_object(
        self,
        register: Register,
        into: ErasureSet,
        template: Record,
        condition: Condition | None,
        refill: Refill,
        inline: Sequence[bytes] = (),
        versioning: Versioning = Versioning.OFF,
    ) -> Record:
        """Commit an object whose shards are in place already, in the set where they are, or `inline`."""

        def make(template: Record) -> Made:
            return self.made(template, into, rotation=self.rotation(register, into), inline=inline)

        if versioning is not Versioning.OFF:
            made, committed = await self._make_current(register, into, template, versioning, make, condition, refill)
        else:
            made = make(template)
            committed = await self._commit(register, into, False, condition, made, refill)
        return made.record(committed.stamp)

    async def _make_current(
        self,
        register: Register,
        into: ErasureSet,
        template: Record,
        versioning: Versioning,
        make: Callable[[Record], Made],
        condition: Condition | None,
        refill: Refill | None = None,
    ) -> tuple[Made, Committed]:
        """`_commit`, where what is current is kept."""
        with self.epochs.writing():
            write = self.versions.write(register, into, template, versioning, make, condition, refill)
            return await self._timed(self.foreground.committed, write)

    async def _commit(
        self,
        register: Register,
        into: ErasureSet,
        alone: bool,
        condition: Condition | None,
        made: Made,
        refill: Refill | None = None,
        carried: Carried | None = None,
    ) -> Committed:
        """By the map of now, which may have changed since the body began; `into` is a look-up set of it all the same.

        `alone`: no other set can have this register.
        """
        took = self.foreground.committed
        deliver: Deliver = bare
        if carried is not None:
            took, deliver = self.foreground.carried_along, carried.deliver
        with self.epochs.writing() as pools:
            placed = self.look_up_in(into, register) if alone else self._look_up(register, pools)
            return await self._timed(took, placed.write(into, condition, made, refill, deliver))

    def made(
        self,
        template: Record,
        erasure_set: ErasureSet,
        positions: frozenset[int] | None = None,
        rotation: int = 0,
        inline: Sequence[bytes] = (),
    ) -> Made:
        size = erasure_set.quorums.set_size
        chosen = frozenset(range(size)) if positions is None else positions
        return Made(self.clock, template, chosen, size, rotation, inline)

    async def head_object(self, bucket_id: bytes, key: str, version: bytes | None = None) -> Record | None:
        found = await self._timed(self.foreground.looked_up, self.versions.find(bucket_id, key, version))
        return found.record if found is not None else None

    async def live(self, register: Register) -> Record | None:
        """The current version if it is not a tombstone."""
        return (await self._timed(self.foreground.looked_up, self.look_up(register).read())).live

    async def open_object(self, bucket_id: bytes, key: str, version: bytes | None = None) -> Reader | None:
        looked_up = self.versions.find(bucket_id, key, version, with_inline=True)
        version_found = await self._timed(self.foreground.looked_up, looked_up)
        if version_found is None:
            return None
        register, found = version_found.register, version_found.record
        erasure_set, current = version_found.located.erasure_set, version_found.located.current
        if not found.size_bytes or found.geometry is None:
            return ObjectReader(found, None, [])
        code = codec(found.geometry.data_shards, found.geometry.parity_shards)
        if found.inline:
            return ObjectReader(found, None, join_inline(code, found, current.holders), executor=self._executor)
        drives = erasure_set.drives()
        sources = order_sources(current.holders, drives, code.data_shards)
        shards = ShardReader(
            code,
            sources,
            found.geometry.stripe_size_bytes,
            self.clock,
            lambda: self._heal_later(erasure_set, register),
        )
        return ObjectReader(found, shards, [], self.memory.reads, self._executor)

    def _heal_later(self, erasure_set: ErasureSet, register: Register) -> None:
        self.read_repair.ask_for(register, lambda: self.heal(erasure_set, register, verify=True))

    async def _timed(self, took: Callable[[float, float], None], work: Coroutine[Any, Any, T]) -> T:
        """Requests' waits for records are what background work goes by."""
        began = self.clock.monotonic_seconds()
        try:
            return await work
        finally:
            now = self.clock.monotonic_seconds()
            took(now - began, now)

    async def heal(
        self,
        erasure_set: ErasureSet,
        register: Register,
        verify: bool = False,
        replies: quorum.Replies | None = None,
    ) -> Healed:
        return await self.healer.heal(erasure_set, register, verify, replies)

    async def resolve(self, register: Register, keep: bool) -> str:
        """A person's decision about a register that is stuck (`resolving`); what came of it, for people.

        Raises Missing where nothing is stuck, Conflict where the decision cannot be carried out, Unavailable.
        """
        erasure_set, stuck = await resolving.find_stuck(self.healer, self.all_sets(), register)
        if stuck.committed and await self.look_up(register).give_up(erasure_set, stuck.stamp):
            # Its coordinator did not come to that, and nobody who reads can.  A deletion now would be newer than both.
            return "given up: another pool has a newer version"
        if keep:
            return await resolving.keep(self.healer, erasure_set, register, stuck)

        def in_place_of(found: Record) -> Made:
            # Without a current version a key has none at all (`versions`), and the others are not given up.
            current = register.space[:1] == record.OBJECT_SPACE and found.version is not None
            return self.made(marker_over(found) if current else Record(Kind.TOMBSTONE, 0), erasure_set)

        return await self.background.shielded(resolving.discard(self.healer, erasure_set, register, stuck, in_place_of))

    async def delete_object(
        self,
        bucket_id: bytes,
        key: str,
        condition: Condition | None = None,
        versioning: Versioning = Versioning.OFF,
    ) -> Record | None:
        register = record.object_register(bucket_id, key)
        if versioning is not Versioning.OFF:
            return await self.background.shielded(self._mark_deleted(register, versioning, condition))
        if condition is None:
            try:
                there = (await self.look_up(register).read()).live
            except ObjectError:
                pass  # undecided now; a tombstone above it all decides it
            else:
                if there is not None:
                    await self.commit_record(register, Record(Kind.TOMBSTONE, 0))
                return there
        await self.commit_record(register, Record(Kind.TOMBSTONE, 0), condition)
        return None

    async def _mark_deleted(self, register: Register, versioning: Versioning, condition: Condition | None) -> Record:
        into = self.set_of(register)
        marker = Record(Kind.OBJECT, 0, version=VersionInfo(marker=True))
        made, committed = await self._make_current(
            register, into, marker, versioning, lambda template: self.made(template, into), condition
        )
        return made.record(committed.stamp)

    async def delete_version(
        self,
        bucket_id: bytes,
        key: str,
        version: bytes,
        condition: Condition | None = None,
        bypass_governance: bool = False,
    ) -> Record | None:
        async def delete() -> Record | None:
            with self.epochs.writing():
                return await self.versions.delete(bucket_id, key, version, condition, bypass_governance)

        return await self.background.shielded(delete())

    async def list_versions(
        self,
        bucket_id: bytes,
        *,
        prefix: str = "",
        delimiter: str = "",
        after: str = "",
        after_version: bytes = b"",
        limit: int = 1000,
    ) -> VersionListing:
        return await list_versions(self, bucket_id, prefix, delimiter, after, after_version, limit)

    async def amend_object(
        self, bucket_id: bytes, key: str, change: Change, version: bytes | None = None
    ) -> Record | None:
        return await amend(self, bucket_id, key, change, version)

    async def list_objects(
        self, bucket_id: bytes, *, prefix: str = "", delimiter: str = "", after: str = "", limit: int = 1000
    ) -> Listing:
        return await self._list(record.OBJECT_SPACE + bucket_id, prefix, delimiter, after, limit)

    async def _list(self, space: bytes, prefix: str, delimiter: str, after: str, limit: int) -> Listing:
        entries: list[Listed] = []
        prefixes: list[str] = []
        walk = Walk(
            space,
            prefix.encode(),
            delimiter.encode(),
            start_after(prefix, delimiter, after),
            page_size=max(1, min(limit + 1, MAX_SCAN_ENTRIES)),
        )
        async with aclosing(self.walk(walk)) as runs:
            async for run in runs:
                room = limit - len(entries) - len(prefixes)
                for found in run[:room]:
                    last = found
                    if found.group:
                        prefixes.append(found.group.decode())
                    elif found.record is not None:
                        entries.append(Listed(found.register.key, found.record, found.register.version))
                if len(run) > room:
                    return Listing(entries, prefixes, last.group.decode() or last.register.key)
        return Listing(entries, prefixes, None)

    def walk(self, walk: Walk, sets: Sequence[ErasureSet] | None = None) -> AsyncGenerator[Run]:
        """What is found, in order, in runs; `listing.one_by_one` takes them apart."""
        if sets is None and not self.pools.one_placement:
            return walk_placed(self.all_sets(), walk, self.look_up)
        return walk_sets(self.all_sets() if sets is None else list(sets), walk)

    # ---------------------------------------------------------------- multipart

    async def create_upload(
        self,
        bucket_id: bytes,
        key: str,
        headers: dict[str, str],
        body: bytes,
        sealing: Sealing | None = None,
        redundancy: Redundancy = Redundancy.FULL,
    ) -> bytes:
        return await self._uploads.create(bucket_id, key, headers, body, sealing, redundancy)

    async def get_upload(self, bucket_id: bytes, key: str, upload_id: bytes) -> Record | None:
        return await self._uploads.get(bucket_id, key, upload_id)

    async def put_part(
        self, bucket_id: bytes, key: str, upload_id: bytes, number: int, body: Body, seal: Seal | None = None
    ) -> Record:
        return await self._uploads.put_part(bucket_id, key, upload_id, number, body, seal)

    async def list_parts(
        self, bucket_id: bytes, key: str, upload_id: bytes, after: int = 0, limit: int = 1000
    ) -> tuple[list[tuple[int, Record]], bool]:
        return await self._uploads.list_parts(bucket_id, key, upload_id, after, limit)

    async def complete_upload(
        self,
        bucket_id: bytes,
        key: str,
        upload_id: bytes,
        parts: Sequence[PartRef],
        assemble: Callable[[Record, Sequence[tuple[PartRef, Record | None]]], Attributes],
        condition: Condition | None = None,
    ) -> Record:
        return await self._uploads.complete(bucket_id, key, upload_id, parts, assemble, condition)

    async def abort_upload(self, bucket_id: bytes, key: str, upload_id: bytes) -> None:
        await self._uploads.abort(bucket_id, key, upload_id)

    async def list_uploads(
        self,
        bucket_id: bytes,
        *,
        prefix: str = "",
        delimiter: str = "",
        after: tuple[str, bytes] = ("", b""),
        limit: int = 1000,
    ) -> tuple[list[UploadInfo], list[str], bool]:
        return await self._uploads.list_uploads(bucket_id, prefix, delimiter, after, limit)

    # ---------------------------------------------------------------- documents

    async def get_document(self, name: str) -> Record | None:
        return await self.live(record.document_register(name))

    async def put_document(self, name: str, body: bytes, condition: Condition | None = None) -> Record:
        template = Record(Kind.DOCUMENT, 0, size_bytes=len(body), body=body)
        return await self.commit_record(record.document_register(name), template, condition)

    async def delete_document(self, name: str, condition: Condition | None = None) -> None:
        await self.commit_record(record.document_register(name), Record(Kind.TOMBSTONE, 0), condition)

    async def list_documents(self, prefix: str, after: str = "", limit: int = 1000) -> Listing:
        return await self._list(record.DOCUMENT_SPACE + record.SYSTEM_ID, prefix, "", after, limit)


def _record_of(kind: Kind, staged: Staged, code: Codec, seal: Seal | None) -> Record:
    attributes = staged.attributes
    return Record(
        kind,
        0,
        modified_ms=attributes.modified_ms,
        size_bytes=staged.size_bytes,
        etag=attributes.etag,
        headers=attributes.headers,
        checksums=attributes.checksums,
        geometry=Geometry(code.data_shards, code.parity_shards, code.name) if staged.size_bytes else None,
        extents=(Extent(staged.data_id, staged.coded_size_bytes),) if staged.size_bytes else (),
        sealing=seal.sealing if seal is not None else None,
    )


class Made:
    """Makes the record for a stamp, as each position is to hold it; encodes once per stamp."""

    def __init__(
        self,
        clock: Clock,
        template: Record,
        positions: frozenset[int],
        set_size: int,
        rotation: int,
        inline: Sequence[bytes],
    ) -> None:
        self._template = template
        self._modified_ms = template.modified_ms or clock.now_ms()
        self._positions = positions
        self._set_size = set_size
        self._rotation = rotation
        self._inline = inline
        self._made: dict[int, tuple[Record, Mapping[int, Held]]] = {}

    def record(self, stamp: int) -> Record:
        return self._make(stamp)[0]

    def __call__(self, stamp: int) -> Mapping[int, Held]:
        return self._make(stamp)[1]

    def _make(self, stamp: int) -> tuple[Record, Mapping[int, Held]]:
        made = self._made.get(stamp)
        if made is None:
            made = self._made[stamp] = self._fresh(stamp)
        return made

    def _fresh(self, stamp: int) -> tuple[Record, Mapping[int, Held]]:
        made = _stamped(self._template, stamp, self._modified_ms)
        encoded = record.encode(made)
        coded = bool(made.extents)
        bare = HIDDEN_INDEX if made.marker else NO_SHARD
        held = {}
        for position in self._positions:
            shard = (position + self._rotation) % self._set_size if coded else bare
            inline = self._inline[shard] if self._inline else None
            held[position] = Held(stamp, made.deleted, encoded, shard, inline, made.data_ids)
        return made, held


def _stamped(template: Record, stamp: int, modified_ms: int) -> Record:
    version = template.version
    if version is not None and not version.place:
        version = msgspec.structs.replace(version, place=place_of(stamp))
    return Record(
        template.kind,
        stamp,
        modified_ms,
        template.size_bytes,
        template.etag,
        template.headers,
        template.checksums,
        template.geometry,
        template.extents,
        template.parts,
        template.body,
        version,
        template.sealing,
    )
