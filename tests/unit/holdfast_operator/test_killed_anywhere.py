"""The operator dies before any of its writes, or sleeps through the work of another: nothing is made twice or put back.

For each change of a Tenant the operator is killed before its n-th write to the cluster or the store, for every n, and
started again; or it is frozen there (SIGSTOP, a machine that hangs), another one does all the work, and then it wakes
and goes on where it was.  No lease is in the way here: what must not go back is kept by the writes themselves.

Watched over all of it: the tenant's id, its authority and its first root pair are made once; the pods always accept the
root pair that the Secret announces; a pair that was announced stays valid.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from holdfast_operator import labels
from holdfast_operator.kube.errors import KubeError
from holdfast_operator.kube.port import CONFIG_MAP, SECRET, Manifest
from holdfast_operator.reconcile import Reconciler, TenantKey
from holdfast_server.contract.keys import decode_further_keys

EVERY = int(os.environ.get("HOLDFAST_KILL_EVERY", "20"))
"""Of the writes, every so manieth is tried; 1 (in `make soak`): each."""
EVERY_SLEEP = 3 * EVERY
SLEEPS = 150
"""The calls, reads among them, before which an operator falls asleep; a dozen passes make more, all alike."""
SETTLING_PASSES = 16
LIMIT = 80
"""No change takes more writes."""


pytestmark = pytest.mark.timeout(900)


class Killed(BaseException):
    """As SIGKILL: no handler runs."""


def values(world: Any, name: str) -> dict[str, str]:
    found = world.kube.objects.get((SECRET.kind, "loki", name)) or {}
    return {key: base64.b64decode(value).decode() for key, value in (found.get("data") or {}).items()}


@dataclass
class Witness:
    """Looks at the Secrets after every write of anybody."""

    world: Any
    ids: set[str] = field(default_factory=set)
    authorities: set[str] = field(default_factory=set)
    first_pairs: set[str] = field(default_factory=set)
    announced: list[tuple[str, str]] = field(default_factory=list)
    revisions: list[int] = field(default_factory=list)

    def look(self) -> None:
        record = values(self.world, "logs-peer")
        if not record:
            return
        self.ids.add(record["tenantId"])
        further = decode_further_keys(record["furtherKeys.json"].encode())
        accepted = {(record["accessKey"], record["secretKey"])}
        accepted |= {(pair.access_key, pair.secret_key) for pair in further.root}
        self.revisions.append(further.revision)
        root = values(self.world, "logs-root")
        if root:
            told = (root["accessKey"], root["secretKey"])
            if told not in self.announced:
                self.announced.append(told)
            assert set(self.announced) <= accepted, "somebody is locked out"
        else:
            self.first_pairs.add(record["accessKey"])
        if len(self.revisions) > 1:
            assert self.revisions[-1] >= self.revisions[-2], "the record of keys went back"
        authority = values(self.world, "logs-ca")
        if authority:
            self.authorities.add(authority["ca.crt"])


def watch(world: Any) -> Witness:
    witness = Witness(world)
    store = world.kube._store

    def stored(key: Any, value: Manifest) -> Manifest:
        answer: Manifest = store(key, value)
        witness.look()
        return answer

    world.kube._store = stored
    return witness


# --- what a person does
async def nothing(world: Any) -> None:
    """The Tenant itself is new."""


async def new_root_keys(world: Any) -> None:
    secret = world.kube.objects[SECRET.kind, "loki", "logs-root"]
    secret["metadata"].setdefault("annotations", {})[labels.NEW_KEYS_ANNOTATION] = "1"


async def new_peer_key(world: Any) -> None:
    secret = world.kube.objects[SECRET.kind, "loki", "logs-peer"]
    secret["metadata"].setdefault("annotations", {})[labels.NEW_KEYS_ANNOTATION] = "1"


async def lost_secrets(world: Any) -> None:
    for name in ("logs-root", "logs-peer-copy", "logs-user-loki"):
        world.kube.remove((SECRET.kind, "loki", name))


async def tls(world: Any) -> None:
    world.change_spec(tls={"mode": "SelfSigned"})


async def growth(world: Any) -> None:
    body = dict(world.kube.objects["Tenant", "loki", "logs"]["spec"]["pools"][0])
    claim = {"spec": {"resources": {"requests": {"storage": "20Gi"}}}}
    world.change_spec(pools=[{**body, "volumeClaimTemplate": claim}])


async def another_pool(world: Any) -> None:
    pools = world.kube.objects["Tenant", "loki", "logs"]["spec"]["pools"]
    world.change_spec(pools=[*pools, {**pools[0], "name": "second"}])


async def other_users(world: Any) -> None:
    world.change_spec(users=[{"name": "other"}], buckets=[{"name": "loki-chunks"}, {"name": "more"}])


CHANGES: dict[str, Callable[[Any], Awaitable[None]]] = {
    "a new Tenant": nothing,
    "new root keys": new_root_keys,
    "a new peer key": new_peer_key,
    "lost Secrets": lost_secrets,
    "TLS": tls,
    "growth": growth,
    "another pool": another_pool,
    "other users": other_users,
}


def settled(world: Any) -> dict[str, Any]:
    """The end, less what is minted and timed."""
    status = world.kube.tenant_status()
    conditions = {one["type"]: (one["status"], one["reason"]) for one in status["conditions"]}
    return {
        "conditions": conditions,
        "objects": sorted(key for key in world.kube.objects if key[0] != "Event"),
        "buckets": sorted(world.store.buckets),
        "users": sorted(user.name for user in world.store.users.values()),
        "policies": sorted(world.store.policies),
        "pools": [(pool["name"], pool["state"]) for pool in status["pools"]],
        "config": len(world.kube.object(CONFIG_MAP, "logs-config")["data"]["config.yaml"]),
    }


async def prepared(world: Any, change: Callable[[Any], Awaitable[None]]) -> Witness:
    """A Tenant at rest to which something is done, or one that has just been made; the operator has not looked yet."""
    if change is nothing:
        world.kube.put(world.body())
    else:
        await world.start()
    witness = watch(world)
    witness.look()
    await change(world)
    return witness


def check(world: Any, witness: Witness, wanted: dict[str, Any] | None) -> None:
    assert len(witness.ids) == 1
    assert len(witness.authorities) <= 1
    assert len(witness.first_pairs) <= 1
    root = values(world, "logs-root")
    assert (root["accessKey"], root["secretKey"]) == witness.announced[-1]
    if wanted is not None:
        assert settled(world) == wanted


async def settle(world: Any) -> None:
    """Passes until three in a row wrote nothing; a conflict is met by another pass, as the controller does."""
    written: list[int] = []
    while len(written) < SETTLING_PASSES and (len(written) < 4 or written[-4] != written[-1]):
        with contextlib.suppress(KubeError):
            await world.run_pass()
        written.append(len(world.kube.calls) + len(world.store.calls))


async def outcome_of(world: Any, change: Callable[[Any], Awaitable[None]]) -> tuple[dict[str, Any], int]:
    """The undisturbed end, and how many writes it takes."""
    writes = 0

    def count(verb: str, *_: str) -> None:
        nonlocal writes
        writes += verb not in ("get", "list")

    witness = await prepared(world, change)
    world.kube.fail_on = count
    await settle(world)
    check(world, witness, None)
    end = settled(world)
    assert end["conditions"]["Ready"][0] == "True", end
    assert 0 < writes < LIMIT
    return end, writes


@pytest.mark.parametrize("change", CHANGES)
async def test_killed_before_any_write_the_operator_ends_where_it_would_have(change: str, new_world: Any) -> None:
    wanted, writes = await outcome_of(new_world(), CHANGES[change])
    for doomed in range(1, writes + 1, EVERY):
        world = new_world()
        witness = await prepared(world, CHANGES[change])
        left = doomed

        def kill(verb: str, *_: str) -> None:
            nonlocal left
            left -= verb not in ("get", "list")
            if left == 0:
                raise Killed

        world.kube.fail_on = kill
        with contextlib.suppress(Killed):
            await settle(world)
        assert left <= 0
        world.kube.fail_on = lambda *_: None
        world.restart_operator()
        await settle(world)
        check(world, witness, wanted)


class Sleeper:
    """The way of one operator to the API server: it falls asleep before its n-th call, until it is woken."""

    def __init__(self, kube: Any, nth: int) -> None:
        self._kube, self._left = kube, nth
        self.calls = 0
        self.asleep, self.awake = asyncio.Event(), asyncio.Event()

    def __getattr__(self, verb: str) -> Any:
        call = getattr(self._kube, verb)

        async def later(*arguments: Any, **options: Any) -> Any:
            self.calls += 1
            self._left -= 1
            if self._left == 0:
                self.asleep.set()
                await self.awake.wait()
            return await call(*arguments, **options)

        return later


@pytest.mark.parametrize("change", ["a new Tenant", "new root keys", "new peer key", "another pool", "TLS"])
async def test_an_operator_that_slept_through_the_work_of_another_puts_nothing_back(
    change: str, new_world: Any
) -> None:
    chosen = CHANGES["a new peer key" if change == "new peer key" else change]
    wanted, _ = await outcome_of(new_world(), chosen)
    nth, last = 1, 1
    while nth <= last:
        world = new_world()
        witness = await prepared(world, chosen)
        sleeper = Sleeper(world.kube, nth)
        sleepy = Reconciler(world.ports(kube=sleeper), "holdfast:test", "cluster.local")
        dreaming = asyncio.create_task(passes(sleepy, world))
        waiting = asyncio.create_task(sleeper.asleep.wait())
        await asyncio.wait((dreaming, waiting), return_when=asyncio.FIRST_COMPLETED)
        await settle(world)
        await new_root_keys(world)  # so that there is something to be put back
        await settle(world)
        sleeper.awake.set()
        await dreaming
        waiting.cancel()
        await settle(world)
        last = max(last, min(sleeper.calls, SLEEPS))
        nth += EVERY_SLEEP
        check(world, witness, None)
        ended = settled(world)
        assert {**ended, "conditions": None, "config": None} == {**wanted, "conditions": None, "config": None}
        assert ended["conditions"]["Ready"][0] == "True"


async def passes(reconciler: Reconciler, world: Any) -> None:
    for _ in range(8):
        with contextlib.suppress(KubeError):
            await reconciler.reconcile(TenantKey("loki", "logs"))
        world.pods.settle()


async def test_two_operators_at_once_without_a_lease_do_not_undo_each_others_work(new_world: Any) -> None:
    """A mistake of whoever runs two; every pass of one meets a pass of the other, write by write."""
    for change in ("a new Tenant", "new root keys", "TLS"):
        wanted, _ = await outcome_of(new_world(), CHANGES[change])
        world = new_world()
        witness = await prepared(world, CHANGES[change])
        kube: Any = Polite(world.kube)
        pair = [Reconciler(world.ports(kube=kube), "holdfast:test", "cluster.local") for _ in range(2)]
        await asyncio.gather(*(passes(one, world) for one in pair))
        await settle(world)
        check(world, witness, wanted)


class Polite:
    """Lets everybody else go first, before each call."""

    def __init__(self, kube: Any) -> None:
        self._kube = kube

    def __getattr__(self, verb: str) -> Any:
        call = getattr(self._kube, verb)

        async def later(*arguments: Any, **options: Any) -> Any:
            await asyncio.sleep(0)
            return await call(*arguments, **options)

        return later
