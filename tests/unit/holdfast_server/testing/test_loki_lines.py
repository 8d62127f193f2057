"""What compares Loki's lines notices each way in which they can be wrong, and reads Loki's metrics of both clients."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast_server.testing.loki.chart_values import merged
from holdfast_server.testing.loki.lines import LOUD_STREAMS, QUIET_STREAMS, Ledger, Line, differences
from holdfast_server.testing.loki.program import Loki

COUNT = 400

METRICS = """# HELP loki_s3_request_duration_seconds Time spent doing S3 requests.
loki_s3_request_duration_seconds_count{operation="S3.GetObject",status_code="200"} 7
loki_s3_request_duration_seconds_count{operation="S3.GetObject",status_code="500"} 2
loki_s3_request_duration_seconds_count{operation="S3.PutObject",status_code="200"} 1e+02
loki_objstore_bucket_operations_total{bucket="",operation="get"} 9
loki_objstore_bucket_operations_total{bucket="",operation="exists"} 0
loki_objstore_bucket_operation_failures_total{bucket="",operation="get"} 3
loki_build_info{version="3"} 1
"""


@pytest.fixture
def ledger() -> Ledger:
    found = Ledger("run", seed=1)
    found.acknowledge(found.batch(COUNT, 1_000))
    return found


def everything(ledger: Ledger) -> dict[str, list[Line]]:
    return {stream: sorted(lines) for stream, lines in ledger.lines.items()}


def test_lines_are_spread_over_loud_and_quiet_streams_and_none_is_like_another(ledger: Ledger) -> None:
    assert len(ledger) == COUNT
    assert len(ledger.lines) == LOUD_STREAMS + QUIET_STREAMS
    texts = [text for lines in ledger.lines.values() for _, text in lines]
    assert len(set(texts)) == COUNT
    assert differences(ledger, everything(ledger)) == []
    again = Ledger("run", seed=1)
    assert again.batch(COUNT, 1_000).keys() == ledger.lines.keys(), "one seed, the same lines"


def test_a_line_missing_changed_moved_or_doubled_is_told(ledger: Ledger) -> None:
    for change, told in (
        (lambda lines: lines.pop(), "1 of {} missing, 0 foreign, 0 doubled"),
        (lambda lines: lines.append(lines[0]), "0 of {} missing, 0 foreign, 1 doubled"),
        (lambda lines: lines.append(("1", "other")), "0 of {} missing, 1 foreign, 0 doubled"),
        (lambda lines: lines.append(("1", lines.pop()[1])), "1 of {} missing, 1 foreign, 0 doubled"),
    ):
        got = everything(ledger)
        count = len(got["kept/loud-1"])
        change(got["kept/loud-1"])
        assert differences(ledger, got) == [f"kept/loud-1: {told.format(count)}"]


def test_a_stream_missing_or_foreign_is_told(ledger: Ledger) -> None:
    got = everything(ledger)
    count = len(got.pop("kept/loud-1"))
    got["kept/unknown"] = [("1", "other")]
    assert differences(ledger, got) == [
        f"kept/loud-1: {count} of {count} missing, 0 foreign, 0 doubled",
        "kept/unknown: 0 of 0 missing, 1 foreign, 0 doubled",
    ]


def test_lines_that_retention_is_to_delete_are_not_missed(ledger: Ledger) -> None:
    got = everything(ledger)
    ledger.acknowledge(ledger.batch(10, 1, kind="doomed"))
    assert differences(ledger, got) == []


def test_requests_are_counted_for_both_clients(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Loki, "_call", lambda self, method, path, body=None: METRICS.encode())
    loki = Loki(tmp_path / "none", tmp_path, {})
    assert loki.store_requests() == {
        "GetObject": 7,
        "GetObject 500": 2,
        "PutObject": 100,
        "get": 9,
        "get failed": 3,
    }
    assert "loki_build_info" in loki.metrics()


def test_values_are_merged_as_helm_does() -> None:
    base = {"a": {"b": 1, "c": [1, 2]}, "d": 1}
    assert merged(base, {"a": {"c": [3]}, "e": {"f": None}}) == {"a": {"b": 1, "c": [3]}, "d": 1, "e": {"f": None}}
    assert base == {"a": {"b": 1, "c": [1, 2]}, "d": 1}
