"""Whether a bucket's policy or its grants give something to everybody ("The meaning of public" in S3's guide).

A policy is public unless each Allow is bound to fixed principals, or by a condition to fixed values (no wildcard, no
variable) of a key that says where a request comes from; networks wider than /8 (IPv6: /32) bind nothing.  Pure.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from holdfast_server.auth.conditions import Condition
from holdfast_server.auth.policy import ALLOW, Policy, Statement
from holdfast_server.s3.acl import Grant

_BINDING_KEYS = frozenset(
    {
        "aws:sourcearn", "aws:sourcevpc", "aws:sourcevpce", "aws:sourceaccount", "aws:principalarn",
        "aws:principalaccount", "aws:principalorgid", "aws:principalorgpaths", "aws:userid", "aws:username",
        "aws:sourceip", "s3:dataaccesspointarn", "s3:dataaccesspointaccount",
    }
)  # fmt: skip
_BINDING_OPERATORS = frozenset(
    {"StringEquals", "StringEqualsIgnoreCase", "StringLike", "ArnEquals", "ArnLike", "IpAddress"}
)
_WIDEST = {4: 8, 6: 32}


def is_public_policy(policy: Policy) -> bool:
    return any(statement.effect == ALLOW and _is_public(statement) for statement in policy.statements)


def _is_public(statement: Statement) -> bool:
    if not statement.principals_negated and "*" not in (statement.principals or ()):
        return False
    return not any(map(_binds, statement.conditions))


def _binds(condition: Condition) -> bool:
    if condition.key not in _BINDING_KEYS or condition.operator not in _BINDING_OPERATORS:
        return False
    if condition.if_exists or condition.qualifier == "ForAllValues":
        return False  # holds for a request without the key
    return all(_is_fixed(condition.key, value) for value in condition.wanted)


def _is_fixed(key: str, value: str) -> bool:
    if "*" in value or "?" in value or "${" in value:
        return False
    if key != "aws:sourceip":
        return True
    try:
        network = ipaddress.ip_network(value, strict=False)
    except ValueError:
        return False
    return network.prefixlen >= _WIDEST[network.version]


def are_public(grants: Sequence[Grant]) -> bool:
    return any(grant.public for grant in grants)
