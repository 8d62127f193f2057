"""Where pods are placed: rules of a MinIO Tenant that name its pods, as rules about ours.

MinIO's operator labels its pods `v1.min.io/tenant` and `v1.min.io/pool`, and its tools have written an anti-affinity by
these labels into every Tenant.  Carried over as it stands it would name no pod of ours: they could all come to lie on
one node, which a single loss takes away, since `affinity` replaces what `spreadOverNodes` does by itself.  And it would
still name MinIO's pods, which run beside them until all is copied, and keep ours from their nodes.

So an affinity that only keeps pods of the Tenant apart becomes `spreadOverNodes`; in all others, and in topology spread
constraints, the labels become ours.  Rules about other pods stay as they are.  Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast_operator.desired.stateful_set import HOSTNAME_TOPOLOGY
from holdfast_operator.labels import POOL_LABEL, TENANT_LABEL

_TENANT, _POOL = "v1.min.io/tenant", "v1.min.io/pool"
_OURS = {_TENANT: TENANT_LABEL, _POOL: POOL_LABEL}
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"

Names = Mapping[str, Mapping[str, str]]
"""By MinIO's label: values of it that stand for pods of this Tenant, and what they are here."""


def names_of(tenant: str, pools: Mapping[str, str]) -> Names:
    """`pools`: what each is called there, and here."""
    return {_TENANT: {tenant: tenant}, _POOL: pools}


def spread_alone(affinity: Mapping[str, Any], names: Names) -> str | None:
    """The `spreadOverNodes` that says all that an affinity says; None where there is none."""
    if [kind for kind, rules in affinity.items() if rules] != ["podAntiAffinity"]:
        return None
    apart = affinity["podAntiAffinity"]
    required = apart.get(_REQUIRED) or []
    preferred = [one.get("podAffinityTerm") or {} for one in apart.get(_PREFERRED) or []]
    if not all(_keeps_own_pods_apart(term, names) for term in (*required, *preferred)):
        return None
    return "Required" if required else "Preferred" if preferred else None


def _keeps_own_pods_apart(term: Mapping[str, Any], names: Names) -> bool:
    if term.get("topologyKey") != HOSTNAME_TOPOLOGY or term.get("namespaces") or term.get("namespaceSelector"):
        return False
    selector = term.get("labelSelector") or {}
    pairs, expressions = selector.get("matchLabels") or {}, selector.get("matchExpressions") or []
    return bool(pairs or expressions) and (
        all(_is_own(key, [value], names) for key, value in pairs.items())
        and all(_names_own(expression, names) for expression in expressions)
    )


def _names_own(expression: Mapping[str, Any], names: Names) -> bool:
    key, operator = str(expression.get("key")), expression.get("operator")
    if key not in names or operator not in ("In", "Exists"):
        return False
    return operator == "Exists" or _is_own(key, expression.get("values") or [], names)


def _is_own(key: str, values: list[str], names: Names) -> bool:
    return key in names and bool(values) and all(value in names[key] for value in values)


def with_our_labels(rules: Any, names: Names) -> Any:
    """The rules, with each selector of pods of this Tenant by our labels."""
    if isinstance(rules, list):
        return [with_our_labels(rule, names) for rule in rules]
    if not isinstance(rules, Mapping):
        return rules
    if _names_own(rules, names):
        key = rules["key"]
        values = {"values": [names[key][value] for value in rules["values"]]} if rules.get("values") else {}
        return {**rules, "key": _OURS[key], **values}
    ours = {name: with_our_labels(rule, names) for name, rule in rules.items()}
    if isinstance(ours.get("matchLabels"), Mapping):
        ours["matchLabels"] = _our_pairs(ours["matchLabels"], names)
    return ours


def _our_pairs(pairs: Mapping[str, str], names: Names) -> dict[str, str]:
    ours = {}
    for key, value in pairs.items():
        own = _is_own(key, [value], names)
        ours[_OURS[key] if own else key] = names[key][value] if own else value
    return ours
