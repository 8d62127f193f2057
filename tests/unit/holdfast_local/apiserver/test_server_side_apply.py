"""Server-side apply: creation, ownership, conflicts, and removal of fields that are no longer wanted."""

from __future__ import annotations

from typing import Any

import pytest

MAP = "/api/v1/namespaces/default/configmaps/c"
SET = "/apis/apps/v1/namespaces/default/statefulsets/web"


def config_map(**data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data}


def stateful_set(containers: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "web"},
        "spec": {
            "serviceName": "web",
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": containers}},
        },
    }


async def test_apply_creates_and_then_changes(api: Any) -> None:
    status, created = await api.apply(MAP, config_map(a="1"))
    assert (status, created["data"]) == (201, {"a": "1"})
    entry = created["metadata"]["managedFields"][0]
    assert (entry["manager"], entry["operation"], entry["apiVersion"]) == ("owner", "Apply", "v1")
    assert entry["fieldsV1"] == {"f:data": {"f:a": {}}}
    status, changed = await api.apply(MAP, config_map(a="2"))
    assert (status, changed["data"]) == (200, {"a": "2"})


async def test_applying_the_same_again_changes_nothing(api: Any) -> None:
    _, first = await api.apply(MAP, config_map(a="1"))
    assert await api.apply(MAP, config_map(a="1")) == (200, first)


@pytest.mark.parametrize(
    ("live", "wanted", "merged"),
    [
        ("ab", "acb", "acb"),
        ("ab", "ba", "ba"),
        ("aXb", "cab", "caXb"),
        ("baX", "abc", "aXbc"),
        ("X", "a", "Xa"),
        ("aX", "ac", "aXc"),
        ("XaYb", "ba", "XYba"),
    ],
)
async def test_items_come_in_the_order_of_who_applies(api: Any, live: str, wanted: str, merged: str) -> None:
    """X and Y are somebody else's."""

    def containers(names: str) -> list[dict[str, Any]]:
        return [{"name": name.lower(), "image": "i"} for name in names]

    assert (await api.apply(SET, stateful_set(containers(live)), manager="else"))[0] == 201
    ours = [name for name in live if name.islower()]
    if ours:
        await api.apply(SET, stateful_set(containers("".join(ours))))
    _, changed = await api.apply(SET, stateful_set(containers(wanted)))
    told = changed["spec"]["template"]["spec"]["containers"]
    assert [container["name"] for container in told] == list(merged.lower())


async def test_a_field_that_is_no_longer_applied_is_removed(api: Any) -> None:
    await api.apply(MAP, config_map(a="1", b="2"))
    _, changed = await api.apply(MAP, config_map(a="1"))
    assert changed["data"] == {"a": "1"}


async def test_fields_of_others_stay(api: Any) -> None:
    await api.apply(MAP, config_map(a="1"))
    await api.patch(MAP, {"data": {"b": "2"}})
    _, changed = await api.apply(MAP, config_map())
    assert changed["data"] == {"b": "2"}


async def test_a_field_that_two_apply_stays_until_both_drop_it(api: Any) -> None:
    await api.apply(MAP, config_map(a="1"))
    assert (await api.apply(MAP, config_map(a="1"), manager="second"))[0] == 200
    _, changed = await api.apply(MAP, config_map())
    assert changed["data"] == {"a": "1"}
    _, changed = await api.apply(MAP, config_map(), manager="second")
    assert not changed.get("data")


async def test_another_managers_value_is_a_conflict_that_names_the_field(api: Any) -> None:
    await api.apply(MAP, config_map(a="1", b="2"))
    status, body = await api.apply(MAP, config_map(a="9"), manager="second")
    assert (status, body["reason"]) == (409, "Conflict")
    assert body["message"] == 'Apply failed with 1 conflict: conflict with "owner" using v1: .data.a'
    cause = body["details"]["causes"][0]
    assert (cause["reason"], cause["field"]) == ("FieldManagerConflict", ".data.a")
    assert (await api.get(MAP))["data"] == {"a": "1", "b": "2"}


async def test_force_takes_the_field_over(api: Any) -> None:
    await api.apply(MAP, config_map(a="1", b="2"))
    status, changed = await api.apply(MAP, config_map(a="9"), manager="second", force=True)
    assert (status, changed["data"]) == (200, {"a": "9", "b": "2"})
    _, changed = await api.apply(MAP, config_map(b="2"))
    assert changed["data"] == {"a": "9", "b": "2"}, "the first manager no longer owns a, so it cannot remove it"


