"""Simulation of whole pods over one bucket: created, filled, emptied, deleted and created again by several at once.

The pods' front ends are the production code from the parsed request down (`api.dispatch`, the bucket cache and its
leases, deleting), over the same object layer, drives and network as in `simulation`; what pods say to each other
(announcements, fences) goes through that network too, and is lost with it.  Bodies arrive slowly, so that a put may
have begun long before it commits.

Checked: one order of all answers explains them, for the bucket and what is in it together (rule 12: an acknowledged
put never lands in nothing, a bucket made anew has nothing of the old one's), and without faults every read is answered
(rule 13).

Not here: users and policies, uploads (`api`'s own tests).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

from holdfast_server.api.admission import Ticket
from holdfast_server.api.buckets_cache import BucketCache
from holdfast_server.api.dispatch import Dispatcher
from holdfast_server.api.services import Services, Told
from holdfast_server.objects.healing import OPERATION_DEADLINE_SECONDS
from holdfast_server.s3.request import BodyStream, Request, Response
from holdfast_server.s3.signing import KeyPair, sign_headers
from holdfast_server.testing import virtual_time
from holdfast_server.testing.memory_services import ROOT_PASSWORD, ROOT_USER, memory_services
from holdfast_server.testing.sim import plan as plans
from holdfast_server.testing.sim import simulation
from holdfast_server.testing.sim.cluster import Cluster, Coordinator, current_operation
from holdfast_server.testing.sim.faults import Faults
from holdfast_server.testing.sim.history import (
    CONFLICT,
    DONE,
    FILE_SIZE_BYTES,
    INLINE_SIZE_BYTES,
    MISSING,
    History,
    Operation,
    Violation,
    contents,
)
from holdfast_server.testing.sim.linearizability import MAX_CONFIGURATIONS, TooLong
from holdfast_server.testing.sim.plan import Plan
from holdfast_server.testing.sim.simulation import Outcome
from holdfast_server.testing.unreliable_network import MAX_DELAY_SECONDS, Trap, Weather

BUCKET = "bucket"
REGION = "eu-central-1"
"""Not the one where creating a bucket again is no conflict: the histories tell by that whether it was there."""
NOT_EMPTY = "not empty"
NO_KEY = "no such key"
PEER_LINKS = 1000
"""Pods are known to the network by their number above this; drives by their positions."""
PEER_TIMEOUT_SECONDS = 10.0
BODIES_SECONDS = 15.0
"""No body takes longer, but one:"""
SLOW_BODY_SECONDS = 60.0
"""Longer than a bucket's delete waits for pods that do not answer."""
BUCKET_LEASES_SECONDS = 200.0
"""Longer than a mark, a lease and a delete may last."""

PROFILES = ("buckets", "late_puts", "vanishing")

State = tuple[tuple[str, int], ...] | None
"""What is in the bucket; None: there is no bucket."""


@dataclass(frozen=True, kw_only=True)
class BucketPlan:
    """What such a run is made of."""

    base: Plan
    weights: dict[str, int]
    body_seconds: tuple[float, ...]
    """How long bodies take, one drawn for each."""
    peer_cuts: int
    """How often a pod is cut off from another."""
    reclaim_delay_seconds: float = 30.0
    """Of drives; below the usual where reads are to meet what is gone."""
    late_put: bool = False
    """Begin with a put whose commits are held up while the bucket is deleted and made anew."""


