"""Creating, reading, changing and deleting objects, as any client does it."""

from __future__ import annotations

from typing import Any

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
SECRETS = "/api/v1/namespaces/default/secrets"
SETS = "/apis/apps/v1/namespaces/default/statefulsets"
PODS = "/api/v1/namespaces/default/pods"
MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"


def stateful_set(name: str = "web", **spec: Any) -> dict[str, Any]:
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}
    content = {"serviceName": name, "selector": {"matchLabels": {"app": name}}, "template": template, **spec}
    return {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": name}, "spec": content}


def pod(name: str = "p", **spec: Any) -> dict[str, Any]:
    content = {"containers": [{"name": "c", "image": "i:1"}], **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": content}


async def test_a_created_object_gets_identity_and_version(api: Any, config_map: Any) -> None:
    metadata = (await api.create(CONFIG_MAPS, config_map))["metadata"]
    assert metadata["namespace"] == "default"
    assert metadata["uid"]
    assert metadata["creationTimestamp"].endswith("Z")
    assert int(metadata["resourceVersion"]) > 0
    assert (await api.get(f"{CONFIG_MAPS}/c"))["metadata"] == metadata


async def test_generate_name_gives_a_fresh_name_each_time(api: Any, config_map: Any) -> None:
    config_map["metadata"] = {"generateName": "c-"}
    names = {(await api.create(CONFIG_MAPS, config_map))["metadata"]["name"] for _ in range(3)}
    assert len(names) == 3
    assert all(len(name) == 7 and name.startswith("c-") for name in names)


async def test_creating_twice_conflicts(api: Any, config_map: Any) -> None:
    await api.create(CONFIG_MAPS, config_map)
    status, body = await api.call("POST", CONFIG_MAPS, config_map)
    assert (status, body["reason"], body["message"]) == (409, "AlreadyExists", 'configmaps "c" already exists')


async def test_an_absent_object_and_an_absent_namespace_are_named(api: Any, config_map: Any) -> None:
    status, body = await api.call("GET", f"{SETS}/none")
    assert (status, body["message"]) == (404, 'statefulsets.apps "none" not found')
    status, body = await api.call("POST", "/api/v1/namespaces/nowhere/configmaps", config_map)
    assert (status, body["message"]) == (404, 'namespaces "nowhere" not found')


async def test_a_stale_update_is_refused_and_changes_nothing(api: Any, config_map: Any) -> None:
    first = await api.create(CONFIG_MAPS, config_map)
    second = await api.patch(f"{CONFIG_MAPS}/c", {"data": {"a": "2"}})
    status, body = await api.call("PUT", f"{CONFIG_MAPS}/c", {**first, "data": {"a": "3"}})
    assert (status, body["reason"]) == (409, "Conflict")
    assert await api.get(f"{CONFIG_MAPS}/c") == second


async def test_an_update_without_effect_keeps_the_version(api: Any, config_map: Any) -> None:
    await api.create(CONFIG_MAPS, config_map)
    first = await api.patch(f"{CONFIG_MAPS}/c", {"data": {"a": "2"}})
    assert await api.patch(f"{CONFIG_MAPS}/c", {"data": {"a": "2"}}) == first


async def test_dry_run_answers_as_if_but_stores_nothing(api: Any, config_map: Any) -> None:
    shown = await api.create(CONFIG_MAPS, config_map, dryRun="All")
    assert shown["metadata"]["uid"]
    assert (await api.call("GET", f"{CONFIG_MAPS}/c"))[0] == 404
    created = await api.create(CONFIG_MAPS, config_map)
    assert (await api.patch(f"{CONFIG_MAPS}/c", {"data": {"a": "9"}}, dryRun="All"))["data"] == {"a": "9"}
    assert (await api.call("DELETE", f"{CONFIG_MAPS}/c", dryRun="All"))[0] == 200
    assert await api.get(f"{CONFIG_MAPS}/c") == created


async def test_string_data_of_a_secret_is_encoded_and_not_kept(api: Any) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"key": "value"}}
    created = await api.create(SECRETS, secret)
    assert created["data"] == {"key": "dmFsdWU="}
    assert "stringData" not in created
    assert created["type"] == "Opaque"


async def test_data_of_a_secret_must_be_base64(api: Any) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"key": "not base64!"}}
    status, body = await api.call("POST", SECRETS, secret)
    assert (status, body["details"]["causes"][0]["field"]) == (422, "data.key")


