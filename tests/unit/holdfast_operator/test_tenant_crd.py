"""The CRD, the charts and the examples agree with the code."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any, get_args

import jsonschema
import kubernetes_validate
import pytest
import yaml

from holdfast_local.apiserver.http.json_path import find
from holdfast_operator.kube.cache import SCOPES
from holdfast_operator.kube.port import CLAIM, EVENT, KINDS, LEASE
from holdfast_operator.tenant import limits
from holdfast_operator.tenant.parse import parse_tenant
from holdfast_server.contract.buckets import EtagForm
from holdfast_server.contract.config import ObjectOwnership

ROOT = Path(__file__).parents[3]
CRD = yaml.load((ROOT / "crds" / "tenant.yaml").read_text(), Loader=yaml.CSafeLoader)
SCHEMA = CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
SPEC = SCHEMA["properties"]["spec"]["properties"]
POOL = SPEC["pools"]["items"]["properties"]
CHART = ROOT / "charts" / "holdfast-operator"
EXAMPLES = sorted((ROOT / "examples").rglob("*.yaml"))

READERS = (
    "text",
    "choice",
    "integer",
    "required_integer",
    "integers",
    "flag",
    "child",
    "items",
    "texts",
    "mapping",
    "text_mapping",
    "mappings",
    "has",
)


FIRST_DEFAULTS = {
    ".allowDisruption", ".audit.stdout", ".buckets[].deletionPolicy", ".claimRetention", ".keyOverlapSeconds",
    ".metrics.serviceMonitor.intervalSeconds", ".podDisruptionBudget.enabled", ".pools[].spreadOverNodes",
    ".pools[].volumeClaimTemplate.spec.accessModes", ".region", ".securityContext.assignedByCluster", ".service.type",
    ".tls.issuerRef.group", ".tls.issuerRef.kind", ".tls.mode", ".tls.plaintext", ".users[].buckets[].access",
}  # fmt: skip
"""Those that the first Tenant API has."""
FIRST_OBJECTS = {
    "", ".audit", ".buckets[]", ".buckets[].cors[]", ".metrics", ".metrics.serviceMonitor", ".podDisruptionBudget",
    ".policies[]", ".pools[]", ".pools[].erasure", ".pools[].volumeClaimTemplate.spec", ".securityContext", ".service",
    ".tls", ".tls.issuerRef", ".users[]", ".users[].buckets[]",
}  # fmt: skip


def tenants_in(path: Path) -> list[dict[str, Any]]:
    documents = [document for document in yaml.safe_load_all(path.read_text()) if document]
    return [document for document in documents if document.get("kind") == "Tenant"]


def every_schema(schema: dict[str, Any], path: str = "") -> list[tuple[str, dict[str, Any]]]:
    found = [(path, schema)]
    for name, child in (schema.get("properties") or {}).items():
        found += every_schema(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            found += every_schema(schema[key], f"{path}[]")
    return found


def test_no_later_default_goes_into_tenants_that_are_there() -> None:
    """The API server puts it into every Tenant as soon as the Tenant API is upgraded, and the former operator, which
    works until it is upgraded too, refuses them all for a field that it does not know."""
    spec = SCHEMA["properties"]["spec"]
    found = {path for path, schema in every_schema(spec) if "default" in schema}
    assert found >= FIRST_DEFAULTS, "one that is taken away changes what is there"
    later = {path for path in found - FIRST_DEFAULTS if path.rpartition(".")[0] in FIRST_OBJECTS}
    assert later == set(), "let the operator's parser know what an absent field means"


def test_the_crd_is_valid_for_kubernetes() -> None:
    kubernetes_validate.validate(CRD, "1.37", strict=True)


def test_the_schema_is_structural_and_bounded() -> None:
    for path, schema in every_schema(SCHEMA["properties"]["spec"], "spec"):
        assert "type" in schema, path
        open_ended = schema.get("x-kubernetes-preserve-unknown-fields")
        if schema["type"] == "array":
            assert "maxItems" in schema, path
        if schema["type"] == "string":
            assert "maxLength" in schema or "enum" in schema, path
        if schema["type"] == "object" and not open_ended:
            assert "properties" in schema or "additionalProperties" in schema, path


def test_the_bounds_are_those_of_the_code() -> None:
    assert SPEC["pools"]["maxItems"] == limits.MAX_POOLS
    assert POOL["servers"]["maximum"] == limits.MAX_SERVERS
    assert POOL["volumesPerServer"]["maximum"] == limits.MAX_VOLUMES_PER_SERVER
    assert POOL["env"]["maxItems"] == limits.MAX_ENV
    assert POOL["tolerations"]["maxItems"] == limits.MAX_TOLERATIONS
    assert SPEC["buckets"]["maxItems"] == limits.MAX_BUCKETS
    assert SPEC["users"]["maxItems"] == limits.MAX_USERS
    assert SPEC["policies"]["maxItems"] == limits.MAX_POLICIES
    assert SPEC["domains"]["maxItems"] == limits.MAX_DOMAINS
    assert SPEC["imagePullSecrets"]["maxItems"] == limits.MAX_PULL_SECRETS
    assert SPEC["ingress"]["properties"]["hosts"]["maxItems"] == limits.MAX_INGRESS_HOSTS
    clients = SPEC["networkPolicy"]["properties"]["clients"]
    assert clients["maxItems"] == limits.MAX_NETWORK_CLIENTS
    ranges = SPEC["service"]["properties"]["loadBalancerSourceRanges"]
    excluded = clients["items"]["properties"]["ipBlock"]["properties"]["except"]
    assert {ranges["maxItems"], excluded["maxItems"]} == {limits.MAX_NETWORKS}
    identity = SPEC["securityContext"]["properties"]
    assert identity["runAsUser"]["maximum"] == limits.MAX_ID
    assert identity["supplementalGroups"]["maxItems"] == limits.MAX_GROUPS
    ownership = SPEC["buckets"]["items"]["properties"]["objectOwnership"]
    assert ownership["enum"] == SPEC["objectOwnership"]["enum"] == list(get_args(ObjectOwnership))
    assert SPEC["buckets"]["items"]["properties"]["etag"]["enum"] == list(get_args(EtagForm))
    user = SPEC["users"]["items"]["properties"]
    assert user["policies"]["maxItems"] == limits.MAX_USER_POLICIES
    assert user["account"]["maxLength"] == limits.MAX_ACCOUNT_NAME_SIZE
    for schema, pattern in (
        (POOL["name"], limits.DNS_LABEL),
        (SPEC["buckets"]["items"]["properties"]["name"], limits.BUCKET_NAME),
        (user["name"], limits.USER_NAME),
        (user["account"], limits.ACCOUNT_NAME),
        (user["buckets"]["items"]["properties"]["name"], limits.BUCKET_NAME),
        (SPEC["policies"]["items"]["properties"]["name"], limits.POLICY_NAME),
        (SPEC["region"], limits.REGION),
        (SPEC["domains"]["items"], limits.DOMAIN),
        (SPEC["ingress"]["properties"]["hosts"]["items"], limits.INGRESS_HOST),
        (ranges["items"], limits.NETWORK),
    ):
        assert schema["pattern"] == f"^{pattern}$"


def test_the_crd_and_the_parser_know_the_same_fields() -> None:
    """A field only in the schema would be accepted and ignored; one only in the parser could not be set."""
    folder = ROOT / "operator" / "holdfast_operator" / "tenant"
    read = {
        call.args[0].value
        for path in folder.glob("parse*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr in READERS
        and call.args
        and isinstance(call.args[0], ast.Constant)
    }
    declared = {
        path.rpartition(".")[2].removesuffix("[]")
        for path, _ in every_schema(SCHEMA["properties"]["spec"], "spec")
        if "." in path
    }
    assert declared == read


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_example_is_accepted(path: Path) -> None:
    tenants = tenants_in(path)
    for tenant in tenants:
        jsonschema.validate(tenant, SCHEMA)
        tenant["metadata"]["uid"] = "u"
        assert parse_tenant(tenant).faults == ()
    assert tenants or path.name.startswith(("values", "alerts", "deployment")) or path.parent.name == "monitoring"


async def test_the_columns_of_a_tenant_at_rest_all_say_something(world: Any) -> None:
    await world.start()
    tenant = {"status": world.kube.tenant_status()}
    columns = {column["name"]: column for column in CRD["spec"]["versions"][0]["additionalPrinterColumns"]}
    shown = {name: find(tenant, column["jsonPath"]) for name, column in columns.items() if name != "Age"}
    assert all(shown.values())
    assert (shown["Ready"], shown["Reason"], shown["Progress"]) == ("True", "Serving", "Settled")
    assert {name for name, column in columns.items() if column.get("priority")} == {"Reason", "Progress", "Endpoint"}


def test_the_chart_carries_the_same_crd() -> None:
    assert (CHART / "files" / "tenant.yaml").read_text() == (ROOT / "crds" / "tenant.yaml").read_text()


def test_helm_asks_for_a_kubernetes_that_understands_the_crd() -> None:
    """An older one refuses the CRD with `undeclared reference to 'isQuantity'`, which tells nobody what is wanted."""
    since = {"isQuantity(": 29, "fieldPath:": 28, "x-kubernetes-validations:": 25}
    text = (ROOT / "crds" / "tenant.yaml").read_text()
    needed = max(minor for words, minor in since.items() if words in text)
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["kubeVersion"] == f">=1.{needed}.0-0"
    assert f"Kubernetes 1.{needed} or newer" in (ROOT / "README.md").read_text()


def test_the_rules_cover_what_the_operator_does_and_no_wildcard() -> None:
    rules = yaml.safe_load((CHART / "files" / "rules.yaml").read_text())
    granted = {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert not any("*" in part for grant in granted for part in grant)
    assert {verb for group, resource, verb in granted if resource == "events"} == {"create", "patch"}
    claims = {verb for group, resource, verb in granted if resource == "persistentvolumeclaims"}
    assert claims == {"list", "watch", "patch"}
    assert not any(resource == "leases" for _, resource, _ in granted), "in its own namespace only"
    for scope in SCOPES:
        group = scope.kind.api_version.rpartition("/")[0]
        assert {(group, scope.kind.plural, "list"), (group, scope.kind.plural, "watch")} <= granted
    for kind in KINDS.values():
        if kind in (EVENT, CLAIM, LEASE):
            continue
        group = kind.api_version.rpartition("/")[0]
        assert {(group, kind.plural, "get"), (group, kind.plural, "list")} <= granted
        if kind.plural not in ("tenants", "pods"):
            assert {(group, kind.plural, "create"), (group, kind.plural, "patch")} <= granted
    assert ("holdfast.dev", "tenants/status", "patch") in granted
    assert ("", "pods/eviction", "create") in granted
    assert ("holdfast.dev", "tenants", "patch") not in granted


@pytest.mark.parametrize("chart", ["holdfast-operator", "holdfast-tenant"])
def test_the_charts_default_values_follow_their_schema(chart: str) -> None:
    folder = ROOT / "charts" / chart
    schema = yaml.safe_load((folder / "values.schema.json").read_text())
    values = yaml.safe_load((folder / "values.yaml").read_text())
    jsonschema.validate(values, schema)
    assert set(values) <= set(schema["properties"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**values, "nonsense": 1}, schema)


def test_the_tenant_charts_values_make_a_valid_tenant() -> None:
    values = yaml.safe_load((ROOT / "charts" / "holdfast-tenant" / "values.yaml").read_text())
    body = {"metadata": {"name": "t", "namespace": "n", "uid": "u"}, "spec": values["spec"]}
    assert parse_tenant(body).faults == ()