def draw(rng: random.Random, profile: str) -> BucketPlan:
    """`buckets`: they come and go, under faults; `late_puts`: the same, and it begins with a put that is late;
    `vanishing`: objects are overwritten under their readers."""
    if profile == "vanishing":
        base = replace(plans.draw(rng, "calm"), keys=("k",), coordinators=3, steps=(8, 12), pauses_seconds=(0.02, 0.1))
        base = replace(base, heal_every_seconds=0.003, long_pause=0.0, clients_per_coordinator=1, file_sized=0.8)
        base = replace(base, skews_ms=(0, 0, 0))
        return BucketPlan(
            base=base, weights={"put": 2, "get": 5}, body_seconds=(0.0,), peer_cuts=0, reclaim_delay_seconds=0.0
        )
    quiet = rng.random() < 0.2
    base = replace(
        plans.draw(rng, "calm" if quiet else "ambush"),
        keys=rng.choice((("k",), ("k", "l"))),
        coordinators=3,
        clients_per_coordinator=1,
        steps=(4, 8),
        pauses_seconds=rng.choice(((0.02, 0.5), (0.5, 3.0), (0.1, 8.0))),
        long_pause=0.0,
        skews_ms=(0, 0, 0),
        cancel=0.0,
        heal_every_seconds=None,
    )
    if not quiet:
        base = replace(base, faults={kind: rng.randint(1, 3) for kind in ("away", "stall", "ambush")}, crash=0.05)
    return BucketPlan(
        base=base,
        weights={"create": 4, "drop": 4, "put": 5, "delete": rng.choice((1, 3)), "get": 3, "list": 1},
        body_seconds=rng.choice(((0.0,), (0.0, 1.0, 4.0), (0.0, 6.0, 12.0))),
        peer_cuts=0 if quiet else rng.choice((0, 2, 4)),
        late_put=profile == "late_puts",
    )


class SlowBody:
    def __init__(self, data: bytes, seconds: float) -> None:
        self.size_bytes: int | None = len(data)
        self._data, self._seconds = data, seconds
        self._filled = 0

    async def pieces(self) -> AsyncIterator[bytes]:
        half = len(self._data) // 2
        for piece in (self._data[:half], self._data[half:]):
            await asyncio.sleep(self._seconds / 2)
            if piece:
                yield piece

    async def fill(self, targets: Sequence[memoryview], go_on: Callable[[], bool]) -> int:
        for full, target in enumerate(targets, 1):
            await asyncio.sleep(self._seconds * len(target) / len(self._data))
            target[:] = self._data[self._filled : self._filled + len(target)]
            self._filled += len(target)
            if not go_on():
                return full
        return len(targets)


class Pod:
    """The front end of one life of a coordinator."""

    def __init__(self, pods: Pods, coordinator: Coordinator) -> None:
        self.coordinator = coordinator
        self._pods = pods
        store, clock = coordinator.store, coordinator.clock
        self.services: Services = replace(
            memory_services(store, clock),
            announce=self._announce,
            fence_bucket_everywhere=self._fence_everywhere,
            told=lambda: Told(region=REGION),
        )
        self._dispatcher = Dispatcher(self.services)

    @property
    def buckets(self) -> BucketCache:
        return self.services.buckets

    async def ask(self, method: str, path: str, body: bytes = b"", seconds: float = 0.0) -> Response:
        """One signed request, to its answer."""
        now_ms = self.services.clock.now_ms()
        named = {"host": "x", "content-length": str(len(body))}
        signed = sign_headers(KeyPair(ROOT_USER, ROOT_PASSWORD), method, path, "", named, now_ms)
        request = Request(
            method=method, raw_path=path, raw_query="", headers=signed, remote="", received_ms=now_ms, secure=False
        )
        ticket = Ticket(self.services.memory)
        try:
            return (await self._dispatcher.answer(request, SlowBody(body, seconds), "REQUEST", ticket))[1]
        finally:
            ticket.leave()

    async def _announce(self, topic: str, changed: Sequence[str]) -> None:
        await self._tell_others("announce", lambda pod: pod.services.on_announce(topic, changed))

    async def _fence_everywhere(self, bucket_id: bytes) -> bool:
        return all(await self._tell_others("fence_bucket", lambda pod: pod.services.fence_bucket(bucket_id)))

    async def _tell_others(self, verb: str, told: Callable[[Pod], Awaitable[None]]) -> list[bool]:
        others = [node for node in range(self._pods.count) if node != self.coordinator.node]
        return list(await asyncio.gather(*(self._tell(node, verb, told) for node in others)))

    async def _tell(self, node: int, verb: str, told: Callable[[Pod], Awaitable[None]]) -> bool:
        """Whether that pod, in whatever life it is then, has done it."""
        if self.coordinator.life.crashed:
            return False
        link = (self.coordinator.node, PEER_LINKS + node)
        if link in self._pods.cluster.network.known_cut:
            return False  # not connected: no waiting
        try:
            async with asyncio.timeout(PEER_TIMEOUT_SECONDS):
                await self._pods.cluster.network.call(link, lambda: told(self._pods.of(node)), False, verb=verb)
        except Exception:  # whatever the peer ran into: it has not confirmed
            return False
        return True