async def test_an_ordinary_write_takes_ownership_too(api: Any) -> None:
    await api.apply(MAP, config_map(a="1"))
    await api.patch(MAP, {"data": {"a": "5"}})
    status, body = await api.apply(MAP, config_map(a="1"))
    assert status == 409
    assert '"tests" using v1: .data.a' in body["message"]


async def test_list_items_are_merged_and_removed_by_key(api: Any) -> None:
    main = {"name": "main", "image": "m:1", "ports": [{"containerPort": 80}, {"containerPort": 81}]}
    await api.apply(SET, stateful_set([main, {"name": "side", "image": "s:1"}]))
    extra = {"name": "injected", "image": "x:1"}
    strategic = "application/strategic-merge-patch+json"
    await api.patch(SET, {"spec": {"template": {"spec": {"containers": [extra]}}}}, strategic)
    main = {"name": "main", "image": "m:2", "ports": [{"containerPort": 81}]}
    status, changed = await api.apply(SET, stateful_set([main]))
    assert status == 200, changed
    found = {entry["name"]: entry for entry in changed["spec"]["template"]["spec"]["containers"]}
    assert set(found) == {"main", "injected"}
    assert (found["main"]["image"], [p["containerPort"] for p in found["main"]["ports"]]) == ("m:2", [81])


async def test_atomic_lists_are_replaced(api: Any) -> None:
    container = {"name": "c", "image": "i", "args": ["a", "b"]}
    await api.apply(SET, stateful_set([container]))
    _, changed = await api.apply(SET, stateful_set([{**container, "args": ["c"]}]))
    assert changed["spec"]["template"]["spec"]["containers"][0]["args"] == ["c"]


async def test_labels_and_owner_references_are_owned_one_by_one(api: Any) -> None:
    wanted = config_map()
    owner = await api.create("/api/v1/namespaces/default/configmaps", {"metadata": {"name": "o"}})
    uid = owner["metadata"]["uid"]
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": uid, "controller": True}
    wanted["metadata"] |= {"labels": {"mine": "1"}, "ownerReferences": [reference]}
    await api.apply(MAP, wanted, manager="owner")
    await api.patch(MAP, {"metadata": {"labels": {"theirs": "1"}}})
    wanted["metadata"]["labels"] = {"other": "1"}
    _, changed = await api.apply(MAP, wanted)
    assert changed["metadata"]["labels"] == {"theirs": "1", "other": "1"}
    assert changed["metadata"]["ownerReferences"] == [reference]


async def test_what_is_applied_may_be_yaml(api: Any) -> None:
    headers, query = {"Content-Type": "application/apply-patch+yaml"}, {"fieldManager": "owner"}
    for text, wanted in (
        ("{apiVersion: v1, kind: ConfigMap, metadata: {name: c}, data: {a: 'yes'}}", 201),
        ("# changed\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: c\ndata:\n  a: 'no'\n", 200),
        ("data: {a: [", 400),
    ):
        async with api.session.patch(MAP, data=text, headers=headers, params=query) as response:
            assert response.status == wanted, await response.text()
    assert (await api.get(MAP))["data"] == {"a": "no"}


async def test_a_manager_is_required_and_managed_fields_may_not_be_sent(api: Any) -> None:
    media_type = "application/apply-patch+yaml"
    status, body = await api.call("PATCH", MAP, config_map(a="1"), media_type)
    assert (status, "fieldManager" in body["message"]) == (422, True)
    forged = config_map(a="1")
    forged["metadata"]["managedFields"] = [{"manager": "x"}]
    assert (await api.apply(MAP, forged))[0] == 400


async def test_status_is_applied_apart_from_the_spec(api: Any) -> None:
    await api.apply(SET, stateful_set([{"name": "c", "image": "i"}]))
    wanted = {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "web"}, "status": {"replicas": 3}}
    status, changed = await api.apply(f"{SET}/status", wanted, manager="controller")
    assert (status, changed["status"]["replicas"]) == (200, 3)
    assert changed["spec"]["template"]["spec"]["containers"][0]["image"] == "i"
    entry = next(e for e in changed["metadata"]["managedFields"] if e["manager"] == "controller")
    assert (entry["subresource"], entry["fieldsV1"]) == ("status", {"f:status": {"f:replicas": {}}})


async def test_cleared_managed_fields_are_accepted(api: Any) -> None:
    await api.apply(MAP, config_map(a="1"))
    operations = [{"op": "replace", "path": "/metadata/managedFields", "value": [{}]}]
    await api.patch(MAP, operations, "application/json-patch+json")
    assert (await api.apply(MAP, config_map(a="2"), manager="second"))[0] == 200
