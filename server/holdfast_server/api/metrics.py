"""What a pod counts about its requests, for `/metrics`.

Labels are bounded: the operation's name from the table of operations (never anything a client chose) and the
class of the status.  Each `Metrics` has its own registry, so that several servers in one process (tests) do
not share counts; the wiring may register more collectors in `registry`.

What is counted for every request is kept in plain numbers, and becomes metrics when somebody asks: the library's own
counters take a lock and several calls for each step, ten times as much as there is to do.  They are of the event loop's
thread alone.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

LATENCY_BUCKETS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


class _Latencies:
    """Of one operation."""

    __slots__ = ("counts", "seconds")

    def __init__(self) -> None:
        self.counts = [0] * (len(LATENCY_BUCKETS_SECONDS) + 1)
        self.seconds = 0.0

    def buckets(self) -> list[tuple[str, float]]:
        """As Prometheus has them: how many took at most so long."""
        bounds = [*map(floatToGoString, LATENCY_BUCKETS_SECONDS), "+Inf"]
        return [(bound, float(sum(self.counts[: index + 1]))) for index, bound in enumerate(bounds)]


class Requests(Collector):
    """What is counted for every request."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.received_bytes = 0
        self.sent_bytes = 0
        self._answered: dict[tuple[str, int], int] = {}
        """By operation and class of status."""
        self._latencies: dict[str, _Latencies] = {}

    def observe(self, operation: str, status: int, seconds: float) -> None:
        """One was answered."""
        key = (operation, status // 100)
        self._answered[key] = self._answered.get(key, 0) + 1
        latencies = self._latencies.get(operation)
        if latencies is None:
            latencies = self._latencies[operation] = _Latencies()
        latencies.counts[bisect_left(LATENCY_BUCKETS_SECONDS, seconds)] += 1
        latencies.seconds += seconds

    def collect(self) -> Iterator[Metric]:
        """For the registry."""
        answered = CounterMetricFamily(
            "holdfast_s3_requests",
            "Requests answered, by operation and class of status.",
            labels=("operation", "status"),
        )
        for (operation, status), count in self._answered.items():
            answered.add_metric((operation, f"{status}xx"), count)
        yield answered
        seconds = HistogramMetricFamily(
            "holdfast_s3_request_seconds",
            "From the head of the request to the end of the response.",
            labels=("operation",),
        )
        for operation, latencies in self._latencies.items():
            seconds.add_metric((operation,), latencies.buckets(), latencies.seconds)
        yield seconds
        yield CounterMetricFamily(
            "holdfast_s3_received_bytes", "Bytes of request bodies, as on the wire.", value=self.received_bytes
        )
        yield CounterMetricFamily("holdfast_s3_sent_bytes", "Bytes of response bodies.", value=self.sent_bytes)
        yield GaugeMetricFamily("holdfast_s3_requests_in_flight", "Requests being worked on.", value=self.in_flight)


class Metrics:
    """All counts of a pod's S3 API, and the registry that `/metrics` shows."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Requests()
        self.registry.register(self.requests)
        self.rejected = Counter(
            "holdfast_s3_requests_rejected", "Requests refused because too many were in flight.", registry=self.registry
        )
        self.malformed = Counter(
            "holdfast_http_malformed", "Requests that were no valid HTTP or too large.", registry=self.registry
        )
        self._authentication_failures = Counter(
            "holdfast_s3_authentication_failures",
            "Requests with an unknown key, a wrong signature or a wrong token, by the error's code.",
            ("code",),
            registry=self.registry,
        )
        self.authentication_throttled = Counter(
            "holdfast_s3_authentication_throttled",
            "Requests refused unseen because too many of the same source had failed to authenticate.",
            registry=self.registry,
        )

    def authentication_failed(self, code: str) -> None:
        """`code` is one of `auth.verified.FAILURES`."""
        self._authentication_failures.labels(code).inc()

    def render(self) -> bytes:
        """The whole registry, as Prometheus reads it."""
        return generate_latest(self.registry)
