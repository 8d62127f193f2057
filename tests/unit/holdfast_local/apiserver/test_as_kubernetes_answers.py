"""What the stand-in once allowed or worded otherwise than Kubernetes 1.36, whose answers these are."""

from __future__ import annotations

import copy
from typing import Any

import pytest

NAMESPACE = "/api/v1/namespaces/default"
SET = "/apis/apps/v1/namespaces/default/statefulsets/s"
BUDGET = "/apis/policy/v1/namespaces/default/poddisruptionbudgets/p"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
BOATS = "/apis/example.com/v1/namespaces/default/boats"
MERGE = "application/merge-patch+json"
TYPED = "failed to create typed patch object (default/"

STATEFUL_SET: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "StatefulSet",
    "metadata": {"name": "s"},
    "spec": {
        "serviceName": "s",
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}},
    },
}
SERVICE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "v"},
    "spec": {"selector": {"a": "b"}, "ports": [{"name": "s3", "port": 9000}]},
}
DISRUPTIONS: dict[str, Any] = {
    "apiVersion": "policy/v1",
    "kind": "PodDisruptionBudget",
    "metadata": {"name": "p"},
    "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"a": "b"}}},
}
POD = ("spec", "template", "spec")
CONTAINER = (*POD, "containers", 0)


def changed(manifest: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    manifest = copy.deepcopy(manifest)
    place: Any = manifest
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return manifest


def fields(body: Any) -> list[str]:
    return sorted({cause["field"] for cause in body.get("details", {}).get("causes", [])})


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ((*CONTAINER, "zzz"), 1, TYPED + "s; apps/v1, Kind=StatefulSet): .spec.template.spec.containers[0].zzz:"),
        (("spec", "replicas"), "3", TYPED),
        ((*CONTAINER, "env"), [{"name": "A", "value": 5}], TYPED),
        ((*CONTAINER, "env"), [{"name": "A"}, {"name": "A"}], TYPED),
        ((*CONTAINER, "resources"), {"limits": {"memory": "x"}}, "failed to convert new object (default/s; apps/v1"),
    ],
)  # fmt: skip
async def test_what_does_not_fit_its_schema_cannot_be_applied(
    api: Any, path: tuple[Any, ...], value: Any, message: str
) -> None:
    status, body = await api.apply(SET, changed(STATEFUL_SET, path, value))
    assert (status, body["code"]) == (500, 500)
    assert body["message"].startswith(message)
    assert (await api.call("GET", SET))[0] == 404


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ((*POD, "tolerations"), [{"operator": "Bogus"}], "spec.template.spec.tolerations[0].operator"),
        ((*POD, "nodeSelector"), {"a b": "c"}, "spec.template.spec.nodeSelector"),
        ((*CONTAINER, "image"), "", "spec.template.spec.containers[0].image"),
        (("spec", "minReadySeconds"), -1, "spec.minReadySeconds"),
    ],
)  # fmt: skip
async def test_a_stateful_set_whose_pods_could_never_be_is_refused(
    api: Any, path: tuple[Any, ...], value: Any, field: str
) -> None:
    status, body = await api.apply(SET, changed(STATEFUL_SET, path, value))
    assert (status, body["reason"], fields(body)) == (422, "Invalid", [field])


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        (("spec", "ports", 0, "nodePort"), 30000, "spec.ports[0].nodePort"),
        (("spec", "loadBalancerSourceRanges"), ["192.0.2.0/24"], "spec.LoadBalancerSourceRanges"),
        (("spec", "externalTrafficPolicy"), "Local", "spec.externalTrafficPolicy"),
    ],
)
async def test_fields_of_another_type_of_service_are_refused(
    api: Any, path: tuple[Any, ...], value: Any, field: str
) -> None:
    status, body = await api.apply(f"{NAMESPACE}/services/v", changed(SERVICE, path, value))
    assert (status, fields(body)) == (422, [field])


@pytest.mark.parametrize(
    ("field", "value"), [("maxUnavailable", -1), ("maxUnavailable", "x"), ("unhealthyPodEvictionPolicy", "X")]
)
async def test_a_budget_has_to_make_sense(api: Any, field: str, value: Any) -> None:
    status, body = await api.apply(BUDGET, changed(DISRUPTIONS, ("spec", field), value))
    assert (status, fields(body)) == (422, [f"spec.{field}"])


