"""The end-to-end suite runs on the cluster in KUBECONFIG, which must have the operator; else on the stand-in.

HOLDFAST_NODE_POWER may hold a command that, followed by `on` or `off` and a node's name, starts or stops that node of
the cluster in KUBECONFIG; without it nobody's node is touched, but for being cordoned.
"""

import os
import secrets
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast_operator.testing.cluster import Cluster
from holdfast_server.testing.standin import StandIn

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIn | None]:
    """None where the suite runs on a cluster of somebody's."""
    if "KUBECONFIG" in os.environ:
        yield None
        return
    state, tenant = tmp_path_factory.mktemp("e2e") / "state", ROOT / "examples/smallest.yaml"
    # As on a real cluster, but for the time it takes there: no two pods hear of a change at once.
    standin = StandIn(state, tenant, nodes=4, refresh_seconds=3.0)
    standin.start()
    try:
        yield standin
    finally:
        standin.stop()


@pytest.fixture(scope="session")
def cluster(standin: StandIn | None) -> Iterator[Cluster]:
    if standin is not None:
        cluster = Cluster(standin.kubeconfig)
    else:
        power = shlex.split(os.environ.get("HOLDFAST_NODE_POWER", ""))
        cluster = Cluster(Path(os.environ["KUBECONFIG"]), power)
    yield cluster
    cluster.close()


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    name = f"e2e-{secrets.token_hex(4)}"
    cluster.make_namespace(name)
    yield name
    cluster.delete_namespace(name)


@pytest.fixture
def tenant(namespace: str) -> dict[str, Any]:
    """Four servers with one volume each, a bucket and a user that may use it."""
    claim = {"spec": {"resources": {"requests": {"storage": "1Gi"}}}}
    pool = {"name": "main", "servers": 4, "volumesPerServer": 1, "volumeClaimTemplate": claim}
    return {
        "apiVersion": "holdfast.dev/v1",
        "kind": "Tenant",
        "metadata": {"name": "store", "namespace": namespace},
        "spec": {
            "pools": [pool],
            "buckets": [{"name": "first"}, {"name": "second"}],
            "users": [{"name": "app", "buckets": [{"name": "first", "access": "ReadWrite"}]}],
        },
    }