async def test_status_and_spec_are_written_apart(api: Any) -> None:
    await api.create(SETS, {**stateful_set(), "status": {"replicas": 7}})
    assert (await api.get(f"{SETS}/web"))["status"]["replicas"] == 0
    changed = await api.patch(f"{SETS}/web/status", {"status": {"replicas": 2}, "spec": {"replicas": 9}})
    assert (changed["status"]["replicas"], changed["spec"]["replicas"]) == (2, 1)
    changed = await api.patch(f"{SETS}/web", {"status": {"replicas": 3}, "spec": {"replicas": 4}})
    assert (changed["status"]["replicas"], changed["spec"]["replicas"]) == (2, 4)


async def test_the_generation_counts_changes_of_the_spec_only(api: Any) -> None:
    assert (await api.create(SETS, stateful_set()))["metadata"]["generation"] == 1
    changed = await api.patch(f"{SETS}/web", {"metadata": {"labels": {"x": "y"}}})
    assert changed["metadata"]["generation"] == 1
    assert (await api.patch(f"{SETS}/web/status", {"status": {"replicas": 1}}))["metadata"]["generation"] == 1
    assert (await api.patch(f"{SETS}/web", {"spec": {"replicas": 2}}))["metadata"]["generation"] == 2


async def test_identity_cannot_be_rewritten(api: Any, config_map: Any) -> None:
    first = await api.create(CONFIG_MAPS, config_map)
    forged = {**first, "metadata": {**first["metadata"], "creationTimestamp": "2001-01-01T00:00:00Z"}}
    status, updated = await api.call("PUT", f"{CONFIG_MAPS}/c", forged)
    assert status == 200
    assert updated["metadata"]["creationTimestamp"] == first["metadata"]["creationTimestamp"]
    forged["metadata"] = {**first["metadata"], "uid": "another"}
    assert (await api.call("PUT", f"{CONFIG_MAPS}/c", forged))[0] == 409


async def test_a_body_for_another_name_namespace_or_kind_is_refused(api: Any, config_map: Any) -> None:
    await api.create(CONFIG_MAPS, config_map)
    for wrong in (
        {**config_map, "metadata": {"name": "other"}},
        {**config_map, "metadata": {"name": "c", "namespace": "other"}},
        {**config_map, "kind": "Secret"},
        {**config_map, "apiVersion": "v2"},
    ):
        assert (await api.call("PUT", f"{CONFIG_MAPS}/c", wrong))[0] == 400


async def test_an_invalid_name_is_explained(api: Any, config_map: Any) -> None:
    config_map["metadata"]["name"] = "Not_A_Name"
    status, body = await api.call("POST", CONFIG_MAPS, config_map)
    assert (status, body["reason"]) == (422, "Invalid")
    assert body["message"].startswith('ConfigMap "Not_A_Name" is invalid: metadata.name: Invalid value: "Not_A_Name"')


async def test_all_faults_of_an_object_are_reported_together(api: Any) -> None:
    broken = stateful_set(replicas=-1)
    broken["spec"]["template"]["spec"]["containers"][0]["name"] = "Not_A_Name"
    broken["spec"]["selector"] = {"matchLabels": {"app": "another"}}
    status, body = await api.call("POST", SETS, broken)
    fields = {cause["field"] for cause in body["details"]["causes"]}
    assert status == 422
    assert fields >= {"spec.replicas", "spec.template.metadata.labels"}
    assert "spec.template.spec.containers[0].name" in fields


async def test_a_wrong_type_is_named_with_its_field(api: Any) -> None:
    broken = stateful_set()
    broken["spec"]["template"]["spec"]["containers"][0]["ports"] = [{"containerPort": "http"}]
    status, body = await api.call("POST", SETS, broken)
    assert status == 422
    assert body["details"]["causes"][0]["field"] == "spec.template.spec.containers[0].ports[0].containerPort"
    assert "must be of type integer" in body["message"]


async def test_unknown_fields_are_pruned_with_a_warning_or_refused(api: Any) -> None:
    broken = stateful_set()
    broken["spec"]["replica"] = 3
    status, body = await api.call("POST", SETS, broken, fieldValidation="Strict")
    assert (status, 'unknown field "spec.replica"' in body["message"]) == (400, True)
    headers = {"Content-Type": "application/json"}
    async with api.session.post(SETS, json=broken, headers=headers) as response:
        assert response.headers["Warning"] == '299 - "unknown field \\"spec.replica\\""'
        assert "replica" not in (await response.json())["spec"]


async def test_immutable_fields_of_a_stateful_set_stay(api: Any) -> None:
    await api.create(SETS, stateful_set())
    status, body = await api.call("PATCH", f"{SETS}/web", {"spec": {"serviceName": "other"}}, MERGE)
    assert (status, body["details"]["causes"][0]["reason"]) == (422, "FieldValueForbidden")
    assert "updates to statefulset spec for fields other than" in body["message"]


