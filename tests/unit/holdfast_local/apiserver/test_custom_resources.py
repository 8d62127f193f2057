"""CustomResourceDefinitions: serving, schemas, defaults, CEL rules, versions, columns, and their end."""

from __future__ import annotations

import copy
from typing import Any

import pytest

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
BOATS = "/apis/example.com/v1/namespaces/default/boats"

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["spec"],
    "properties": {
        "spec": {
            "type": "object",
            "required": ["sails"],
            "x-kubernetes-validations": [
                {"rule": "self.sails <= self.masts * 3", "message": "too many sails for the masts"},
            ],
            "properties": {
                "sails": {"type": "integer", "minimum": 1},
                "masts": {
                    "type": "integer",
                    "default": 2,
                    "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "masts cannot be changed"}],
                },
                "size": {"type": "string", "default": "small", "enum": ["small", "big"]},
                "port": {"x-kubernetes-int-or-string": True},
                "flag": {"type": "string", "pattern": "^[a-z]+$", "nullable": True},
                "holds": {
                    "type": "array",
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["name"],
                    "items": {
                        "type": "object",
                        "required": ["name"],
                        "properties": {
                            "name": {"type": "string"},
                            "tons": {
                                "type": "integer",
                                "default": 1,
                                "x-kubernetes-validations": [{"rule": "self >= oldSelf", "message": "holds only grow"}],
                            },
                        },
                    },
                },
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            },
        },
        "status": {
            "type": "object",
            "properties": {"afloat": {"type": "boolean"}, "knots": {"type": "integer", "minimum": 0}},
        },
    },
}


@pytest.fixture
async def boats(api: Any) -> Any:
    """The API, serving boats."""
    await api.create(CRDS, definition())
    return api


def definition(schema: dict[str, Any] | None = None) -> dict[str, Any]:
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema or copy.deepcopy(SCHEMA)},
        "subresources": {"status": {}},
        "additionalPrinterColumns": [
            {"name": "Sails", "type": "integer", "jsonPath": ".spec.sails"},
            {"name": "Afloat", "type": "boolean", "jsonPath": ".status.afloat"},
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        ],
    }
    names = {"plural": "boats", "kind": "Boat", "shortNames": ["bo"]}
    spec = {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "boats.example.com"},
        "spec": spec,
    }


def boat(name: str = "b", **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "example.com/v1", "kind": "Boat", "metadata": {"name": name}, "spec": {"sails": 3, **spec}}


async def refusal(api: Any, body: dict[str, Any]) -> tuple[int, set[str], str]:
    status, answer = await api.call("POST", BOATS, body)
    causes = (answer.get("details") or {}).get("causes") or ()
    return status, {cause["field"] for cause in causes}, answer.get("message", "")


async def test_a_definition_is_established_and_discovered(api: Any) -> None:
    assert (await api.call("GET", BOATS))[0] == 404
    created = await api.create(CRDS, definition())
    conditions = {entry["type"]: entry["status"] for entry in created["status"]["conditions"]}
    assert conditions == {"NamesAccepted": "True", "Established": "True"}
    assert (await api.get(BOATS))["kind"] == "BoatList"
    entry = (await api.get("/apis/example.com/v1"))["resources"][0]
    assert (entry["name"], entry["shortNames"], entry["namespaced"]) == ("boats", ["bo"], True)
    document = await api.get("/openapi/v3/apis/example.com/v1")
    assert "com.example.v1.Boat" in document["components"]["schemas"]


async def test_defaults_are_filled_in_and_unknown_fields_pruned(boats: Any) -> None:
    created = await boats.create(BOATS, boat(unknown=1, free={"any": {"thing": 1}}, holds=[{"name": "a", "x": 1}]))
    assert created["spec"] == {
        "sails": 3,
        "masts": 2,
        "size": "small",
        "free": {"any": {"thing": 1}},
        "holds": [{"name": "a", "tons": 1}],
    }


@pytest.mark.parametrize(
    ("spec", "field", "words"),
    [
        ({"sails": 0}, "spec.sails", "should be greater than or equal to 1"),
        ({"sails": "three"}, "spec.sails", "must be of type integer"),
        ({"sails": None}, "spec.sails", "Required value"),
        ({"size": "huge"}, "spec.size", 'supported values: "small", "big"'),
        ({"flag": "UPPER"}, "spec.flag", "should match '^[a-z]+$'"),
        ({"port": []}, "spec.port", "must be of type integer or string"),
        ({"sails": 9}, "spec", "too many sails for the masts"),
        ({"holds": [{"tons": 1}]}, "spec.holds[0].name", "Required value"),
        ({"holds": [{"name": "a"}, {"name": "a"}]}, "spec.holds[1]", "Duplicate value"),
    ],
)
async def test_a_fault_is_named_with_its_field(boats: Any, spec: dict[str, Any], field: str, words: str) -> None:
    status, fields, message = await refusal(boats, boat(**spec))
    assert status == 422
    assert field in fields
    assert words in message
    assert message.startswith('Boat.example.com "b" is invalid: ')
    assert (await boats.get(BOATS))["items"] == []


