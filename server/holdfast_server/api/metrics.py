"""What a pod counts about its requests, for `/metrics`.

Labels are bounded: the operation's name from the table of operations (never anything a client chose) and the
class of the status.  Each `Metrics` has its own registry, so that several servers in one process (tests) do
not share counts; the wiring may register more collectors in `registry`.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

LATENCY_BUCKETS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "holdfast_s3_requests",
            "Requests answered, by operation and class of status.",
            ("operation", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "holdfast_s3_request_seconds",
            "From the head of the request to the end of the response.",
            ("operation",),
            buckets=LATENCY_BUCKETS_SECONDS,
            registry=self.registry,
        )
        self.received_bytes = Counter(
            "holdfast_s3_received_bytes", "Bytes of request bodies, as on the wire.", registry=self.registry
        )
        self.sent_bytes = Counter("holdfast_s3_sent_bytes", "Bytes of response bodies.", registry=self.registry)
        self.in_flight = Gauge("holdfast_s3_requests_in_flight", "Requests being worked on.", registry=self.registry)
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

    def observe(self, operation: str, status: int, seconds: float) -> None:
        self._requests.labels(operation, f"{status // 100}xx").inc()
        self._seconds.labels(operation).observe(seconds)

    def render(self) -> bytes:
        return generate_latest(self.registry)
