"""A client that sends nonsense is told so: never a fault of the server, and nothing is stored."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from holdfast_local.apiserver.storage.database import Database

NONSENSE: tuple[Any, ...] = ([{}], "x", 7, {"a": None})
TEMPLATE = {
    "metadata": {"labels": {"app": "x"}},
    "spec": {
        "containers": [
            {
                "name": "c",
                "image": "i",
                "ports": [{"containerPort": 80}],
                "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                "readinessProbe": {"httpGet": {"port": 80}},
                "resources": {"limits": {"cpu": "1"}},
            }
        ],
        "volumes": [{"name": "v", "secret": {"secretName": "s"}}],
    },
}
SELECTOR = {"matchLabels": {"app": "x"}}
NAMESPACED = "namespaces/default"
CASES: dict[str, dict[str, Any]] = {
    f"/apis/apps/v1/{NAMESPACED}/statefulsets": {
        "spec": {
            "serviceName": "x",
            "selector": SELECTOR,
            "template": TEMPLATE,
            "updateStrategy": {"type": "OnDelete"},
            "volumeClaimTemplates": [{"metadata": {"name": "d"}, "spec": {"accessModes": ["ReadWriteOnce"]}}],
        }
    },
    f"/api/v1/{NAMESPACED}/services": {"spec": {"selector": {"app": "x"}, "ports": [{"port": 80}]}},
    f"/api/v1/{NAMESPACED}/persistentvolumeclaims": {
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    },
    f"/apis/policy/v1/{NAMESPACED}/poddisruptionbudgets": {"spec": {"selector": SELECTOR, "maxUnavailable": 1}},
    f"/apis/rbac.authorization.k8s.io/v1/{NAMESPACED}/rolebindings": {
        "roleRef": {"kind": "Role", "name": "r"},
        "subjects": [{"kind": "User", "name": "u"}],
    },
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions": {
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "boats", "kind": "Boat"},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": {"a": {"type": "string"}}}},
                    "additionalPrinterColumns": [{"name": "A", "type": "string", "jsonPath": ".a"}],
                }
            ],
        }
    },
    f"/api/v1/{NAMESPACED}/secrets": {"data": {"a": "YQ=="}, "stringData": {"b": "c"}},
}
METADATA = {
    "name": "x",
    "labels": {"a": "b"},
    "annotations": {"a": "b"},
    "finalizers": ["example.com/f"],
    "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}],
    "managedFields": [{"manager": "m", "fieldsV1": {"f:data": {"f:a": {}}}}],
}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    keys: Any = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield (*path, key)
        yield from places(value[key], (*path, key))


def changed(value: dict[str, Any], path: tuple[Any, ...], nonsense: Any) -> dict[str, Any]:
    result = copy.deepcopy(value)
    place: Any = result
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = nonsense
    return result


@pytest.mark.parametrize("path", CASES)
async def test_wrong_types_anywhere_are_the_clients_fault(api: Any, path: str) -> None:
    whole = {"metadata": METADATA, **CASES[path]}
    for place in places(whole):
        for number, nonsense in enumerate(NONSENSE):
            body = changed(whole, place, nonsense)
            status, answer = await api.call("POST", path, body, dryRun="All")
            assert status < 500, (place, nonsense, answer)
            if number == 0:
                query = {"fieldManager": "m", "dryRun": "All"}
                status, answer = await api.call("PATCH", f"{path}/x", body, "application/apply-patch+yaml", **query)
                assert status < 500, (place, nonsense, answer)


async def test_a_state_that_cannot_be_written_is_an_error_and_changes_nothing(
    api: Any, config_map: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError("database or disk is full")

    path = "/api/v1/namespaces/default/configmaps"
    created = await api.create(path, config_map)
    with monkeypatch.context() as patched:
        patched.setattr(Database, "write", full)
        merge = "application/merge-patch+json"
        status, body = await api.call("PATCH", f"{path}/c", {"data": {"a": "2"}}, merge)
        assert (status, "disk is full" in body["message"]) == (500, True)
        assert (await api.call("DELETE", f"{path}/c"))[0] == 500
    assert await api.get(f"{path}/c") == created
    assert (await api.patch(f"{path}/c", {"data": {"a": "2"}}))["data"] == {"a": "2"}