class Pods:
    """The present lives of all of them."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.count = cluster.plan.coordinators
        self._pods: dict[int, Pod] = {}

    def of(self, node: int) -> Pod:
        coordinator = self.cluster.coordinators[node]
        pod = self._pods.get(node)
        if pod is None or pod.coordinator is not coordinator:
            pod = self._pods[node] = Pod(self, coordinator)
        return pod


@dataclass
class Clients:
    """What is asked for, and noted."""

    pods: Pods
    plan: BucketPlan
    history: History
    rng: random.Random
    by_body: dict[bytes, int] = field(default_factory=dict)
    """Number of the write, by its bytes."""

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for node in range(self.pods.count):
                for _ in range(self.plan.base.clients_per_coordinator):
                    group.create_task(self._client(node))

    async def _client(self, node: int) -> None:
        base, rng = self.plan.base, self.rng
        for _ in range(rng.randint(*base.steps)):
            await asyncio.sleep(rng.expovariate(1 / rng.choice(base.pauses_seconds)))
            kind = rng.choices(list(self.plan.weights), list(self.plan.weights.values()))[0]
            if rng.random() < base.crash:
                self.pods.cluster.coordinators[node].life.fuse = rng.randint(0, 3 * base.size)
                await self.one(node, kind, rng.choice(base.keys))
                self.history.event(f"node {node} crashes")
                self.pods.cluster.crash(node)
            else:
                await self.one(node, kind, rng.choice(base.keys))

    async def one(self, node: int, kind: str, key: str, body_seconds: float | None = None) -> Operation:
        """One request; its operation stays open if the answer does not say what happened."""
        pod, history = self.pods.of(node), self.history
        number = history.next_number() if kind == "put" else 0
        operation = history.begin(kind, key, node, number)
        current_operation.set(operation)
        body, seconds = b"", 0.0
        if number:
            body = contents(
                number, FILE_SIZE_BYTES if self.rng.random() < self.plan.base.file_sized else INLINE_SIZE_BYTES
            )
            seconds = self.rng.choice(self.plan.body_seconds) if body_seconds is None else body_seconds
            self.by_body[body] = number
        method, path = _request(kind, key)
        response = await pod.ask(method, path, body, seconds)
        shown = await _body(response)
        result = self._result(kind, response.status, shown)
        if result is _UNKNOWN or pod.coordinator.life.crashed:
            operation.result, operation.gave_up = f"{response.status} {_code(shown)}", history.tick()
        else:
            history.end(operation, result)
        return operation

    def _result(self, kind: str, status: int, shown: bytes) -> object:
        code = _code(shown)
        if status == 404:
            return NO_KEY if code == "NoSuchKey" else MISSING
        if code == "BucketAlreadyOwnedByYou":
            return CONFLICT
        if code == "BucketNotEmpty":
            return NOT_EMPTY
        if status not in (200, 204):
            return _UNKNOWN
        if kind == "get":
            if shown not in self.by_body:
                raise Violation("HalfVisibleWrites", f"{len(shown)} bytes of no write: {shown[:20]!r}…")
            return self.by_body[shown]
        if kind == "list":
            return tuple(key for key in self.plan.base.keys if b"<Key>%s</Key>" % key.encode() in shown)
        return DONE


_UNKNOWN = object()


def _request(kind: str, key: str) -> tuple[str, str]:
    method = {"create": "PUT", "drop": "DELETE", "put": "PUT", "delete": "DELETE", "get": "GET", "list": "GET"}[kind]
    return method, f"/{BUCKET}" if kind in ("create", "drop", "list") else f"/{BUCKET}/{key}"


async def _body(response: Response) -> bytes:
    if isinstance(response.body, BodyStream):
        return b"".join([bytes(piece) async for piece in response.body.pieces])
    return bytes(response.body)


def _code(shown: bytes) -> str:
    return shown.partition(b"<Code>")[2].partition(b"</Code>")[0].decode()


# ---------------------------------------------------------------- judging


def explained(operations: Sequence[Operation]) -> bool:
    """Whether one order explains all answers about the bucket and what is in it.  Raises TooLong."""
    history = [op for op in operations if op.certain or op.kind in ("create", "drop", "put", "delete")]
    must = sum(1 << i for i, op in enumerate(history) if op.certain)
    ends = [op.end if op.certain and op.end is not None else 1 << 60 for op in history]
    by_end = sorted(range(len(history)), key=ends.__getitem__)
    seen: set[tuple[int, State]] = set()
    stack: list[tuple[int, State]] = [(0, None)]
    while stack:
        done, state = stack.pop()
        if done & must == must:
            return True
        if (done, state) in seen:
            continue
        seen.add((done, state))
        if len(seen) > MAX_CONFIGURATIONS:
            raise TooLong
        limit = next(ends[i] for i in by_end if not done >> i & 1)
        for i, operation in enumerate(history):
            if not done >> i & 1 and operation.start <= limit:
                stack.extend((done | 1 << i, after) for after in _after(operation, state))
    return False


def _after(operation: Operation, state: State) -> list[State]:
    """What may be afterwards; nothing if the answer does not fit what was before."""
    kind, result = operation.kind, operation.result
    if operation.certain and result == MISSING:
        return [state] if state is None else []
    if kind == "create":
        if operation.certain and result == CONFLICT:
            return [state] if state is not None else []
        return [()] if state is None else []
    if state is None:
        return []
    if kind == "drop":
        if operation.certain and result == NOT_EMPTY:
            return [state] if state else []
        return [None] if not state else []
    found = dict(state)
    if kind == "put":
        return [tuple(sorted({**found, operation.key: operation.number}.items()))]
    if kind == "delete":
        return [tuple(item for item in state if item[0] != operation.key)]
    if kind == "list":
        return [state] if tuple(sorted(found)) == result else []
    return [state] if found.get(operation.key, NO_KEY) == result else []


def _judge(history: History, calm: bool) -> bool:
    for operation in history.operations:
        if calm and operation.kind in ("get", "list") and not operation.certain:
            raise Violation("NeedlessRefusals", f"without any fault: {operation.told()}")
    _nothing_of_the_old_bucket(history)
    try:
        if not explained(history.operations):
            raise Violation("Linearizability", "no order explains what was answered about the bucket")
    except TooLong:
        return False
    return True


def _nothing_of_the_old_bucket(history: History) -> None:
    """What had ended before a bucket was deleted is not in the next one of its name."""
    drops = [op for op in history.operations if op.kind == "drop" and op.result == DONE]
    puts = {op.number: op for op in history.operations if op.kind == "put"}
    for read in history.operations:
        if read.kind == "get" and isinstance(read.result, int) and read.certain:
            put = puts[read.result]
            ended = put.end if put.end is not None else put.gave_up
            if any(ended < drop.start and (drop.end or 0) < read.start for drop in drops):
                raise Violation("NothingOfTheOldBucket", f"{read.told()} was put before the bucket was deleted")


# ---------------------------------------------------------------- the run


def replay(seed: int, profile: str = "buckets") -> Outcome:
    """Run one seed.  Raises Failed."""
    rng = random.Random(f"{profile} {seed}")
    plan = draw(rng, profile)
    history = History()

    def play() -> bool:
        virtual_time.run(_run(plan, history, rng))
        return _judge(history, plan.base.calm)

    return simulation.played(seed, profile, plan, history, play)


async def _run(plan: BucketPlan, history: History, rng: random.Random) -> None:
    cluster = Cluster(plan.base, rng)
    for drive in cluster.drives:
        drive._reclaim_delay_seconds = plan.reclaim_delay_seconds
    clients = Clients(Pods(cluster), plan, history, rng)
    await clients.one(0, "create", "")
    if plan.late_put:
        await _late_put(clients)
    elif rng.random() < 0.5:
        await clients.one(0, "put", plan.base.keys[0])
    reaping = asyncio.create_task(_reap(cluster))
    async with asyncio.TaskGroup() as group:
        group.create_task(clients.run())
        group.create_task(Faults(cluster, history, rng).run())
        group.create_task(_cut_peers(cluster, history, rng, plan.peer_cuts))
    reaping.cancel()
    await asyncio.wait([reaping])
    history.event("the faults end")
    cluster.network.calm()
    await cluster.network.drained()
    await cluster.background_ended()
    await asyncio.sleep(MAX_DELAY_SECONDS + OPERATION_DEADLINE_SECONDS + BUCKET_LEASES_SECONDS)
    for node in range(plan.base.coordinators):
        await clients.one(node, "list", "")
        for key in plan.base.keys:
            if not (await clients.one(node, "get", key)).certain:
                raise Violation("Readable", f"all drives are up, yet: {history.operations[-1].told()}")
    await cluster.close()


async def _late_put(clients: Clients) -> None:
    """A put is confirmed, or still arriving, while the bucket is deleted; or it failed, and its commits arrive in the
    next bucket of that name.  Its pod may be one that hears nothing of the others.
    """
    cluster, rng, key = clients.pods.cluster, clients.rng, clients.plan.base.keys[0]
    late = rng.choice(("confirmed", "confirmed", "arriving", "failed", "failed"))
    deaf = {(0, PEER_LINKS + 1)} if late != "failed" and rng.random() < 0.5 else set()
    trap = Trap(["commit"], [1], [drive.position for drive in cluster.drives])
    cluster.network.weather, weather = Weather(usual_seconds=0.005), cluster.network.weather
    cluster.network.known_cut |= deaf
    if late == "arriving":
        putting = asyncio.create_task(clients.one(1, "put", key, SLOW_BODY_SECONDS if deaf else BODIES_SECONDS))
        await asyncio.sleep(1.0)
    else:
        cluster.network.traps.append(trap)
        putting = asyncio.create_task(clients.one(1, "put", key))
        await trap.sprung(BODIES_SECONDS)
        if late == "failed":
            await asyncio.wait([putting])
    dropping = asyncio.create_task(clients.one(0, "drop", ""))
    await asyncio.wait([dropping], timeout=rng.uniform(0.5, 3.0))
    if late == "failed":
        await asyncio.wait([dropping])
        await clients.one(2, "create", "")
    trap.open()
    await asyncio.wait([putting, dropping])
    cluster.network.traps = [other for other in cluster.network.traps if other is not trap]
    cluster.network.known_cut -= deaf
    await cluster.network.drained()
    await clients.one(2, "get", key)
    cluster.network.weather = weather


async def _reap(cluster: Cluster) -> None:
    """Drives take back the room of what is superseded."""
    every = cluster.plan.heal_every_seconds or 1.0
    while True:
        await asyncio.sleep(every)
        for drive in cluster.drives:
            drive.reap()


async def _cut_peers(cluster: Cluster, history: History, rng: random.Random, times: int) -> None:
    """A pod does not hear of another for a while; the drives answer both."""
    for _ in range(times):
        await asyncio.sleep(rng.expovariate(1 / 2.0))
        deaf = rng.randrange(cluster.plan.coordinators)
        links = {(node, PEER_LINKS + deaf) for node in range(cluster.plan.coordinators)}
        history.event(f"node {deaf} hears nothing of the others")
        cluster.network.cut_requests |= links
        await asyncio.sleep(rng.uniform(0.0, 2.0))
        cluster.network.known_cut |= links
        await asyncio.sleep(rng.uniform(1.0, 20.0))
        cluster.network.cut_requests -= links
        cluster.network.known_cut -= links
        history.event(f"node {deaf} hears the others again")