async def test_a_patch_for_an_object_made_anew_is_invalid_and_a_replacement_a_conflict(
    api: Any, config_map: dict[str, Any]
) -> None:
    await api.create(f"{NAMESPACE}/configmaps", config_map)
    path, other = f"{NAMESPACE}/configmaps/c", {"metadata": {"uid": "another"}}
    status, body = await api.call("PATCH", path, other, MERGE)
    assert (status, fields(body)) == (422, ["metadata.uid"])
    replacement = {**config_map, "metadata": {"name": "c", "uid": "another"}}
    assert (await api.call("PUT", path, replacement))[0] == 409
    status, body = await api.call("PATCH", path, {"metadata": {"name": "d"}}, MERGE)
    assert (status, body["message"]) == (400, "the name of the object (d) does not match the name on the URL (c)")


async def test_a_claim_without_a_volume_cannot_grow(api: Any) -> None:
    claims = f"{NAMESPACE}/persistentvolumeclaims"
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    await api.create(
        claims, {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "q"}, "spec": spec}
    )
    more = {"spec": {"resources": {"requests": {"storage": "2Gi"}}}}
    status, body = await api.call("PATCH", f"{claims}/q", more, MERGE)
    assert (status, fields(body)) == (422, ["spec"])
    await api.patch(f"{claims}/q", {"spec": {"volumeName": "there"}})
    await api.patch(f"{claims}/q", more)
    status, _ = await api.call("PATCH", f"{claims}/q", {"spec": {"resources": {"requests": {"storage": "x"}}}}, MERGE)
    assert status == 422


@pytest.mark.parametrize("allowed", [True, False, None])
async def test_a_claim_grows_only_where_its_class_lets_it(api: Any, allowed: bool | None) -> None:
    claims = f"{NAMESPACE}/persistentvolumeclaims"
    classes = "/apis/storage.k8s.io/v1/storageclasses"
    kind = {"metadata": {"name": "slow"}, "provisioner": "example.com/disks"}
    await api.create(classes, kind if allowed is None else {**kind, "allowVolumeExpansion": allowed})
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": "slow"}
    await api.create(claims, {"metadata": {"name": "q"}, "spec": {**spec, "volumeName": "there"}})
    more = {"spec": {"resources": {"requests": {"storage": "2Gi"}}}}
    status, body = await api.call("PATCH", f"{claims}/q", more, MERGE)
    if allowed:
        assert status == 200
        return
    assert (status, body["message"]) == (
        403,
        'persistentvolumeclaims "q" is forbidden: only dynamically provisioned pvc can be resized and the storageclass '
        "that provisions the pvc must support resize",
    )
    await api.patch(f"{claims}/q", {"metadata": {"labels": {"a": "b"}}})


async def test_an_event_stays_in_the_namespace_of_what_it_tells_of(api: Any) -> None:
    event = {"metadata": {"name": "e"}, "involvedObject": {"namespace": "other"}, "reason": "R", "message": "m"}
    status, body = await api.call("POST", f"{NAMESPACE}/events", event)
    assert (status, fields(body)) == (422, ["involvedObject.namespace"])


async def test_nulls_of_custom_kinds_count_as_absent_and_rules_name_what_they_see(api: Any) -> None:
    size = {
        "type": "integer",
        "default": 2,
        "x-kubernetes-validations": [{"rule": "self < 5", "message": "too large"}],
    }
    spec = {
        "type": "object",
        "properties": {"size": size, "flag": {"type": "string"}},
        "x-kubernetes-validations": [{"rule": "!has(self.flag) || self.flag != 'x'", "message": "no such flag"}],
    }
    root = [{"rule": "self.metadata.name != 'bad'", "message": "metadata.name: bad"}]
    schema = {"type": "object", "properties": {"spec": spec}, "x-kubernetes-validations": root}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"plural": "boats", "singular": "boat", "kind": "Boat"}
    definition = {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]}
    kind = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
    await api.create(CRDS, {**kind, "metadata": {"name": "boats.example.com"}, "spec": definition})

    def boat(name: str, **spec: Any) -> dict[str, Any]:
        return {"apiVersion": "example.com/v1", "kind": "Boat", "metadata": {"name": name}, "spec": spec}

    made = await api.create(BOATS, boat("good", flag=None, size=None))
    assert made["spec"] == {"size": 2}
    sentences = []
    for wrong in (boat("bad"), boat("other", flag="x"), boat("other", size=7)):
        status, body = await api.call("POST", BOATS, wrong)
        assert status == 422
        sentences += [f"{cause['field']}: {cause['message']}" for cause in body["details"]["causes"]]
    assert sentences == [
        "<nil>: Invalid value: metadata.name: bad",
        "spec: Invalid value: no such flag",
        "spec.size: Invalid value: 7: too large",
    ]
    status, body = await api.apply(f"{BOATS}/good", boat("good", sise=1), "other")
    assert (status, "field not declared in schema" in body["message"]) == (500, True)
