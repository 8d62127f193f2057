"""The Tenant chart's schema of values is the CRD's: Helm itself tells a mistyped field, before anything is sent.

Without it a typo would only be a warning of the API server among Helm's output, and the field be dropped: Helm asks
the API server to warn of unknown fields, not to refuse them.  `HOLDFAST_WRITE_GOLDEN=1` writes the schema anew.
Not in it: the CEL rules, which the API server checks.
"""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[3]
CHART = ROOT / "charts" / "holdfast-tenant"
SCHEMA_PATH = CHART / "values.schema.json"
CRD = yaml.load((ROOT / "crds" / "tenant.yaml").read_text(), Loader=yaml.CSafeLoader)
SPEC = CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
DROPPED = ("format", "description", "default")


def as_json_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """A structural schema as JSON Schema in which unknown fields are errors."""
    found = {key: value for key, value in schema.items() if key not in DROPPED and not key.startswith("x-kubernetes-")}
    if "properties" in schema:
        found["properties"] = {name: as_json_schema(child) for name, child in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            found["additionalProperties"] = False
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            found[key] = as_json_schema(schema[key])
    if isinstance(found.get("pattern"), str):
        # Helm's expressions know no possessive or look-around forms, and none are used here.
        assert "(?" not in found["pattern"]
    return found


def wanted_schema() -> dict[str, Any]:
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "additionalProperties": False,
        "required": ["spec"],
        "properties": {
            "global": {"type": "object"},
            "name": {"type": "string", "maxLength": 55, "pattern": "^([a-z]([-a-z0-9]*[a-z0-9])?)?$"},
            "spec": as_json_schema(SPEC),
        },
    }


def test_the_chart_knows_the_fields_of_the_crd() -> None:
    text = json.dumps(wanted_schema(), indent=1) + "\n"
    if os.environ.get("HOLDFAST_WRITE_GOLDEN"):
        SCHEMA_PATH.write_text(text)
    assert SCHEMA_PATH.read_text() == text, "run this test with HOLDFAST_WRITE_GOLDEN=1 after a change of the CRD"


TYPOS: list[tuple[tuple[str | int, ...], str]] = [
    (("spec", "bucket"), "bucket"),
    (("spec", "pools", 0, "replicas"), "replicas"),
    (("spec", "pools", 0, "volumeClaimTemplate", "spec", "storageClass"), "storageClass"),
    (("spec", "users", 0, "secret"), "secret"),
    (("spec", "tls", "secretName"), "secretName"),
]


@pytest.mark.parametrize(("path", "field"), TYPOS, ids=[field for _, field in TYPOS])
def test_a_typo_is_refused(path: tuple[str | int, ...], field: str) -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    values["spec"] |= {"users": [{"name": "a"}], "tls": {}}
    jsonschema.validate(values, wanted_schema())
    wrong = copy.deepcopy(values)
    place: Any = wrong
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = "x"
    with pytest.raises(jsonschema.ValidationError, match=field):
        jsonschema.validate(wrong, wanted_schema())


def test_what_is_passed_on_as_it_stands_is_not_judged() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    values["spec"]["pools"][0]["affinity"] = {"podAffinity": {"anything": []}}
    values["spec"]["pools"][0]["env"] = [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "x"}}}]
    jsonschema.validate(values, wanted_schema())
