"""What handlers work with: one value, put together by the wiring, passed to every handler.

No handler reaches for anything that is not here or in its request, so a test builds a `Services` over the
in-memory object layer and has the whole API.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from holdfast_server.api.access import PolicyShelf
from holdfast_server.api.bucket_record import DOCUMENT_PREFIX
from holdfast_server.api.buckets_cache import BucketCache
from holdfast_server.api.identities import Identities
from holdfast_server.api.metrics import Metrics
from holdfast_server.api.quotas import USAGE_TOPIC, Quotas
from holdfast_server.api.sealing_keys import SealingKeys
from holdfast_server.audit.log import AuditLog
from holdfast_server.auth.failure_limits import FailureLimits
from holdfast_server.clock.bounds import TimeBounds
from holdfast_server.clock.port import Clock
from holdfast_server.contract import names
from holdfast_server.contract.health import ClusterHealth, PodHealth
from holdfast_server.memory.pod_memory import PodMemory
from holdfast_server.objects.healing import OPERATION_DEADLINE_SECONDS
from holdfast_server.objects.port import Objects

DOCUMENTS_TOPIC = "documents"
"""The announcements' topic: names of documents that have changed."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of one pod's front end in time and form; what adds up in memory is in `memory.limits`."""

    read_idle_seconds: float = 60.0
    """A client that sends nothing of its body for so long gets RequestTimeout."""
    write_idle_seconds: float = 60.0
    """A client that takes nothing of the response for so long is cut off."""
    keepalive_seconds: float = 150.0
    """An idle connection.  Longer than clients keep theirs (Go 90 s), so that it is they who close, never while they
    are about to send."""
    head_seconds: float = 30.0
    """The longest a request's head may take from its first byte to its last."""
    header_size_bytes: int = 16 * 1024
    """Of the request line and of each header."""
    head_size_bytes: int = 64 * 1024
    """Of a head as a whole."""
    header_count: int = 128
    operation_seconds: float = OPERATION_DEADLINE_SECONDS
    """After which no message of an operation of the object layer can take effect any more (L in
    docs/quorum.md); a bucket delete that could not reach every pod waits it out."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """What the tenant's configuration tells clients; it may change while the pod runs."""

    region: str = names.DEFAULT_REGION
    domains: tuple[str, ...] = ()
    object_ownership: str = "BucketOwnerEnforced"
    """Of a new bucket whose creator does not say; none is set where empty, and access control lists are in force."""


@dataclass(frozen=True, kw_only=True)
class Services:
    """Everything handlers and the front end need; built once per process."""

    objects: Objects
    clock: Clock
    buckets: BucketCache
    identities: Identities
    pod_health: Callable[[], PodHealth]
    """For /health/ready; from memory."""
    cluster_health: Callable[[bool], ClusterHealth]
    """For /health/cluster and the admin API; the argument asks: with this pod away?  From memory."""
    announce: Callable[[str, Sequence[str]], Awaitable[None]]
    """Tell every reachable peer that documents have changed (topic, names); bounded in time, raises nothing."""
    fence_bucket_everywhere: Callable[[bytes], Awaitable[bool]]
    """Fence a bucket id on every peer (this pod fences itself); True if all of them confirmed, bounded in time."""
    quotas: Quotas
    """What buckets may hold, and do hold; `objects` asks it."""
    bounds: TimeBounds
    """What time it is by all pods' clocks: for locks."""
    refuses_plaintext: Callable[[], bool] = lambda: False
    """Whether clients without TLS are turned away; asked for each request."""
    told: Callable[[], Told] = Told
    """Asked for each request."""
    pod_name: str = "holdfast"
    """Sent as x-amz-id-2, so that a client's log says which pod answered."""
    limits: Limits = field(default_factory=Limits)
    metrics: Metrics = field(default_factory=Metrics)
    failures: FailureLimits = field(default_factory=FailureLimits)
    """How many failed authentications sources may cause."""
    memory: PodMemory = field(default_factory=PodMemory)
    policies: PolicyShelf = field(default_factory=PolicyShelf)
    """Of buckets, parsed."""
    audit: AuditLog = field(default_factory=AuditLog)
    """The same as the object layer's."""
    every_pod_keeps_versions: Callable[[], bool] = lambda: True
    """Whether every pod of the tenant is reachable and of a release that knows of versions."""
    every_pod_keeps_locks: Callable[[], bool] = lambda: True
    """The same of locked versions."""
    every_pod_reduces: Callable[[], bool] = lambda: True
    """The same of versions with less redundancy than their erasure set."""
    every_pod_in_reach_reduces: Callable[[], bool] = lambda: True
    """The same, but for pods that cannot be reached."""
    every_pod_takes_opaque_etags: Callable[[], bool] = lambda: True
    """Whether every pod of the tenant is reachable and completes uploads whose parts' ETags are no MD5s."""
    sealing: SealingKeys = field(default_factory=SealingKeys)
    every_pod_knows_iam: Callable[[], bool] = lambda: True
    """The same of identities that clients make."""
    drives_listed: Callable[[], int] = lambda: 1
    """How many drives a listing reads pages from, over all erasure sets."""

    @property
    def domains(self) -> tuple[str, ...]:
        return self.told().domains

    async def on_announce(self, topic: str, changed: Sequence[str]) -> None:
        """A peer has changed documents: forget what is cached of them.  Raises Unavailable; forgetting is done
        before anything can fail."""
        if topic == USAGE_TOPIC:
            self.quotas.on_news(changed)
        if topic != DOCUMENTS_TOPIC:
            return
        for name in changed:
            if name.startswith(DOCUMENT_PREFIX):
                self.buckets.forget(name.removeprefix(DOCUMENT_PREFIX))
        await self.identities.announced(list(changed))

    async def fence_bucket(self, bucket_id: bytes) -> None:
        """A peer is deleting a bucket; see `BucketCache.fence`."""
        await self.buckets.fence(bucket_id)


class IncomingBody(Protocol):
    """The undecoded body of a request, as the front end receives it."""

    size_bytes: int | None
    """Content-Length; None where the client sends chunked transfer encoding."""

    def pieces(self) -> AsyncIterator[bytes]:
        """In order, to the end.  The first step lets a client that waits for `100 Continue` go on.
        Raises S3Error: IncompleteBody when the client goes away, RequestTimeout when it stalls."""

    async def fill(self, targets: Sequence[memoryview], go_on: Callable[[], bool]) -> int:
        """See `objects.port.Filler`; instead of `pieces`, and only where `size_bytes` is known.  Raises as `pieces`
        does."""
