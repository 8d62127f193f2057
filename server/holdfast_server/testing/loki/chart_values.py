"""Loki's configuration out of values for its Helm chart, for the few fields that the examples use.

The chart itself is not needed, so that the values can be tried where there is neither Helm nor a cluster.  A field that
is not known here is refused: the examples must not come to use what nobody has tried.  Pure.

Not here: everything else that the chart makes.  Where the chart is at hand, a test compares both results.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

Values = dict[str, Any]
_CLASSIC = {
    "endpoint": "endpoint",
    "region": "region",
    "accessKeyId": "access_key_id",
    "secretAccessKey": "secret_access_key",
    "s3ForcePathStyle": "s3forcepathstyle",
    "insecure": "insecure",
    "http_config": "http_config",
}
"""`loki.storage.s3` of the chart → `common.storage.s3` of Loki."""
_STORAGE = {"type", "bucketNames", "s3", "use_thanos_objstore", "object_store"}
_LOKI = {"auth_enabled", "schemaConfig", "storage", "compactor", "limits_config", "storage_config", "rulerConfig"}


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> Values:
    """As `helm -f base -f over`: mappings are merged, everything else, lists too, is replaced."""
    result = copy.deepcopy(dict(base))
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else copy.deepcopy(value)
    return result


def read_values(paths: Iterable[Path]) -> Values:
    """Values files in the order of `helm -f`."""
    values: Values = {}
    for path in paths:
        values = merged(values, yaml.safe_load(path.read_text()))
    return values


def loki_configuration(values: Mapping[str, Any]) -> Values:
    """What the chart would put into Loki's file for these values, storage and schema above all.

    Raises ValueError for a field of `loki` or `loki.storage` that is not known here.
    """
    loki = values["loki"]
    storage = loki["storage"]
    _refuse_others(loki, _LOKI, "loki")
    _refuse_others(storage, _STORAGE, "loki.storage")
    thanos = bool(storage.get("use_thanos_objstore", False))
    bucket = storage["bucketNames"]["chunks"]
    configuration: Values = {
        "auth_enabled": loki["auth_enabled"],
        "schema_config": loki["schemaConfig"],
        "compactor": loki.get("compactor", {}),
        "limits_config": loki.get("limits_config", {}),
        "common": {"storage": _thanos(storage, bucket) if thanos else _classic(storage, bucket)},
        "storage_config": {"use_thanos_objstore": thanos, **loki.get("storage_config", {})},
    }
    return copy.deepcopy(configuration)


def with_bundled_store(values: Mapping[str, Any], endpoint: str) -> Values:
    """`loki_configuration` where `minio.enabled` holds: the main store is then the MinIO that the chart brings."""
    minio = values["minio"]
    configuration = loki_configuration(values)
    configuration["common"]["storage"] = {
        "s3": {
            "endpoint": endpoint,
            "bucketnames": "chunks",
            "access_key_id": minio["rootUser"],
            "secret_access_key": minio["rootPassword"],
            "s3forcepathstyle": True,
            "insecure": True,
        }
    }
    return configuration


def _classic(storage: Mapping[str, Any], bucket: str) -> Values:
    given = storage["s3"]
    _refuse_others(given, set(_CLASSIC), "loki.storage.s3")
    return {"s3": {"bucketnames": bucket, **{_CLASSIC[name]: value for name, value in given.items()}}}


def _thanos(storage: Mapping[str, Any], bucket: str) -> Values:
    store = storage["object_store"]
    if store["type"] != "s3":
        raise ValueError(f"loki.storage.object_store.type: {store['type']!r} is not s3")
    return {"object_store": {"s3": {**store["s3"], "bucket_name": bucket}}}


def _refuse_others(given: Mapping[str, Any], known: set[str], where: str) -> None:
    others = sorted(set(given) - known)
    if others:
        raise ValueError(f"{where}: {', '.join(others)} not known here")
