"""The whole API over the in-memory object layer, for tests: one pod without peers and drives."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import uvloop

from holdfast_server.admin.handler import AdminApi
from holdfast_server.admin.heal_requests import Decide
from holdfast_server.admin.overview import TenantView
from holdfast_server.api.buckets_cache import BucketCache
from holdfast_server.api.dispatch import Mount
from holdfast_server.api.identities import Identities
from holdfast_server.api.metered_objects import metered
from holdfast_server.api.quotas import Quotas
from holdfast_server.api.server import start
from holdfast_server.api.services import Limits, Services, Told
from holdfast_server.clock.bounds import TimeBounds
from holdfast_server.clock.port import Clock
from holdfast_server.clock.system import SystemClock
from holdfast_server.contract import names
from holdfast_server.contract.admin import PodState
from holdfast_server.contract.health import ClusterHealth, PodHealth
from holdfast_server.drives.port import Register
from holdfast_server.iam.handler import IamApi
from holdfast_server.memory.pod_memory import PodMemory
from holdfast_server.objects.port import Missing, Objects
from holdfast_server.testing.memory_objects import MemoryObjects
from holdfast_server.transport.listener import Admission

ROOT_USER = "holdfast-root"
ROOT_PASSWORD = "holdfast-root-password"
PEER_KEY = b"a peer key for tests, of any length"
START_TIMEOUT_SECONDS = 60


async def announce_nowhere(topic: str, changed: Sequence[str]) -> None:
    """No peers."""


async def fence_nowhere(bucket_id: bytes) -> bool:
    """No peers: all of them have confirmed."""
    return True


def memory_services(
    objects: Objects | None = None,
    clock: Clock | None = None,
    limits: Limits | None = None,
    domains: tuple[str, ...] = (),
    memory: PodMemory | None = None,
    meter: bool = False,
) -> Services:
    """`meter`: buckets' quotas hold; a test that makes `objects` fail wants it bare."""
    clock = clock or SystemClock()
    objects = objects or MemoryObjects(clock)
    quotas = Quotas(clock, sets=lambda: [""])
    return Services(
        bounds=TimeBounds(clock),
        objects=metered(objects, quotas) if meter else objects,
        clock=clock,
        buckets=BucketCache(objects, clock, quotas.seen),
        quotas=quotas,
        identities=Identities(objects, clock, lambda: [PEER_KEY], lambda: [(ROOT_USER, ROOT_PASSWORD)]),
        pod_health=lambda: PodHealth(ready=True, pod="memory-0", epoch=1, version="test"),
        cluster_health=lambda maintenance: ClusterHealth(healthy=not maintenance, epoch=1),
        announce=announce_nowhere,
        fence_bucket_everywhere=fence_nowhere,
        told=lambda: Told(domains=domains),
        limits=limits or Limits(),
        memory=memory or PodMemory(),
    )


async def scan_nothing() -> None:
    """No drives."""


def lone_view(services: Services) -> TenantView:
    """A tenant of one pod without drives."""
    me = PodState(pod=services.pod_name, pool="main", ordinal=0, version="test", epoch=1)
    return TenantView(lambda: (), lambda: me, lambda: services.cluster_health(False), lambda: (), scan_nothing)


async def nothing_stuck(register: Register, keep: bool) -> str:
    """No drives: nothing can be stuck."""
    raise Missing(f"nothing about {register.key!r} is stuck")


def mounts_of(
    services: Services, view: TenantView | None = None, decide: Decide = nothing_stuck
) -> Mapping[str, Mount]:
    return {names.ADMIN_PREFIX: AdminApi(services, view or lone_view(services), decide).handle}


@dataclass(frozen=True)
class Endpoint:
    """A served API and its root keys."""

    host: str
    port: int
    access_key: str = ROOT_USER
    secret_key: str = ROOT_PASSWORD
    trust: ssl.SSLContext | None = None
    """What a client verifies it with; None for one that is reached without TLS."""

    @property
    def url(self) -> str:
        return f"http{'' if self.trust is None else 's'}://{self.host}:{self.port}"


@contextmanager
def served(
    services: Services,
    view: TenantView | None = None,
    decide: Decide = nothing_stuck,
    tls: tuple[ssl.SSLContext, ssl.SSLContext] | None = None,
    grace_seconds: float = 2.0,
) -> Iterator[Endpoint]:
    """Serve from a thread with its own loop (uvloop, as pods do), so that blocking clients can be used.  `tls`: the
    server's context and the clients', for a port that takes TLS, too.  `grace_seconds`: what requests under way get at
    the end."""
    admission = Admission() if tls is None else Admission(tls=lambda: tls[0])
    ready = threading.Event()
    bound: list[int] = []
    stopper: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        stop = asyncio.Event()
        stopper.append((asyncio.get_running_loop(), stop))
        front_end = await start(
            services, "127.0.0.1", 0, mounts_of(services, view, decide), admission, IamApi(services).handle
        )
        bound.append(front_end.port)
        ready.set()
        await stop.wait()
        await front_end.close(grace_seconds)

    thread = threading.Thread(target=lambda: uvloop.run(serve()), name="served API")
    thread.start()
    try:
        if not ready.wait(START_TIMEOUT_SECONDS):
            raise RuntimeError("the API did not start")
        yield Endpoint("127.0.0.1", bound[0], trust=None if tls is None else tls[1])
    finally:
        loop, stop = stopper[0]
        loop.call_soon_threadsafe(stop.set)
        thread.join()
