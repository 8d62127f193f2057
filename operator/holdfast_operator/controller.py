"""Runs passes: a queue of tenants that want one, a few workers, and a listing now and then.

Invariants: a tenant stands in the queue at most once and its passes never overlap; what becomes due during a
pass is run after it; a pass that fails is repeated with growing delays; each has a time limit.  The listing
finds Tenants whose events were lost.  There is no timer per Tenant and no finalizer: uninstalling the operator
first leaves nothing behind that blocks a deletion.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from holdfast_operator.kube.errors import KubeError, NamespaceEnding
from holdfast_operator.kube.port import TENANT, KubeClient
from holdfast_operator.metrics import OperatorMetrics, Outcome
from holdfast_operator.reconcile import TenantKey

WORKERS = 32
"""Passes at a time.  They mostly wait: for the API server, and for pods, of which silent ones are given seconds.  With
few workers a handful of tenants whose pods hang would hold up all others."""
SETTLE_SECONDS = 0.2
"""A pass that something in the cluster led to waits that long for what comes with it: a StatefulSet that starts is a
dozen changes."""
PASS_TIMEOUT_SECONDS = 120.0
LISTING_SECONDS = 60.0
FIRST_RETRY_SECONDS = 1.0
LAST_RETRY_SECONDS = 60.0
ENDING_SECONDS = 10.0
"""Until the next look at a Tenant of a namespace that is being deleted: it goes with that, which is an event."""
TOLD_AFTER_FAILURES = 3
"""Passes that fail one after the other before the Tenant's status says so: a conflict or two is no news."""
TELL_TIMEOUT_SECONDS = 20.0

logger = logging.getLogger(__name__)

Reconcile = Callable[[TenantKey], Awaitable[float | None]]
Tell = Callable[[TenantKey, str], Awaitable[None]]
"""Has the Tenant say why no pass over it comes to its end.  Raises KubeError."""


async def _tell_nobody(key: TenantKey, why: str) -> None:
    pass


