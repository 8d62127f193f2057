"""Health and metrics: answered without a signature, without touching a drive, also when the pod is full.

`/health/live`: the process serves.  `/health/ready`: keys are loaded and drives are open, never quorum.
`/health/cluster`: the write quorum holds in every set; with `?maintenance=true`, would still without this pod.
`/minio/health/*` are aliases for probes that exist today.  Exact paths only; the names are reserved as buckets.
"""

from __future__ import annotations

import msgspec

from holdfast_server.api import metrics
from holdfast_server.api.services import Services
from holdfast_server.contract import names
from holdfast_server.s3.request import Response, parse_query

_JSON = {"content-type": "application/json"}
_LIVE = frozenset({names.HEALTH_LIVE_PATH, "/minio/health/live"})
_READY = frozenset({names.HEALTH_READY_PATH, "/minio/health/ready"})
_CLUSTER = frozenset({names.HEALTH_CLUSTER_PATH, "/minio/health/cluster"})
PATHS = _LIVE | _READY | _CLUSTER | {names.METRICS_PATH}


def answer_probe(method: str, raw_path: str, raw_query: str, services: Services) -> Response | None:
    """The response, or None if the request is no probe.  A broken query counts as none."""
    if raw_path not in PATHS or method not in ("GET", "HEAD"):
        return None
    if raw_path in _LIVE:
        return Response(status=200)
    if raw_path in _READY:
        pod = services.pod_health()
        return Response(status=200 if pod.ready else 503, headers=dict(_JSON), body=msgspec.json.encode(pod))
    if raw_path in _CLUSTER:
        maintenance = parse_query(raw_query).get("maintenance", "").lower() == "true"
        cluster = services.cluster_health(maintenance)
        return Response(status=200 if cluster.healthy else 503, headers=dict(_JSON), body=msgspec.json.encode(cluster))
    return Response(status=200, headers={"content-type": metrics.CONTENT_TYPE}, body=services.metrics.render())
