"""What the operator counts about itself, and the endpoint that tells it: `GET /metrics` on a port of its own.

A port of its own, because kopf's liveness endpoint serves nothing else.  Labels are bounded: outcomes, condition
types and their three statuses, kinds of certificates; never the name of a Tenant, of which there may be thousands and
which come and go.  Which Tenant it is stands in its conditions, its events and the log.

Not here: anything about a store's drives or requests, which its pods tell themselves.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Literal, get_args

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

Outcome = Literal["done", "failed", "timed_out", "broken"]
"""`failed`: the API server could not be used; `broken`: our own mistake."""
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
STATUSES = ("True", "False", "Unknown")
CERTIFICATES = ("clients", "peers", "authority")
PASS_BUCKETS_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
PATH = "/metrics"


class OperatorMetrics:
    """One registry; the controller and the reconciler report to it."""

    def __init__(self, version: str) -> None:
        self._version = version
        self._registry = CollectorRegistry()
        self._passes = Counter(
            "holdfast_operator_passes", "Passes over a Tenant, by outcome.", ("outcome",), registry=self._registry
        )
        for outcome in OUTCOMES:
            self._passes.labels(outcome)  # there from the start, so that the first failure is an increase
        self._seconds = Histogram(
            "holdfast_operator_pass_seconds",
            "How long a pass took.",
            buckets=PASS_BUCKETS_SECONDS,
            registry=self._registry,
        )
        self.listing_failures = Counter(
            "holdfast_operator_listing_failures", "Attempts to list the Tenants that failed.", registry=self._registry
        )
        self._requests = Counter(
            "holdfast_operator_kube_requests",
            "Requests to the API server, by verb and kind; without those of kopf.",
            ("verb", "kind"),
            registry=self._registry,
        )
        self._conditions: dict[object, Mapping[str, str]] = {}
        self._certificates: dict[object, Mapping[str, datetime]] = {}
        self.working: Callable[[], bool] = lambda: True
        """Whether this operator works, rather than standing by."""
        self._lengths: Callable[[], tuple[int, int, int]] = lambda: (0, 0, 0)
        self._registry.register(_Gauges(self))
        ProcessCollector(registry=self._registry)

    def watch_queue(self, lengths: Callable[[], tuple[int, int, int]]) -> None:
        """`lengths()`: Tenants that wait for a pass, that have one now, and whose last pass failed."""
        self._lengths = lengths

    def pass_ended(self, outcome: Outcome, seconds: float) -> None:
        self._passes.labels(outcome).inc()
        self._seconds.observe(seconds)

    def kube_called(self, verb: str, kind: str) -> None:
        """A request is made; both labels come from fixed sets."""
        self._requests.labels(verb, kind).inc()

    def tenant_seen(self, key: object, conditions: Iterable[Mapping[str, Any]]) -> None:
        """What a pass found a Tenant to be."""
        self._conditions[key] = {str(one["type"]): str(one["status"]) for one in conditions}

    def certificates_seen(self, key: object, ends: Mapping[str, datetime]) -> None:
        """When each of a Tenant's certificates ends, by what it is for; of `CERTIFICATES`."""
        self._certificates[key] = ends

    def tenant_gone(self, key: object) -> None:
        self._conditions.pop(key, None)
        self._certificates.pop(key, None)

    def tenants_unknown(self) -> None:
        """Nothing is known of any: another operator works."""
        self._conditions.clear()
        self._certificates.clear()

    def render(self) -> bytes:
        return generate_latest(self._registry)

    def gauges(self) -> Iterable[Metric]:
        """As of now; every family is there even without a Tenant."""
        info = GaugeMetricFamily("holdfast_operator_build_info", "1; the label `version`.", labels=("version",))
        info.add_metric((self._version,), 1)
        yield info
        yield GaugeMetricFamily(
            "holdfast_operator_working", "1 if this operator works, 0 while it stands by.", int(self.working())
        )
        waiting, running, failing = self._lengths()
        yield GaugeMetricFamily("holdfast_operator_queue_length", "Tenants that wait for a pass.", waiting)
        yield GaugeMetricFamily("holdfast_operator_passes_running", "Passes under way.", running)
        yield GaugeMetricFamily("holdfast_operator_failing_tenants", "Tenants whose last pass failed.", failing)
        yield GaugeMetricFamily("holdfast_operator_tenants", "Tenants looked after.", len(self._conditions))
        yield self._first_ends()
        by_condition = GaugeMetricFamily(
            "holdfast_operator_tenant_conditions", "Tenants by condition.", labels=("condition", "status")
        )
        tally = Tally(pair for conditions in self._conditions.values() for pair in conditions.items())
        for condition in sorted({condition for condition, _ in tally}):
            for status in STATUSES:
                by_condition.add_metric((condition, status), tally[condition, status])
        yield by_condition

    def _first_ends(self) -> Metric:
        first = GaugeMetricFamily(
            "holdfast_operator_certificate_expiry_timestamp_seconds",
            "When the first of all Tenants' certificates of that kind ends.",
            labels=("certificate",),
        )
        for kind in CERTIFICATES:
            ends = [found[kind] for found in self._certificates.values() if kind in found]
            if ends:
                first.add_metric((kind,), min(ends).timestamp())
        return first


class _Gauges(Collector):
    """Read when it is scraped, so that nothing has to be kept in step."""

    def __init__(self, metrics: OperatorMetrics) -> None:
        self._metrics = metrics

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        return self._metrics.gauges()


@asynccontextmanager
async def serve_metrics(metrics: OperatorMetrics, host: str | None, port: int) -> AsyncIterator[int]:
    """Serve within the `async with`; gives the port that was bound (`port` 0 takes any free one).

    `host` None listens on every interface.  Raises OSError where the port is taken.
    """

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=metrics.render(), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

    application = web.Application()
    application.router.add_get(PATH, answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
