"""A Tenant that declares what its pods do not know yet: told while they are there, and honoured once they are replaced.

That is an upgrade in one go: operator, image and a field that came with them.  The former release is made up
(`testing.upgrades.former_server`), or a real one, where HOLDFAST_FORMER_TREE names a checkout of one that has no
`etag`.  On the stand-in alone, whose containers find their program on a PATH that a pool may set.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from holdfast_operator.testing.cluster import Cluster, wait_for
from holdfast_operator.testing.traffic import LARGE_SIZE_BYTES, s3, traffic
from holdfast_server.testing.standin import StandIn
from holdfast_server.testing.upgrades import former_server

pytestmark = [pytest.mark.timeout(1200), pytest.mark.cluster]

FORMER = os.environ.get("HOLDFAST_FORMER_TREE", "")
ROLL_SECONDS = 400.0


@pytest.fixture
def former_path(tmp_path: Path) -> str:
    """A PATH on which `holdfast` is the former release."""
    python = shlex.quote(sys.executable)
    told = f'exec {python} {shlex.join(former_server.ENTRY)} "$@"'
    if FORMER:
        found = f"{FORMER}/server:{FORMER}/operator"
        told = f'exec env PYTHONPATH={shlex.quote(found)} {python} -m holdfast_server.main "$@"'
    (tmp_path / "holdfast").write_text(f"#!/bin/sh\n{told}\n")
    (tmp_path / "holdfast").chmod(0o755)
    return f"{tmp_path}:{os.environ['PATH']}"


def test_a_bucket_gets_its_etags_once_the_pods_that_know_none_are_replaced(
    cluster: Cluster, standin: StandIn | None, tenant: dict[str, Any], former_path: str
) -> None:
    if standin is None:
        pytest.skip("pods of a cluster run what is in their image")
    namespace = str(tenant["metadata"]["namespace"])
    (pool,) = tenant["spec"]["pools"]
    pool |= {"servers": 3, "env": [{"name": "PATH", "value": former_path}]}
    tenant["spec"]["buckets"] = [{"name": "first"}, {"name": "second", "etag": "Opaque"}]

    def buckets() -> dict[str, tuple[str, str]]:
        found = cluster.tenant(namespace, "store").get("status", {}).get("buckets", [])
        return {one["name"]: (one["state"], one.get("message", "")) for one in found}

    def told() -> str:
        state, message = buckets().get("second", ("", ""))
        return message if state == "Failed" else ""

    def rolled() -> bool:
        if told():
            seen.add(told())
        current = cluster.is_ready(namespace, "store")
        return current and cluster.condition(namespace, "store", "Progressing")["reason"] == "Settled"

    cluster.create_tenant(tenant)
    wait_for("the refusal to be told", lambda: "etag: MethodNotAllowed" in told(), ROLL_SECONDS)
    wait_for("the other bucket: former pods can do that", lambda: buckets()["first"][0] == "Ready")
    wait_for("the condition", lambda: cluster.condition(namespace, "store", "BucketsReady").get("status") == "False")
    seen: set[str] = set()
    with cluster.endpoint(namespace, "store") as endpoint:
        root = cluster.secret(namespace, "store-root")
        with traffic(endpoint, root) as done:
            wait_for("some traffic", lambda: done.done >= 10)
            cluster.patch_tenant(namespace, "store", {"spec": {"pools": [{**pool, "env": None}]}})
            wait_for("the roll to end", rolled, ROLL_SECONDS)
        assert done.failures == []
        print(f"  told while pods of two releases ran: {seen}")
        assert buckets()["second"] == ("Ready", "")
        put = s3(endpoint, root).put_object(Bucket="second", Key="k", Body=bytes(LARGE_SIZE_BYTES))
        assert put["ETag"].endswith('-1"')
