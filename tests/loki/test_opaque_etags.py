"""Loki on a bucket whose ETags are no MD5s (`etag: Opaque`): every line comes back, by both of its clients.

Each writes; then it, and then the other, is asked for all of it with nothing on Loki's own disk.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from holdfast_server.testing.boto import client_of, endpoint_of, set_opaque_etags
from holdfast_server.testing.loki.chart_values import loki_configuration, read_values
from holdfast_server.testing.loki.lines import NANOSECONDS, STEP_NANOSECONDS, Ledger, differences
from holdfast_server.testing.loki.program import Loki, seconds_ago
from holdfast_server.testing.pods import PodProcesses

pytestmark = [pytest.mark.timeout(1800)]

EXAMPLES = Path(__file__).parents[2] / "examples" / "loki"
ADDRESS = "logs.loki.svc.cluster.local:9000"
BUCKET, RULER = "loki-chunks", "loki-ruler"
LINES = 12_000
SPAN_SECONDS = 3_600
INLINE_BYTES = 64 * 1024


@pytest.fixture
async def pods(tmp_path: Path) -> AsyncIterator[PodProcesses]:
    made = PodProcesses(tmp_path / "pods", servers=4, volumes=1)
    try:
        await made.start_all()
        for bucket in (BUCKET, RULER):
            client_of(endpoint_of(made)).create_bucket(Bucket=bucket)
        await set_opaque_etags(made, BUCKET)
        yield made
    finally:
        made.stop()


def configuration(pods: PodProcesses, thanos: bool) -> dict[str, Any]:
    """The example values, but for the Service's address."""
    files = ["values.yaml", *(["values-thanos.yaml"] if thanos else [])]
    text = json.dumps(loki_configuration(read_values(EXAMPLES / file for file in files)))
    found: dict[str, Any] = json.loads(text.replace(ADDRESS, pods.endpoint().removeprefix("http://")))
    return found


def chunks(pods: PodProcesses) -> list[dict[str, Any]]:
    """Entries of the tenant that Loki knows without authentication; the index is elsewhere."""
    pages = client_of(endpoint_of(pods)).get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="fake/")
    return [entry for page in pages for entry in page.get("Contents", [])]


@pytest.mark.parametrize("client", ["classic", "thanos"])
def test_every_line_comes_back_where_etags_are_opaque(
    client: str, pods: PodProcesses, loki_binary: Path, tmp_path: Path
) -> None:
    ledger = Ledger(f"{client}-{secrets.token_hex(4)}", seed=5)
    first_ns = seconds_ago(SPAN_SECONDS)
    last_ns = first_ns + LINES * STEP_NANOSECONDS + NANOSECONDS
    keys = {"AWS_ACCESS_KEY_ID": pods.access_key, "AWS_SECRET_ACCESS_KEY": pods.secret_key}
    loki = Loki(loki_binary, tmp_path / "loki", configuration(pods, client == "thanos"), keys)
    with loki.running():
        loki.push(ledger, ledger.batch(LINES, first_ns))
        loki.flush()
    entries = chunks(pods)
    print(f"  {len(entries)} chunks, {max(entry['Size'] for entry in entries)} bytes at most")
    large = [entry for entry in entries if entry["Size"] > INLINE_BYTES]
    assert large, "no chunk is large enough"
    assert all(entry["ETag"].endswith('-1"') for entry in large), "as the bucket has them"
    for thanos in (client == "thanos", client != "thanos"):
        loki.configuration = configuration(pods, thanos)
        with loki.running():
            assert differences(ledger, loki.query(ledger.run, first_ns, last_ns)) == []
    print(f"  {len(ledger)} lines back, twice")
