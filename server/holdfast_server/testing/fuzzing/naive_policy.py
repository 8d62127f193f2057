"""AWS's policy language once more, slow and plain: straight from the document, to compare the evaluator with.

Shares no code with `auth.policy` and `auth.conditions`: patterns are matched by trying every way, conditions are
written out operator by operator as the IAM user guide tells them.  Only for documents that were accepted, and for the
values that `policies` draws (numbers, dates and addresses in their plain forms).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

Values = Mapping[str, tuple[str, ...]]


class Sign(NamedTuple):
    """One character of a pattern."""

    text: str
    literal: bool
    """It came out of a variable, and is no wildcard whatever it is."""


def signs(pattern: str) -> list[Sign]:
    """Of a pattern without variables."""
    return [Sign(text, False) for text in pattern]


def like(pattern: list[Sign], text: str, *, ignore_case: bool = False) -> bool:
    """`*` any run, `?` any one character; by dynamic programming over both."""
    text = text.lower() if ignore_case else text
    reach = [True] + [False] * len(text)
    for sign, literal in pattern:
        wanted = sign.lower() if ignore_case else sign
        if sign == "*" and not literal:
            for at in range(1, len(text) + 1):
                reach[at] = reach[at] or reach[at - 1]
        else:
            anything = sign == "?" and not literal
            reach = [False] + [reach[at] and (anything or wanted == text[at]) for at in range(len(text))]
    return reach[-1]


def substituted(pattern: str, values: Values) -> list[Sign] | None:
    """With its variables replaced; None where one of them has not exactly one value, and no default for having none."""
    out: list[Sign] = []
    rest = pattern
    while "${" in rest:
        before, _, after = rest.partition("${")
        if "}" not in after:
            return out + signs(rest)
        name, _, rest = after.partition("}")
        name, comma, default = (text.strip() for text in name.partition(","))
        quoted = len(default) >= 2 and default[0] == default[-1] == "'" and "'" not in default[1:-1]
        if comma and not quoted:
            return None
        have = (name,) if name in ("*", "?", "$") else values.get(name.lower(), ())
        if comma and not have:
            have = (default[1:-1],)
        if len(have) != 1:
            return None
        out += signs(before) + [Sign(text, True) for text in have[0]]
    return out + signs(rest)


def _texts(value: Any) -> list[str]:
    items = value if isinstance(value, list) else [value]
    return [("true" if item else "false") if isinstance(item, bool) else str(item) for item in items]


def _any_like(patterns: Any, text: str, values: Values, *, ignore_case: bool = False) -> bool:
    for pattern in _texts(patterns):
        expanded = substituted(pattern, values)
        if expanded is None:
            continue
        if like(expanded, text, ignore_case=ignore_case):
            return True
    return False


def _names(principal: Any, names: tuple[str, ...]) -> bool:
    if principal == "*":
        return True
    named = [name for kind in ("AWS", "CanonicalUser") for name in _texts(principal.get(kind, []))]
    return "*" in named or any(name in named for name in names)


def _moment(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()


def _compare(relation: str, have: float, want: float) -> bool:
    return {
        "Equals": have == want,
        "NotEquals": have == want,
        "LessThan": have < want,
        "LessThanEquals": have <= want,
        "GreaterThan": have > want,
        "GreaterThanEquals": have >= want,
    }[relation]


def _one(operator: str, have: str, pattern: list[Sign]) -> bool:
    """Whether one value matches one wanted value, of the operator without its negation."""
    want = "".join(sign.text for sign in pattern)
    if operator.startswith("Numeric"):
        try:
            return _compare(operator.removeprefix("Numeric"), float(have), float(want))
        except ValueError:
            return False
    if operator.startswith("Date"):
        try:
            return _compare(operator.removeprefix("Date"), _moment(have), _moment(want))
        except ValueError:
            return False
    if operator in ("StringEquals", "StringNotEquals", "BinaryEquals"):
        return have == want
    if operator in ("StringEqualsIgnoreCase", "StringNotEqualsIgnoreCase"):
        return have.casefold() == want.casefold()
    if operator == "Bool":
        return have.lower() == want.lower()
    if operator in ("IpAddress", "NotIpAddress"):
        try:
            return ipaddress.ip_address(have) in ipaddress.ip_network(want, strict=False)
        except ValueError:
            return False
    return like(pattern, have)


def _holds(operator_text: str, key: str, wanted: Any, values: Values) -> bool:
    qualifier, colon, operator = operator_text.rpartition(":")
    if not colon:
        qualifier = ""
    if_exists = operator.endswith("IfExists")
    operator = operator.removesuffix("IfExists")
    have = values.get(key.lower(), ())
    if operator == "Null":
        return any((text.lower() == "true") == (not have) for text in _texts(wanted))
    negated = "Not" in operator
    if not have:
        return if_exists or qualifier == "ForAllValues" or (negated and qualifier != "ForAnyValue")
    expanded = [text for one in _texts(wanted) if (text := substituted(one, values)) is not None]
    results = [any(_one(operator, value, want) for want in expanded) != negated for value in have]
    if qualifier == "ForAllValues" or (negated and not qualifier):
        return all(results)
    return any(results)


def _applies(statement: dict[str, Any], action: str, resource: str, names: tuple[str, ...], values: Values) -> bool:
    if "Action" in statement and not _any_like(statement["Action"], action, values, ignore_case=True):
        return False
    if "NotAction" in statement and _any_like(statement["NotAction"], action, values, ignore_case=True):
        return False
    if "Resource" in statement and not _any_like(statement["Resource"], resource, values):
        return False
    if "NotResource" in statement and _any_like(statement["NotResource"], resource, values):
        return False
    if "Principal" in statement and not _names(statement["Principal"], names):
        return False
    if "NotPrincipal" in statement and _names(statement["NotPrincipal"], names):
        return False
    return all(
        _holds(operator, key, wanted, values)
        for operator, keys in statement.get("Condition", {}).items()
        for key, wanted in keys.items()
    )


def decide(document: dict[str, Any], action: str, resource: str, names: tuple[str, ...], values: Values) -> str | None:
    """`Deny`, `Allow`, or None."""
    statements = document["Statement"]
    if isinstance(statements, dict):
        statements = [statements]
    effects = [one["Effect"] for one in statements if _applies(one, action, resource, names, values)]
    return "Deny" if "Deny" in effects else "Allow" if effects else None
