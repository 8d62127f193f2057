"""Pure parts: CEL, field sets, selectors, quantities, ages, JSON paths."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from holdfast_local.apiserver.http.columns import age
from holdfast_local.apiserver.http.json_path import find
from holdfast_local.apiserver.http.targets import parse_target
from holdfast_local.apiserver.kinds.quantities import parse_quantity
from holdfast_local.apiserver.ownership.fields import from_fields_v1, to_fields_v1
from holdfast_local.apiserver.patches.strategic import strategic_merge
from holdfast_local.apiserver.schema.cel import validate_rules
from holdfast_local.apiserver.selection import matches_label_selector


def faults(rule: str, value: Any, old: Any = None, **more: Any) -> list[str]:
    properties = {"f": {"x-kubernetes-validations": [{"rule": rule, **more}], **more.pop("schema", {})}}
    schema = {"type": "object", "properties": properties}
    before = None if old is None else {"f": old}
    return [cause.sentence() for cause in validate_rules({"f": value}, before, schema)]


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        ("self.size() > 1", "ab"),
        ("self.all(x, x.startsWith('a'))", ["a", "ab"]),
        ("!has(self.x) || self.x > 1", {}),
        ("quantity(self).isGreaterThan(quantity('1Gi'))", "2Gi"),
        ("self.split(',').size() == 2 && self.indexOf('b') == 2", "a,b"),
        ("self.matches('^[0-9]+$')", "123"),
        ("self.map(x, x.name).isSorted()", [{"name": "a"}, {"name": "b"}]),
    ],
)
def test_a_rule_that_holds_gives_no_fault(rule: str, value: Any) -> None:
    assert faults(rule, value) == []
    assert faults(f"!({rule})", value) != []


def test_a_fault_carries_message_or_rule() -> None:
    assert faults("self == 1", 2, message="one, please") == ["f: Invalid value: 2: one, please"]
    assert faults("self == 1", 2) == ["f: Invalid value: 2: failed rule: self == 1"]
    expression = {"messageExpression": "'not ' + string(self)"}
    assert faults("self == 1", 2, **expression) == ["f: Invalid value: 2: not 2"]
    assert faults("self == 1", 2, reason="FieldValueForbidden", message="m") == ["f: Forbidden: m"]


def test_a_rule_that_cannot_be_evaluated_is_a_fault() -> None:
    assert "rule evaluation error" in faults("self.absent == 1", {})[0]
    assert "rule evaluation error" in faults("url(self).getHost() == ''", "x")[0]


def test_old_self_exists_on_updates_only_unless_optional() -> None:
    assert faults("self >= oldSelf", 1) == []
    assert faults("self >= oldSelf", 1, 2) != []
    assert faults("!oldSelf.hasValue() || self >= oldSelf.value()", 1, optionalOldSelf=True) == []
    assert faults("!oldSelf.hasValue() || self >= oldSelf.value()", 1, 2, optionalOldSelf=True) != []


def test_a_value_that_an_update_leaves_alone_is_forgiven() -> None:
    assert faults("self == 1", 2, 2) == []
    assert faults("self == 1", 2, 3) != []


def test_field_sets_survive_the_wire() -> None:
    paths = {
        ("f:spec", "f:replicas"),
        ("f:spec", "f:list", 'k:{"name":"a"}'),
        ("f:spec", "f:list", 'k:{"name":"a"}', "f:name"),
        ("f:metadata", "f:finalizers", 'v:"x"'),
    }
    written = to_fields_v1(paths)
    assert written["f:spec"]["f:list"]['k:{"name":"a"}'] == {".": {}, "f:name": {}}
    assert from_fields_v1(written) == paths
    assert from_fields_v1({'k:{"b":1, "a":2}': {}}) == {('k:{"a":2,"b":1}',)}


def test_strategic_merge_keeps_order_and_deletes_primitives() -> None:
    merging = {"x-kubernetes-patch-strategy": "merge"}
    keyed = {**merging, "x-kubernetes-patch-merge-key": "n", "items": {"type": "object"}}
    schema = {"properties": {"items": keyed, "words": merging}}
    target = {"items": [{"n": "a"}, {"n": "b"}], "words": ["x", "y"]}
    patch = {
        "items": [{"n": "c"}],
        "$setElementOrder/items": [{"n": "c"}, {"n": "a"}],
        "$deleteFromPrimitiveList/words": ["x"],
    }
    merged = strategic_merge(target, patch, schema)
    assert merged == {"items": [{"n": "c"}, {"n": "a"}, {"n": "b"}], "words": ["y"]}
    assert target["words"] == ["x", "y"]


def test_label_selectors_of_objects() -> None:
    rule = {"key": "tier", "operator": "NotIn", "values": ["back"]}
    selector = {"matchLabels": {"app": "x"}, "matchExpressions": [rule]}
    assert matches_label_selector(selector, {"app": "x", "tier": "front"})
    assert not matches_label_selector(selector, {"app": "x", "tier": "back"})
    assert matches_label_selector({}, {})
    assert not matches_label_selector(None, {})


def test_quantities_are_exact_numbers() -> None:
    assert parse_quantity("1Gi") == 1 << 30
    assert parse_quantity("1500m") == parse_quantity("1.5")
    assert parse_quantity("2e3") == 2000
    with pytest.raises(ValueError, match="not a quantity"):
        parse_quantity("10 GB")


def test_ages_are_short() -> None:
    now = datetime.datetime(2026, 1, 10, tzinfo=datetime.UTC)
    moments = ("2026-01-09T23:59:15Z", "2026-01-09T23:56:50Z", "2026-01-09T21:00:00Z", "2026-01-07T00:00:00Z", None)
    assert [age(moment, now) for moment in moments] == ["45s", "3m10s", "3h", "3d", "<unknown>"]


def test_json_paths_find_fields_indices_and_filters() -> None:
    obj = {"a": {"b": [{"t": "x", "v": 1}, {"t": "y", "v": 2}]}, "m": {"k.d": 3}}
    assert find(obj, ".a.b[1].v") == 2
    assert find(obj, '.a.b[?(@.t=="x")].v') == 1
    assert find(obj, r".m.k\.d") == 3
    assert find(obj, ".a.none.b") is None


@pytest.mark.parametrize(
    ("path", "method", "expected"),
    [
        ("/api/v1/pods", "GET", ("", "v1", "pods", "", "", "", "list")),
        ("/api/v1/namespaces/n/pods/p/log", "GET", ("", "v1", "pods", "n", "p", "log", "get")),
        ("/api/v1/namespaces/n", "DELETE", ("", "v1", "namespaces", "", "n", "", "delete")),
        ("/api/v1/namespaces/n/finalize", "PUT", ("", "v1", "namespaces", "", "n", "finalize", "update")),
        ("/apis/apps/v1/namespaces/n/statefulsets", "POST", ("apps", "v1", "statefulsets", "n", "", "", "create")),
    ],
)
def test_paths_are_taken_apart(path: str, method: str, expected: tuple[str, ...]) -> None:
    target = parse_target(path, method, watching=False)
    assert target is not None
    found = (target.group, target.version, target.plural, target.namespace, target.name, target.subresource)
    assert (*found, target.verb) == expected