async def test_nullable_and_int_or_string_fields_take_both(boats: Any) -> None:
    await boats.create(BOATS, boat("one", flag=None, port=80))
    await boats.create(BOATS, boat("two", flag="red", port="http"))


async def test_transition_rules_hold_on_updates_only(boats: Any) -> None:
    await boats.create(BOATS, boat(masts=4, holds=[{"name": "a", "tons": 5}]))
    status, body = await boats.call("PATCH", f"{BOATS}/b", {"spec": {"masts": 5}}, "application/merge-patch+json")
    assert (status, body["details"]["causes"][0]["field"]) == (422, "spec.masts")
    assert "masts cannot be changed" in body["message"]
    patch = {"spec": {"holds": [{"name": "new", "tons": 1}, {"name": "a", "tons": 4}]}}
    status, body = await boats.call("PATCH", f"{BOATS}/b", patch, "application/merge-patch+json")
    assert (status, body["details"]["causes"][0]["field"]) == (422, "spec.holds[1].tons")
    patch["spec"]["holds"][1]["tons"] = 6
    await boats.patch(f"{BOATS}/b", patch)


async def test_status_of_a_custom_object_is_validated_and_apart(boats: Any) -> None:
    await boats.create(BOATS, {**boat(), "status": {"afloat": True}})
    assert "status" not in await boats.get(f"{BOATS}/b")
    patch = {"status": {"afloat": True, "knots": 3, "unknown": 1}, "spec": {"sails": 1}}
    changed = await boats.patch(f"{BOATS}/b/status", patch)
    assert (changed["status"], changed["spec"]["sails"]) == ({"afloat": True, "knots": 3}, 3)
    assert changed["metadata"]["generation"] == 1
    merge = "application/merge-patch+json"
    status, body = await boats.call("PATCH", f"{BOATS}/b/status", {"status": {"knots": -1}}, merge)
    assert (status, body["details"]["causes"][0]["field"]) == (422, "status.knots")


async def test_a_strategic_patch_of_a_custom_object_is_not_supported(boats: Any) -> None:
    await boats.create(BOATS, boat())
    strategic = "application/strategic-merge-patch+json"
    assert (await boats.call("PATCH", f"{BOATS}/b", {"spec": {}}, strategic))[0] == 415


async def test_printer_columns_are_those_of_the_definition(boats: Any) -> None:
    await boats.create(BOATS, boat())
    headers = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    async with boats.session.get(BOATS, headers=headers) as response:
        table = await response.json()
    assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Sails", "Afloat", "Age"]
    assert table["rows"][0]["cells"][:3] == ["b", 3, None]


async def test_a_changed_definition_takes_effect_at_once(boats: Any) -> None:
    changed = definition()
    changed["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["sails"][
        "maximum"
    ] = 4
    status, _ = await boats.call("PUT", f"{CRDS}/boats.example.com", changed)
    assert status == 200
    assert (await refusal(boats, boat(sails=5)))[0] == 422


async def test_deleting_a_definition_deletes_its_objects_and_the_kind(boats: Any) -> None:
    await boats.create(BOATS, boat())
    await boats.call("DELETE", f"{CRDS}/boats.example.com")
    await boats.gone(f"{CRDS}/boats.example.com")
    assert (await boats.call("GET", BOATS))[0] == 404
    await boats.create(CRDS, definition())
    assert (await boats.get(BOATS))["items"] == []


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "object", "properties": {"spec": {}}}, "must not be empty for specified object fields"),
        ({"type": "object", "properties": {"a": {"type": "array"}}}, "must be specified"),
        (
            {"type": "object", "x-kubernetes-validations": [{"rule": "self.a ==", "message": "m"}]},
            "compilation failed",
        ),
    ],
)
async def test_a_definition_that_is_not_structural_is_refused(api: Any, schema: dict[str, Any], words: str) -> None:
    status, body = await api.call("POST", CRDS, definition(schema))
    assert (status, words in body["message"]) == (422, True), body["message"]
    assert (await api.call("GET", BOATS))[0] == 404


async def test_a_definition_must_be_named_after_its_kind(api: Any) -> None:
    wrong = definition()
    wrong["metadata"]["name"] = "ships.example.com"
    status, body = await api.call("POST", CRDS, wrong)
    assert (status, body["details"]["causes"][0]["field"]) == (422, "metadata.name")