class WorkQueue:
    """Tenants that want a pass, each at most once; bounded by the number of Tenants there are."""

    def __init__(self) -> None:
        self._due: dict[TenantKey, None] = {}
        self._running: set[TenantKey] = set()
        self._again: set[TenantKey] = set()
        self._timers: dict[TenantKey, asyncio.TimerHandle] = {}
        self._wake = asyncio.Event()

    def add(self, key: TenantKey) -> None:
        """Run a pass as soon as a worker is free."""
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        if key in self._running:
            self._again.add(key)
            return
        self._due[key] = None
        self._wake.set()

    def add_later(self, key: TenantKey, delay_seconds: float) -> None:
        """Run a pass after a while, unless one is due or planned earlier."""
        if key in self._due or key in self._again:
            return
        loop = asyncio.get_running_loop()
        known = self._timers.get(key)
        when = loop.time() + delay_seconds
        if known is not None:
            if known.when() <= when:
                return
            known.cancel()
        self._timers[key] = loop.call_at(when, self.add, key)

    async def take(self) -> TenantKey:
        """The next tenant; `done` must follow."""
        while not self._due:
            self._wake.clear()
            await self._wake.wait()
        key = next(iter(self._due))
        del self._due[key]
        self._running.add(key)
        return key

    def done(self, key: TenantKey) -> None:
        self._running.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    @property
    def waiting(self) -> int:
        """Tenants that want a pass now."""
        return len(self._due) + len(self._again)

    @property
    def running(self) -> int:
        return len(self._running)

    def clear(self) -> None:
        """Forget what is due and what is planned."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._due.clear()
        self._again.clear()


class Controller:
    """The loop around the reconcile; `trigger` is what event handlers call."""

    def __init__(
        self,
        kube: KubeClient,
        reconcile: Reconcile,
        namespaces: tuple[str, ...],
        metrics: OperatorMetrics,
        tell: Tell = _tell_nobody,
        stood_down: Callable[[], None] = lambda: None,
    ) -> None:
        """`stood_down`: called when passes have ended, and begin again later perhaps."""
        self._kube = kube
        self._metrics = metrics
        self._reconcile = reconcile
        self._tell = tell
        self._stood_down = stood_down
        self._namespaces = namespaces
        self._queue = WorkQueue()
        self._is_working = False
        self._failures: dict[TenantKey, int] = {}
        metrics.watch_queue(lambda: (self._queue.waiting, self._queue.running, len(self._failures)))

    def trigger(self, namespace: str, name: str) -> None:
        """Something about this Tenant may have changed.  Nothing while `run` does not run: it begins with all."""
        if self._is_working:
            self._queue.add(TenantKey(namespace, name))

    def trigger_soon(self, namespace: str, name: str) -> None:
        """The same of what belongs to a Tenant; its changes come in flocks."""
        if self._is_working:
            self._queue.add_later(TenantKey(namespace, name), SETTLE_SECONDS)

    async def run(self) -> None:
        """Until cancelled; may be run again."""
        self._is_working = True
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(WORKERS):
                    group.create_task(self._work())
                group.create_task(self._list_now_and_then())
        finally:
            self._is_working = False
            self._queue.clear()
            self._failures.clear()
            self._stood_down()

    async def _work(self) -> None:
        while True:
            key = await self._queue.take()
            try:
                delay = await self._one_pass(key)
            finally:
                self._queue.done(key)
            if delay is not None:
                self._queue.add_later(key, delay)

    async def _one_pass(self, key: TenantKey) -> float | None:
        fields = {"namespace": key.namespace, "tenant": key.name}
        started = asyncio.get_running_loop().time()
        outcome: Outcome = "broken"
        try:
            async with asyncio.timeout(PASS_TIMEOUT_SECONDS):
                delay = await self._reconcile(key)
        except NamespaceEnding as error:
            logger.debug("%s", error, extra={"fields": fields})
            self._metrics.pass_ended("done", asyncio.get_running_loop().time() - started)
            self._failures.pop(key, None)
            return ENDING_SECONDS
        except (KubeError, TimeoutError) as error:
            outcome = "timed_out" if isinstance(error, TimeoutError) else "failed"
            why = str(error) or f"it took longer than {PASS_TIMEOUT_SECONDS:.0f} s"
            logger.warning("pass failed: %s", str(error) or type(error).__name__, extra={"fields": fields})
        except Exception as error:
            # Our own mistake in one Tenant's pass must not end the passes of the others.  What it says may be anything.
            why = f"a mistake of the operator's own ({type(error).__name__}), which its log has whole"
            logger.exception("pass failed unexpectedly", extra={"fields": fields})
        else:
            self._metrics.pass_ended("done", asyncio.get_running_loop().time() - started)
            self._failures.pop(key, None)
            return delay
        self._metrics.pass_ended(outcome, asyncio.get_running_loop().time() - started)
        count = self._failures[key] = self._failures.get(key, 0) + 1
        if count >= TOLD_AFTER_FAILURES:
            with contextlib.suppress(KubeError, TimeoutError):
                async with asyncio.timeout(TELL_TIMEOUT_SECONDS):
                    await self._tell(key, why)
        return min(FIRST_RETRY_SECONDS * 2 ** min(count - 1, 16), LAST_RETRY_SECONDS)

    async def _list_now_and_then(self) -> None:
        while True:
            for namespace in self._namespaces or (None,):
                try:
                    tenants = await self._kube.list_objects(TENANT, namespace)
                except KubeError as error:
                    self._metrics.listing_failures.inc()
                    logger.warning("Tenants cannot be listed: %s", error)
                    continue
                for tenant in tenants:
                    self.trigger(tenant["metadata"]["namespace"], tenant["metadata"]["name"])
            await asyncio.sleep(LISTING_SECONDS)