async def test_a_json_patch_whose_test_fails_changes_nothing(api: Any, config_map: Any) -> None:
    created = await api.create(CONFIG_MAPS, config_map)
    operations = [
        {"op": "replace", "path": "/data/a", "value": "2"},
        {"op": "test", "path": "/data/a", "value": "1"},
    ]
    assert (await api.call("PATCH", f"{CONFIG_MAPS}/c", operations, JSON_PATCH))[0] == 422
    assert await api.get(f"{CONFIG_MAPS}/c") == created
    operations.reverse()
    assert (await api.patch(f"{CONFIG_MAPS}/c", operations, JSON_PATCH))["data"] == {"a": "2"}


async def test_a_strategic_patch_merges_containers_by_name(api: Any) -> None:
    await api.create(SETS, stateful_set())
    containers = [{"name": "c", "env": [{"name": "A", "value": "1"}]}, {"name": "side", "image": "s:1"}]
    patch = {"spec": {"template": {"spec": {"containers": containers}}}}
    changed = await api.patch(f"{SETS}/web", patch, STRATEGIC)
    found = {entry["name"]: entry for entry in changed["spec"]["template"]["spec"]["containers"]}
    assert (found["c"]["image"], found["c"]["env"]) == ("i:1", [{"name": "A", "value": "1"}])
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "side", "$patch": "delete"}]}}}}
    changed = await api.patch(f"{SETS}/web", patch, STRATEGIC)
    assert [entry["name"] for entry in changed["spec"]["template"]["spec"]["containers"]] == ["c"]


async def test_defaults_are_those_of_the_real_server(api: Any) -> None:
    spec = (await api.create(SETS, stateful_set()))["spec"]
    assert (spec["replicas"], spec["podManagementPolicy"]) == (1, "OrderedReady")
    assert spec["updateStrategy"] == {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] == 30
    assert spec["template"]["spec"]["containers"][0]["imagePullPolicy"] == "IfNotPresent"


async def test_lists_select_by_label_and_field(api: Any, config_map: Any) -> None:
    for name, labels in (("a", {"app": "x", "tier": "1"}), ("b", {"app": "x"}), ("c", {"app": "y"})):
        await api.create(CONFIG_MAPS, {**config_map, "metadata": {"name": name, "labels": labels}})

    async def names(**query: str) -> list[str]:
        return [item["metadata"]["name"] for item in (await api.get(CONFIG_MAPS, **query))["items"]]

    assert await names(labelSelector="app=x") == ["a", "b"]
    assert await names(labelSelector="app=x,!tier") == ["b"]
    assert await names(labelSelector="app in (y, z)") == ["c"]
    assert await names(labelSelector="app notin (x),app") == ["c"]
    assert await names(fieldSelector="metadata.name=b") == ["b"]
    assert (await api.call("GET", CONFIG_MAPS, fieldSelector="data.a=1"))[0] == 400
    assert (await api.call("GET", CONFIG_MAPS, labelSelector="app=(x"))[0] == 400


async def test_a_finalizer_holds_a_deleted_object(api: Any, config_map: Any) -> None:
    config_map["metadata"]["finalizers"] = ["example.com/hold"]
    await api.create(CONFIG_MAPS, config_map)
    status, body = await api.call("DELETE", f"{CONFIG_MAPS}/c")
    assert (status, bool(body["metadata"]["deletionTimestamp"])) == (200, True)
    assert (await api.get(f"{CONFIG_MAPS}/c"))["metadata"]["deletionTimestamp"]
    await api.patch(f"{CONFIG_MAPS}/c", {"metadata": {"finalizers": None}})
    assert (await api.call("GET", f"{CONFIG_MAPS}/c"))[0] == 404


async def test_a_delete_with_another_uid_is_refused(api: Any, config_map: Any) -> None:
    created = await api.create(CONFIG_MAPS, config_map)
    status, _ = await api.call("DELETE", f"{CONFIG_MAPS}/c", {"preconditions": {"uid": "another"}})
    assert status == 409
    options = {"preconditions": {"uid": created["metadata"]["uid"]}}
    assert (await api.call("DELETE", f"{CONFIG_MAPS}/c", options))[0] == 200


