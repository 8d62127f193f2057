"""What is counted in plain numbers is shown as Prometheus reads it."""

from __future__ import annotations

import pytest

from holdfast_server.api.metrics import LATENCY_BUCKETS_SECONDS, Metrics


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_requests_are_counted_by_operation_and_class_of_status() -> None:
    metrics = Metrics()
    for operation, status in (("PutObject", 200), ("PutObject", 204), ("PutObject", 503), ("GetObject", 404)):
        metrics.requests.observe(operation, status, 0.1)
    name = "holdfast_s3_requests_total"
    assert value(metrics, name, operation="PutObject", status="2xx") == 2
    assert value(metrics, name, operation="PutObject", status="5xx") == 1
    assert value(metrics, name, operation="GetObject", status="4xx") == 1
    assert value(metrics, name, operation="GetObject", status="2xx") is None


def test_latencies_are_told_as_how_many_took_at_most_so_long() -> None:
    metrics = Metrics()
    for seconds in (0.0, 0.001, 0.0011, 0.1, 30.0, 31.0):
        metrics.requests.observe("PutObject", 200, seconds)
    name = "holdfast_s3_request_seconds"
    found = {
        bound: value(metrics, f"{name}_bucket", operation="PutObject", le=bound)
        for bound in ("0.001", "0.0025", "0.05", "0.1", "10.0", "30.0", "+Inf")
    }
    assert found == {"0.001": 2, "0.0025": 3, "0.05": 3, "0.1": 4, "10.0": 4, "30.0": 5, "+Inf": 6}
    assert value(metrics, f"{name}_count", operation="PutObject") == 6
    assert value(metrics, f"{name}_sum", operation="PutObject") == pytest.approx(61.1021)
    text = metrics.render().decode()
    assert text.count(f"{name}_bucket{{") == len(LATENCY_BUCKETS_SECONDS) + 1


def test_what_flows_and_what_is_under_way_is_shown() -> None:
    metrics = Metrics()
    metrics.requests.in_flight += 2
    metrics.requests.received_bytes += 10
    metrics.requests.sent_bytes += 20
    text = metrics.render().decode()
    for line in (
        "holdfast_s3_requests_in_flight 2.0",
        "holdfast_s3_received_bytes_total 10.0",
        "holdfast_s3_sent_bytes_total 20.0",
    ):
        assert f"\n{line}\n" in text
