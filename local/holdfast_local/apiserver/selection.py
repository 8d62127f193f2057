"""Label and field selectors of lists, watches and collection deletes; pure."""

import re
from collections.abc import Callable
from typing import Any

from holdfast_local.apiserver.errors import bad_request
from holdfast_local.apiserver.resources import Object, Resource

Predicate = Callable[[Object], bool]

_SET_TERM = re.compile(r"([^\s!=,()]+)\s+(in|notin)\s*\(([^)]*)\)\Z")
_COMPARISON = re.compile(r"([^\s!=,()]+)\s*(==|=|!=)\s*([^\s!=,()]*)\Z")
_PRESENCE = re.compile(r"(!?)\s*([^\s!=,()]+)\Z")
_OUTSIDE_PARENTHESES = re.compile(r",(?![^(]*\))")

_FIELDS: dict[str, tuple[str, ...]] = {
    "pods": (
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "status.phase",
        "status.podIP",
    ),
    "events": (
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ),
    "secrets": ("type",),
    "namespaces": ("status.phase",),
    "nodes": ("spec.unschedulable",),
    "replicasets": ("status.replicas",),
    "jobs": ("status.successful",),
    "services": ("spec.clusterIP", "spec.type"),
}


def parse_label_selector(text: str) -> Callable[[dict[str, str]], bool]:
    """A predicate on labels. Raises StatusError 400 for text that is not a selector."""
    terms = [_parse_label_term(term.strip()) for term in _OUTSIDE_PARENTHESES.split(text) if term.strip()]
    return lambda labels: all(term(labels) for term in terms)


def _parse_label_term(term: str) -> Callable[[dict[str, str]], bool]:
    if match := _SET_TERM.match(term):
        name, operator, choices = match[1], match[2], {part.strip() for part in match[3].split(",")}
        if operator == "in":
            return lambda labels: name in labels and labels[name] in choices
        return lambda labels: labels.get(name) not in choices
    if match := _COMPARISON.match(term):
        name, operator, value = match[1], match[2], match[3]
        if operator == "!=":
            return lambda labels: labels.get(name) != value
        return lambda labels: labels.get(name) == value
    if match := _PRESENCE.match(term):
        absent, name = match[1] == "!", match[2]
        return lambda labels: (name not in labels) if absent else (name in labels)
    raise bad_request(f'unable to parse requirement: found "{term}", expected: in, notin, =, ==, !=')


def matches_label_selector(selector: dict[str, Any] | None, labels: dict[str, str]) -> bool:
    """A `LabelSelector` object (matchLabels, matchExpressions); None selects nothing, an empty one everything."""
    if selector is None:
        return False
    for name, value in (selector.get("matchLabels") or {}).items():
        if labels.get(name) != value:
            return False
    for rule in selector.get("matchExpressions") or ():
        name, operator, values = rule["key"], rule["operator"], rule.get("values") or ()
        holds = {
            "In": name in labels and labels[name] in values,
            "NotIn": labels.get(name) not in values,
            "Exists": name in labels,
            "DoesNotExist": name not in labels,
        }[operator]
        if not holds:
            return False
    return True


def _parse_field_selector(resource: Resource, text: str) -> Predicate:
    allowed = ("metadata.name", "metadata.namespace", *_FIELDS.get(resource.plural, ()))
    terms: list[tuple[tuple[str, ...], bool, str]] = []
    for term in filter(None, (part.strip() for part in text.split(","))):
        match = re.match(r"([^=!]+)(==|=|!=)(.*)\Z", term)
        if match is None:
            raise bad_request(f'invalid selector: "{text}"; can\'t understand "{term}"')
        if match[1] not in allowed:
            raise bad_request(f'field label not supported: {match[1]} (of "{resource.kind}")')
        terms.append((tuple(match[1].split(".")), match[2] != "!=", match[3]))

    def matches(obj: Object) -> bool:
        return all((_text_at(obj, path) == value) == wanted for path, wanted, value in terms)

    return matches


def _text_at(obj: Object, path: tuple[str, ...]) -> str:
    value: Any = obj
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def parse_selection(resource: Resource, label_selector: str, field_selector: str) -> Predicate:
    """One predicate for both selectors; empty text selects everything."""
    labels = parse_label_selector(label_selector)
    fields = _parse_field_selector(resource, field_selector)
    return lambda obj: labels(obj["metadata"].get("labels") or {}) and fields(obj)