async def test_a_running_pod_waits_for_its_kubelet(api: Any) -> None:
    await api.create(PODS, pod(nodeName="n", terminationGracePeriodSeconds=7))
    _, deleted = await api.call("DELETE", f"{PODS}/p")
    assert deleted["metadata"]["deletionGracePeriodSeconds"] == 7
    _, again = await api.call("DELETE", f"{PODS}/p", {"gracePeriodSeconds": 60})
    assert again["metadata"]["deletionTimestamp"] == deleted["metadata"]["deletionTimestamp"]
    await api.call("DELETE", f"{PODS}/p", {"gracePeriodSeconds": 0})
    assert (await api.call("GET", f"{PODS}/p"))[0] == 404


async def test_a_pod_without_a_node_goes_at_once(api: Any) -> None:
    await api.create(PODS, pod())
    await api.call("DELETE", f"{PODS}/p")
    assert (await api.call("GET", f"{PODS}/p"))[0] == 404


async def test_a_binding_gives_a_pod_its_node_once(api: Any) -> None:
    await api.create(PODS, pod())
    binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"name": "n1"}}
    assert (await api.call("POST", f"{PODS}/p/binding", binding))[0] == 201
    assert (await api.get(f"{PODS}/p"))["spec"]["nodeName"] == "n1"
    assert (await api.call("POST", f"{PODS}/p/binding", binding))[0] == 409


async def test_scale_reads_and_writes_replicas(api: Any) -> None:
    await api.create(SETS, stateful_set())
    scale = await api.get(f"{SETS}/web/scale")
    assert (scale["spec"], scale["status"]["selector"]) == ({"replicas": 1}, "app=web")
    scale["spec"]["replicas"] = 3
    assert (await api.call("PUT", f"{SETS}/web/scale", scale))[1]["spec"]["replicas"] == 3
    assert (await api.get(f"{SETS}/web"))["spec"]["replicas"] == 3


async def test_deleting_a_collection_takes_what_is_selected(api: Any, config_map: Any) -> None:
    for name in ("a", "b"):
        await api.create(CONFIG_MAPS, {**config_map, "metadata": {"name": name, "labels": {"app": name}}})
    assert (await api.call("DELETE", CONFIG_MAPS, labelSelector="app=a"))[0] == 200
    names = [item["metadata"]["name"] for item in (await api.get(CONFIG_MAPS))["items"]]
    assert "a" not in names
    assert "b" in names


async def test_events_are_the_same_in_both_groups(api: Any) -> None:
    event = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": "e"},
        "eventTime": "2026-01-02T03:04:05.000006Z",
        "regarding": {"kind": "Pod", "name": "p", "namespace": "default"},
        "note": "it happened",
        "reason": "Happened",
        "type": "Normal",
        "action": "Happen",
        "reportingController": "tests",
        "reportingInstance": "tests-1",
    }
    await api.create("/apis/events.k8s.io/v1/namespaces/default/events", event)
    query = {"fieldSelector": "involvedObject.name=p,reason=Happened"}
    found = (await api.get("/api/v1/namespaces/default/events", **query))["items"][0]
    assert (found["apiVersion"], found["message"], found["involvedObject"]["kind"]) == ("v1", "it happened", "Pod")


async def test_malformed_bodies_and_unknown_paths_are_refused(api: Any) -> None:
    headers = {"Content-Type": "application/json"}
    for data in (b"{", b"[]", b"", b"null"):
        async with api.session.post(CONFIG_MAPS, data=data, headers=headers) as response:
            assert response.status == 400, data
    async with api.session.post(CONFIG_MAPS, data=b"x", headers={"Content-Type": "application/cbor"}) as response:
        assert response.status == 415
    async with api.session.get(CONFIG_MAPS, headers={"Accept": "application/vnd.kubernetes.protobuf"}) as response:
        assert response.status == 406
    assert (await api.call("GET", "/apis/none.example/v1/things"))[0] == 404
    assert (await api.call("POST", f"{CONFIG_MAPS}/c", {}))[0] == 405


async def test_a_table_has_the_columns_people_know(api: Any) -> None:
    await api.create(PODS, pod(nodeName="n1"))
    headers = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}
    async with api.session.get(PODS, headers=headers) as response:
        table = await response.json()
    titles = [column["name"] for column in table["columnDefinitions"] if not column["priority"]]
    assert titles == ["Name", "Ready", "Status", "Restarts", "Age"]
    assert table["rows"][0]["cells"][:4] == ["p", "0/1", "Pending", "0"]


async def test_what_the_stand_in_has_not_is_said_to_be_missing_here(api: Any) -> None:
    await api.create(PODS, pod())
    for subresource in ("exec", "portforward"):
        status, body = await api.call("GET", f"{PODS}/p/{subresource}")
        assert status == 501
        assert f"the stand-in cluster has no `{subresource}`" in body["message"]
