"""What the clients of a run do: operations drawn by the plan's weights, through any coordinator, noted in the history.

An answer is *certain* when it says what happened (done, not done because the condition failed, refused); everything
else (503, a client that left, a coordinator that died) leaves the operation open: it may have happened, may happen yet,
or never will.  Bytes that come back are compared at once with those of the write whose record they came under.

Not here: judging the history.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from holdfast_server.objects import record
from holdfast_server.objects.healing import OPERATION_DEADLINE_SECONDS
from holdfast_server.objects.port import (
    Attributes,
    Condition,
    Conflict,
    Digest,
    Filler,
    Missing,
    ObjectError,
    PartRef,
    Reader,
)
from holdfast_server.objects.record import Record
from holdfast_server.sealing.envelope import Seal
from holdfast_server.testing.sim.cluster import Cluster, Coordinator, current_operation
from holdfast_server.testing.sim.history import (
    CONFLICT,
    DONE,
    FILE_SIZE_BYTES,
    INLINE_SIZE_BYTES,
    LARGE_SIZE_BYTES,
    LIVE,
    MISMATCH,
    MISSING,
    History,
    Operation,
    Upload,
    Value,
    Violation,
    contents,
)

BUCKET = b"b" * 16


class Mismatch(Exception):
    """The condition of a write does not hold."""


class NumberedBody:
    """A body that tells which write it was."""

    def __init__(self, number: int, data: bytes) -> None:
        self._data = data
        self._number = number
        self.size_bytes: int | None = len(data)
        self.digests: Sequence[Digest] = ()
        self.filler: Filler | None = self if number % 2 else None
        self._filled = 0

    async def fill(self, targets: Sequence[memoryview], go_on: Callable[[], bool]) -> int:
        for full, target in enumerate(targets, 1):
            target[:] = self._data[self._filled : self._filled + len(target)]
            self._filled += len(target)
            if not go_on():
                return full
        return len(targets)

    async def chunks(self) -> AsyncIterator[bytes | memoryview]:
        yield self._data

    def finish(self) -> Attributes:
        return Attributes(etag=str(self._number))


@dataclass
class Client:
    """One client; it talks to whoever is coordinator `node` now."""

    node: int
    known: dict[str, Value] = field(default_factory=dict)
    """What it last saw."""


class Workload:
    def __init__(self, cluster: Cluster, history: History, rng: random.Random) -> None:
        self._cluster = cluster
        self._plan = cluster.plan
        self._history = history
        self._rng = rng

    async def run(self) -> None:
        """All clients, until each has done its operations."""
        async with asyncio.TaskGroup() as group:
            for node in range(self._plan.coordinators):
                for _ in range(self._plan.clients_per_coordinator):
                    group.create_task(self._client(Client(node)))

    async def look_at_end(self) -> None:
        """What else must hold once everything is whole.  Raises Violation."""

    async def _client(self, client: Client) -> None:
        plan, rng = self._plan, self._rng
        kinds, weights = list(plan.weights), list(plan.weights.values())
        for _ in range(rng.randint(*plan.steps)):
            await asyncio.sleep(rng.expovariate(1 / rng.choice(plan.pauses_seconds)))
            if rng.random() < plan.long_pause:
                await asyncio.sleep(OPERATION_DEADLINE_SECONDS + 10)
            kind = rng.choices(kinds, weights)[0] if any(weights) else kinds[0]
            await self._interrupted(client, self._one(client, kind, rng.choice(plan.keys)))

    async def _interrupted(self, client: Client, work: Awaitable[None]) -> None:
        """Do it, unless the client leaves or its coordinator dies in the midst of it."""
        plan, rng = self._plan, self._rng
        task = asyncio.ensure_future(work)
        chance = rng.random()
        if chance < plan.crash:
            if rng.random() < 0.5:
                self._cluster.coordinators[client.node].life.fuse = rng.randint(0, 3 * plan.size)
                await asyncio.wait([task])
            else:
                await asyncio.wait([task], timeout=rng.expovariate(1 / 0.02))
            self._history.event(f"node {client.node} crashes")
            self._cluster.crash(client.node)
        elif chance < plan.crash + plan.cancel:
            await asyncio.wait([task], timeout=rng.expovariate(1 / 0.02))
            task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()

    async def _one(self, client: Client, kind: str, key: str) -> None:
        coordinator = self._cluster.coordinators[client.node]
        if kind == "heal":
            await self._heal(coordinator, key)
        elif kind == "scan":
            await self._pass_over(coordinator)
        elif kind == "upload":
            await self._upload(client, coordinator, key)
        elif kind == "list":
            await self.list(coordinator)
        elif kind in ("get", "range"):
            await self.get(coordinator, key, whole=kind == "get", client=client)
        else:
            await self._write(client, coordinator, kind, key)

    # ---------------------------------------------------------------- one key

    async def get(self, coordinator: Coordinator, key: str, whole: bool = True, client: Client | None = None) -> None:
        """Read and compare; the operation stays open if nothing certain came back."""
        operation = self._history.begin("get", key, coordinator.node)
        try:
            reader = await coordinator.store.open_object(BUCKET, key)
            value = None if reader is None else await self._read(reader, whole)
        except ObjectError as error:
            self._history.give_up(operation, error)
            return
        if not coordinator.life.crashed:
            self._history.end(operation, value)
            if client is not None:
                client.known[key] = value

    async def _read(self, reader: Reader, whole: bool) -> int:
        number, size = int(reader.record.etag), reader.record.size_bytes
        start, length = 0, size
        if not whole:
            start = self._rng.randint(0, size)
            length = self._rng.randint(0, size - start)
        self._unlock(reader, number)
        data = b"".join([bytes(chunk) async for chunk in reader.chunks(start, length)])
        if data != self._history.bodies[number][start : start + length]:
            raise Violation(
                "HalfVisibleWrites", f"{start}+{length} under record {number}: {data[:20]!r}… of another write"
            )
        return number

    async def _write(self, client: Client, coordinator: Coordinator, kind: str, key: str) -> None:
        expected = client.known.get(key) if kind.endswith("_if") and self._rng.random() < 0.7 else None
        size_bytes = 0 if kind.startswith("delete") else self._size()
        await self.write(coordinator, kind, key, expected, size_bytes)

    async def write(
        self, coordinator: Coordinator, kind: str, key: str, expected: Value = None, size_bytes: int = INLINE_SIZE_BYTES
    ) -> None:
        """One put or delete, under a condition if its kind says so."""
        history = self._history
        number = 0 if kind.startswith("delete") else history.next_number()
        operation = history.begin(kind, key, coordinator.node, number)
        condition = None
        if kind.endswith("_if"):
            operation.expected = expected
            condition = _expecting(operation.expected)
        current_operation.set(operation)
        try:
            if number:
                history.bodies[number] = contents(number, size_bytes)
                body = NumberedBody(number, history.bodies[number])
                await coordinator.store.put_object(BUCKET, key, body, condition, self._seal(key, number))
            else:
                await coordinator.store.delete_object(BUCKET, key, condition)
        except Mismatch:
            self._end(coordinator, operation, MISMATCH)
        except Conflict:
            self._end(coordinator, operation, CONFLICT)
        except ObjectError as error:
            self._history.give_up(operation, error)
        else:
            self._end(coordinator, operation, DONE)

    def _seal(self, key: str, number: int) -> Seal | None:
        """What this write is sealed with."""
        return None

    def _unlock(self, reader: Reader, number: int) -> None:
        """Before its bytes are read.  Raises Violation where it is not sealed as it was written."""

    def _end(self, coordinator: Coordinator, operation: Operation, result: object) -> None:
        if not coordinator.life.crashed:
            self._history.end(operation, result)

    def _size(self) -> int:
        chance = self._rng.random()
        if chance < self._plan.large:
            return LARGE_SIZE_BYTES
        return FILE_SIZE_BYTES if chance < self._plan.large + self._plan.file_sized else INLINE_SIZE_BYTES

    # ---------------------------------------------------------------- listing

    async def list(self, coordinator: Coordinator) -> None:
        """One page, plain or by groups, from the start or after a key."""
        rng, keys = self._rng, sorted(self._plan.keys)
        prefix = rng.choice(("", "", "a/", "c/"))
        delimiter = rng.choice(("", "", "/"))
        after = rng.choice(("", "", *keys, "a/"))
        limit = rng.choice((1, 2, 1000, 1000))
        start = self._history.tick()
        try:
            page = await coordinator.store.list_objects(
                BUCKET, prefix=prefix, delimiter=delimiter, after=after, limit=limit
            )
        except ObjectError as error:
            if self._plan.calm:
                raise Violation("NeedlessRefusals", f"a listing without any fault: {error}") from error
            return
        if coordinator.life.crashed:
            return
        names = sorted([entry.key for entry in page.entries] + page.prefixes)
        if len(names) > limit or len(set(names)) < len(names):
            raise Violation("ListingAgrees", f"{names} in a page of {limit}")
        found = {entry.key: int(entry.record.etag) for entry in page.entries}
        for key in keys:
            group = _group(key, prefix, delimiter)
            name = group or key
            wanted = key.startswith(prefix) and key > after and not (group and group <= after)
            reached = page.next_after is None or name <= page.next_after
            if not wanted or not reached:
                if key in found:
                    raise Violation("ListingAgrees", f"{key} in a page of {prefix!r} after {after!r}: {names}")
            elif group in page.prefixes:
                if sum(_group(k, prefix, delimiter) == group and k > after for k in keys) == 1:
                    self._history.observe("list", key, coordinator.node, start, LIVE)
            else:
                self._history.observe("list", key, coordinator.node, start, found.get(key))

    # ---------------------------------------------------------------- uploads

    async def _upload(self, client: Client, coordinator: Coordinator, key: str) -> None:
        """One upload from its creation to its end, which may be asked for twice and by another coordinator."""
        rng, history = self._rng, self._history
        upload = Upload(history.next_number(), key, b"")
        try:
            upload.upload_id = await coordinator.store.create_upload(BUCKET, key, {}, b"")
            history.uploads.append(upload)
            for part in range(1, rng.choice((2, 3))):
                await self._part(coordinator, upload, part)
                if rng.random() < 0.2:
                    await self._part(coordinator, upload, part)
            if rng.random() < 0.5:
                await self._list_parts(coordinator, upload)
        except ObjectError as error:
            if self._plan.calm:
                raise Violation("NeedlessRefusals", f"an upload without any fault: {error!r}") from error
        if not upload.upload_id or coordinator.life.crashed:
            return
        history.bodies[upload.number] = b"".join(upload.bodies[part] for part in sorted(upload.bodies))
        endings = []
        for _ in range(rng.choice((1, 1, 2))):
            other = self._cluster.coordinators[rng.randrange(self._plan.coordinators)]
            if rng.random() < 0.25 or not upload.bodies:
                endings.append((self._abort, other))
            else:
                endings.append((self._complete, other))
        if rng.random() < 0.5:
            await asyncio.gather(*(ending(other, upload) for ending, other in endings))
        else:
            for ending, other in endings:
                await ending(other, upload)

    async def _part(self, coordinator: Coordinator, upload: Upload, part: int) -> None:
        body = contents(upload.number * 10 + part, self._rng.choice((INLINE_SIZE_BYTES, FILE_SIZE_BYTES)))
        upload.bodies.pop(part, None)  # until it is acknowledged nobody knows which of two is stored
        await coordinator.store.put_part(BUCKET, upload.key, upload.upload_id, part, NumberedBody(len(body), body))
        upload.bodies[part] = body

    async def _list_parts(self, coordinator: Coordinator, upload: Upload) -> None:
        parts, _ = await coordinator.store.list_parts(BUCKET, upload.key, upload.upload_id)
        missing = set(upload.bodies) - {number for number, _ in parts}
        if missing and not coordinator.life.crashed:
            raise Violation(
                "MultipartOutcome", f"parts {missing} of upload {upload.number} are acknowledged and not listed"
            )

    async def _complete(self, coordinator: Coordinator, upload: Upload) -> None:
        operation = self._history.begin("complete", upload.key, coordinator.node, upload.number)
        upload.completes.append(operation)
        current_operation.set(operation)
        refs = [PartRef(part, str(len(body))) for part, body in sorted(upload.bodies.items())]

        def assemble(_: Record, chosen: Sequence[tuple[PartRef, Record | None]]) -> Attributes:
            for ref, part in chosen:
                if part is None or part.etag != ref.etag:
                    raise Violation("MultipartOutcome", f"part {ref.number} of upload {upload.number} is not stored")
            return Attributes(etag=str(upload.number))

        try:
            await coordinator.store.complete_upload(BUCKET, upload.key, upload.upload_id, refs, assemble)
        except Missing:
            self._end(coordinator, operation, MISSING)
        except Conflict:
            self._end(coordinator, operation, CONFLICT)
        except ObjectError as error:
            self._history.give_up(operation, error)
        except Violation:
            if upload.aborts:
                self._end(coordinator, operation, MISSING)  # it was being aborted: its parts may be gone before it
            elif not coordinator.life.crashed:
                raise
        else:
            self._end(coordinator, operation, DONE)

    async def _abort(self, coordinator: Coordinator, upload: Upload) -> None:
        operation = self._history.begin("abort", upload.key, coordinator.node)
        upload.aborts.append(operation)
        try:
            await coordinator.store.abort_upload(BUCKET, upload.key, upload.upload_id)
        except Missing:
            self._end(coordinator, operation, MISSING)
        except ObjectError as error:
            self._history.give_up(operation, error)
        else:
            self._end(coordinator, operation, DONE)

    # ---------------------------------------------------------------- repair

    async def _heal(self, coordinator: Coordinator, key: str) -> None:
        register = record.object_register(BUCKET, key)
        try:
            await coordinator.store.heal(coordinator.erasure_set, register, verify=self._rng.random() < 0.3)
        except ObjectError:
            return

    async def _pass_over(self, coordinator: Coordinator) -> None:
        for key in self._plan.keys:
            await self._heal(coordinator, key)


def _expecting(expected: Value) -> Condition:
    def condition(current: Record | None) -> None:
        if (int(current.etag) if current is not None else None) != expected:
            raise Mismatch

    return condition


def _group(key: str, prefix: str, delimiter: str) -> str:
    if not delimiter or not key.startswith(prefix):
        return ""
    at = key.find(delimiter, len(prefix))
    return key[: at + 1] if at >= 0 else ""
