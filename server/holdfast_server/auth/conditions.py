"""The condition operators of AWS's policy language, over values of a request.

A condition holds when, for every operator and key, one of the policy's values matches (none of them, for the
`Not…` operators).  A key the request does not have fails a positive operator, passes a negative one and one
with `IfExists`, as AWS defines it.  Everything is checked when a policy is read, so evaluating cannot fail.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
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
KEPT_TEXTS = 4
"""Of those that patterns with a `?` are compared with: one question compares one with many."""
OFTEN = 64

_VARIABLE = re.compile(r"\$\{([^}]*)\}")
_LITERALS = {"*": "*", "?": "?", "$": "$"}
_STAR, _MARK = "\uf8f0", "\uf8f1"
"""Stand for a `*` and a `?` that came out of a variable: they are themselves, never wildcards.  (Of a private range;
whoever writes them into a policy gets the same characters.)"""
_SHIELD = str.maketrans({"*": _STAR, "?": _MARK})
_UNSHIELD = str.maketrans({_STAR: "*", _MARK: "?"})
MAX_EXPANDED_LENGTH = 64 << 10
"""Of what variables of one pattern stand for; no value of a request is longer."""


def like(pattern: str, text: str) -> bool:
    """Whether the text is such: `*` is any run of characters, `?` any one.

    Between two stars the leftmost match is taken for good, which is enough for such patterns: no policy can make this
    slower than its length times the text's.  Nothing is compiled: a policy may hold thousands of patterns, be asked for
    each key of a request, and its variables are as long as whoever asks makes them.
    """
    if len(pattern) - pattern.count("*") > len(text):
        return False
    first, *rest = pattern.split("*")
    if not rest:
        return len(first) == len(text) and _is_at(first, text, 0)
    last = rest.pop()
    at, end = len(first), len(text) - len(last)
    if at > end or not (_is_at(first, text, 0) and _is_at(last, text, end)):
        return False
    for part in rest:
        at = _find(part, text, at, end)
        if at < 0:
            return False
        at += len(part)
    return True


def _is_at(part: str, text: str, at: int) -> bool:
    """Whether a pattern without `*` matches at that place, where it has room."""
    if "?" not in part:
        return text.startswith(_plain(part), at)
    for piece in part.split("?"):
        if not text.startswith(_plain(piece), at):
            return False
        at += len(piece) + 1
    return True


def _find(part: str, text: str, at: int, end: int) -> int:
    """The first place between the two where a pattern without `*` matches; -1 where there is none.

    With a `?` all places are tried at once, a bit for each: one after the other would take the product of both lengths.
    """
    if "?" not in part:
        return text.find(_plain(part), at, end)
    if end - at < len(part):
        return -1
    places = _places(text)
    possible = (1 << end - len(part) + 1) - (1 << at)
    for offset, char in enumerate(part):
        if char != "?":
            possible &= places.of(_plain(char)) >> offset
            if not possible:
                return -1
    return (possible & -possible).bit_length() - 1


class _Places:
    """Where a text has a character, as a bit for each place."""

    def __init__(self, text: str) -> None:
        self._size_bytes = len(text) // 8 + 1
        self._found: dict[str, list[int]] = {}
        for place, char in enumerate(text):
            self._found.setdefault(char, []).append(place)
        self._bits: dict[str, int] = {}

    def of(self, char: str) -> int:
        bits = self._bits.get(char)
        if bits is None:
            found = self._found.get(char, [])
            raw = bytearray(self._size_bytes)
            for place in found:
                raw[place >> 3] |= 1 << (place & 7)
            bits = int.from_bytes(raw, "little")
            if len(found) >= OFTEN:  # no text has many that are
                self._bits[char] = bits
        return bits


_places = lru_cache(maxsize=KEPT_TEXTS)(_Places)


def _plain(part: str) -> str:
    return part if part.isascii() else part.translate(_UNSHIELD)


def expand(pattern: str, values: Values, for_wildcard: bool = False, most: int = MAX_EXPANDED_LENGTH) -> str | None:
    """Replace policy variables (`${aws:username}`, `${aws:PrincipalTag/team, 'none'}`); None where one has no single
    value and no default, or where all together are longer than `most`: what they are compared with.

    `for_wildcard`: the outcome goes to `like`, where what a variable stands for matches itself alone: else a client
    that sends `*` for `${s3:prefix}` would be asking for everything.
    """
    if "${" not in pattern:
        return pattern
    missing, length = False, 0

    def replace(match: re.Match[str]) -> str:
        nonlocal missing, length
        found = _value(match[1], values)
        length += len(found[0]) if found else 0
        missing = missing or len(found) != 1 or length > most
        if missing:
            return ""
        return found[0].translate(_SHIELD) if for_wildcard else found[0]

    # Behind the last brace there is none: looking for its end from each `${` would take the square of the length.
    end = pattern.rfind("}") + 1
    text = _VARIABLE.sub(replace, pattern[:end]) + pattern[end:]
    return None if missing else text


def _value(within: str, values: Values) -> tuple[str, ...]:
    """What a variable stands for, by what is within its braces: a key, and in quotes what stands for a key that the
    request does not have."""
    name, comma, default = [text.strip() for text in within.partition(",")]
    if name in _LITERALS:
        return (_LITERALS[name],)
    found = values.get(name.lower(), ())
    if not comma:
        return found
    quoted = len(default) > 1 and default.startswith("'") and default.find("'", 1) == len(default) - 1
    return (found or (default[1:-1],)) if quoted else ()


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
    literal: bool = False
    """Of a policy of the version without variables: what looks like one is text like any other."""

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
        expanded = self.wanted if self.literal else self._expanded(values, row.wildcards, most)
        results = [any(row.matches(value, want) for want in expanded) != row.negated for value in have]
        # Without a qualifier a key has one value; should it have more, a negation must hold for all of them.
        every = self.qualifier == "ForAllValues" or (row.negated and not self.qualifier)
        return all(results) if every else any(results)

    def _expanded(self, values: Values, for_wildcard: bool, most: int) -> Sequence[str]:
        return [text for wanted in self.wanted if (text := expand(wanted, values, for_wildcard, most)) is not None]


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


def check_value(operator: str, value: str, literal: bool) -> None:
    """Raises ValueError where the policy's value cannot be one for this operator."""
    if literal or "${" not in value:
        OPERATORS[operator].check(value)
