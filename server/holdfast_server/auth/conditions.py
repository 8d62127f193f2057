"""The condition operators of AWS's policy language, over values of a request.

A condition holds when, for every operator and key, one of the policy's values matches (none of them, for the
`Not…` operators).  A key the request does not have fails a positive operator, passes a negative one and one
with `IfExists`, as AWS defines it.  Everything is checked when a policy is read, so evaluating cannot fail.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache

import msgspec

Values = Mapping[str, tuple[str, ...]]
"""Lower-cased condition keys of a request → values."""
Matcher = Callable[[str, str], bool]
"""(value of the request, value of the policy) → does it match."""

KEPT_NETWORKS = 4096
"""Of all policies, as they are asked: reading one takes longer than all else about it."""
KEPT_ADDRESSES = 256

_VARIABLE = re.compile(r"\$\{([^}]*)\}")
_LITERALS = {"*": "*", "?": "?", "$": "$"}
_STAR, _MARK = "\uf8f0", "\uf8f1"
"""Stand for a `*` and a `?` that came out of a variable: they are themselves, never wildcards.  (Of a private range;
whoever writes them into a policy gets the same characters.)"""
_SHIELD = str.maketrans({"*": _STAR, "?": _MARK})
_UNSHIELD = str.maketrans({_STAR: "*", _MARK: "?"})
_SHIELDED = {_STAR: r"\*", _MARK: r"\?"}
MAX_EXPANDED_LENGTH = 64 << 10
"""Of what variables of one pattern stand for; no value of a request is longer."""


def wildcard(pattern: str, ignore_case: bool = False) -> re.Pattern[str]:
    """`*` is any run of characters, `?` any one; matched in full.

    Between two stars the leftmost match is taken for good (an atomic group): that is enough for such patterns,
    and no policy can make matching slower than its length times the text's.
    """
    first, *rest = [_segment(part) for part in re.sub(r"\*+", "*", pattern).split("*")]
    middle = "".join([f"(?>.*?{part})" for part in rest[:-1]])
    text = f"{first}{middle}.*{rest[-1]}" if rest else first
    return re.compile(text, re.DOTALL | (re.IGNORECASE if ignore_case else 0))


def like(pattern: str, text: str) -> bool:
    """Whether `wildcard` matches the text in full, compiling next to nothing: a policy may hold thousands of patterns,
    be asked for each key of a request, and its variables are as long as whoever asks makes them."""
    if len(pattern) - pattern.count("*") > len(text):
        return False
    if "?" in pattern:
        return wildcard(pattern).fullmatch(text) is not None
    first, *rest = [part.translate(_UNSHIELD) for part in pattern.split("*")]
    if not rest:
        return first == text
    last = rest.pop()
    at, end = len(first), len(text) - len(last)
    if at > end or not (text.startswith(first) and text.endswith(last)):
        return False
    for part in rest:
        at = text.find(part, at, end)
        if at < 0:
            return False
        at += len(part)
    return True


def _segment(text: str) -> str:
    return "".join(["." if char == "?" else _SHIELDED.get(char) or re.escape(char) for char in text])


def expand(pattern: str, values: Values, for_wildcard: bool = False, most: int = MAX_EXPANDED_LENGTH) -> str | None:
    """Replace policy variables (`${aws:username}`); None where one has no single value, or where all together are
    longer than `most`: what they are compared with.

    `for_wildcard`: the outcome goes to `like`, where what a variable stands for matches itself alone: else a client
    that sends `*` for `${s3:prefix}` would be asking for everything.
    """
    if "${" not in pattern:
        return pattern
    missing, length = False, 0

    def replace(match: re.Match[str]) -> str:
        nonlocal missing, length
        name = match[1].strip()
        found = (_LITERALS[name],) if name in _LITERALS else values.get(name.lower(), ())
        length += len(found[0]) if found else 0
        missing = missing or len(found) != 1 or length > most
        if missing:
            return ""
        return found[0].translate(_SHIELD) if for_wildcard else found[0]

    text = _VARIABLE.sub(replace, pattern)
    return None if missing else text


def _number(text: str) -> float:
    return float(text)


def _date(text: str) -> float:
    """Seconds since the epoch, from a number or an ISO 8601 date."""
    try:
        return float(text)
    except ValueError:
        when = datetime.fromisoformat(text)
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def _ordered(convert: Callable[[str], float], compare: Callable[[float, float], bool]) -> Matcher:
    def matches(have: str, want: str) -> bool:
        try:
            return compare(convert(have), convert(want))
        except ValueError:
            return False

    return matches


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@lru_cache(maxsize=KEPT_NETWORKS)
def _network(text: str) -> Network:
    return ipaddress.ip_network(text, strict=False)


_address = lru_cache(maxsize=KEPT_ADDRESSES)(ipaddress.ip_address)


def _in_network(have: str, want: str) -> bool:
    try:
        return _address(have) in _network(want)
    except ValueError:
        return False


def _like(have: str, want: str) -> bool:
    return like(want, have)


class _Operator(msgspec.Struct, frozen=True):
    matches: Matcher
    negated: bool = False
    check: Callable[[str], object] = str
    """Raises ValueError for a policy value that can never match."""
    wildcards: bool = False


def _both(
    name: str, negative: str, matches: Matcher, check: Callable[[str], object] = str, wildcards: bool = False
) -> dict[str, _Operator]:
    return {name: _Operator(matches, False, check, wildcards), negative: _Operator(matches, True, check, wildcards)}


def _comparisons(kind: str, convert: Callable[[str], float]) -> dict[str, _Operator]:
    return {
        **_both(f"{kind}Equals", f"{kind}NotEquals", _ordered(convert, lambda a, b: a == b), convert),
        f"{kind}LessThan": _Operator(_ordered(convert, lambda a, b: a < b), check=convert),
        f"{kind}LessThanEquals": _Operator(_ordered(convert, lambda a, b: a <= b), check=convert),
        f"{kind}GreaterThan": _Operator(_ordered(convert, lambda a, b: a > b), check=convert),
        f"{kind}GreaterThanEquals": _Operator(_ordered(convert, lambda a, b: a >= b), check=convert),
    }


def _boolean(text: str) -> str:
    if text.lower() not in ("true", "false"):
        raise ValueError(f"{text!r} is neither true nor false")
    return text


OPERATORS: dict[str, _Operator] = {
    **_both("StringEquals", "StringNotEquals", lambda a, b: a == b),
    **_both("StringEqualsIgnoreCase", "StringNotEqualsIgnoreCase", lambda a, b: a.casefold() == b.casefold()),
    **_both("StringLike", "StringNotLike", _like, wildcards=True),
    **_both("ArnEquals", "ArnNotEquals", _like, wildcards=True),
    **_both("ArnLike", "ArnNotLike", _like, wildcards=True),
    **_both("IpAddress", "NotIpAddress", _in_network, _network),
    **_comparisons("Numeric", _number),
    **_comparisons("Date", _date),
    "Bool": _Operator(lambda a, b: a.lower() == b.lower(), check=_boolean),
    "BinaryEquals": _Operator(lambda a, b: a == b),
    "Null": _Operator(lambda a, b: a == b, check=_boolean),
}


class Condition(msgspec.Struct, frozen=True):
    """One operator on one key."""

    operator: str
    key: str
    """Lower case."""
    wanted: tuple[str, ...]
    if_exists: bool = False
    qualifier: str = ""
    """`ForAnyValue`, `ForAllValues` or empty."""

    def holds(self, values: Values) -> bool:
        have = values.get(self.key)
        if self.operator == "Null":
            absent = "true" if not have else "false"
            return any(wanted.lower() == absent for wanted in self.wanted)
        row = OPERATORS[self.operator]
        if not have:
            negated = row.negated and self.qualifier != "ForAnyValue"
            return self.if_exists or negated or self.qualifier == "ForAllValues"
        most = max(map(len, have)) if row.wildcards else MAX_EXPANDED_LENGTH
        expanded = [text for wanted in self.wanted if (text := expand(wanted, values, row.wildcards, most)) is not None]
        results = [any(row.matches(value, want) for want in expanded) != row.negated for value in have]
        # Without a qualifier a key has one value; should it have more, a negation must hold for all of them.
        every = self.qualifier == "ForAllValues" or (row.negated and not self.qualifier)
        return all(results) if every else any(results)


def parse_condition_operator(text: str) -> tuple[str, str, bool]:
    """(qualifier, operator, if_exists) of `ForAnyValue:StringLikeIfExists`.  Raises ValueError."""
    qualifier, colon, name = text.partition(":")
    if not colon:
        qualifier, name = "", text
    elif qualifier not in ("ForAnyValue", "ForAllValues"):
        raise ValueError(f"unknown qualifier {qualifier!r}")
    if_exists = name.endswith("IfExists") and name not in OPERATORS
    name = name.removesuffix("IfExists")
    if name not in OPERATORS or (name == "Null" and if_exists):
        raise ValueError(f"unknown operator {text!r}")
    return qualifier, name, if_exists


def check_value(operator: str, value: str) -> None:
    """Raises ValueError where the policy's value cannot be one for this operator."""
    if "${" not in value:
        OPERATORS[operator].check(value)
