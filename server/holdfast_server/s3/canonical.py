"""The canonical request of AWS Signature Version 4: one description, used to sign and to verify.

S3's flavour: the path is decoded once and encoded again (never twice), `.` and `//` stay, every byte but
`A–Z a–z 0–9 - . _ ~ /` is written as `%XX`; parameters are encoded the same way (`/` too), sorted by name and
then by value; header values are trimmed and runs of blanks become one.
Most clients already send what they sign, so both have a fast path that only checks the form.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from urllib.parse import quote, unquote_to_bytes

UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"
EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

_ESCAPE = "%(?:[0189A-F][0-9A-F]|2[0-9A-C]|3[A-F]|40|5[B-E]|60|7[BCDF])"
"""An escape that the canonical form keeps: upper case, of a byte that must be escaped (not the slash)."""
_UNRESERVED = r"[A-Za-z0-9\-._~]*"
_COMPONENT = f"{_UNRESERVED}(?:(?:{_ESCAPE}|%2F){_UNRESERVED})*"
_PAIR = f"{_COMPONENT}(?:={_COMPONENT})?"
_CANONICAL_PATH = re.compile(rf"[A-Za-z0-9\-._~/]*(?:{_ESCAPE}[A-Za-z0-9\-._~/]*)*").fullmatch
_CANONICAL_QUERY = re.compile(f"{_PAIR}(?:&{_PAIR})*").fullmatch
_BLANKS = re.compile("[ \t]{2,}|\t")


def canonical_path(raw_path: str) -> str:
    """The path part, from the path on the wire."""
    if _CANONICAL_PATH(raw_path):
        return raw_path
    return quote(unquote_to_bytes(raw_path.encode("utf-8", "surrogateescape")), safe="/-_.~")


def encode_component(text: str) -> str:
    """A parameter's name or value as it stands in a canonical query."""
    return quote(text, safe="-_.~", errors="surrogateescape")


def canonical_query(raw_query: str, without: str = "") -> str:
    """The query part, from the query on the wire; the parameter `without` is left out."""
    if not raw_query:
        return ""
    if not _CANONICAL_QUERY(raw_query):
        raw_query = "&".join([_reencode(part) for part in raw_query.split("&")])
    return sort_query(raw_query, without)


def sort_query(query: str, without: str = "") -> str:
    """Sort an encoded query by name, then value, and give bare names their `=`."""
    pairs = [part.partition("=") for part in query.split("&") if part]
    if len(pairs) > 1:
        pairs.sort()
    return "&".join([f"{name}={value}" for name, _, value in pairs if not without or name != without])


def _reencode(part: str) -> str:
    name, equals, value = part.replace("+", "%20").partition("=")
    if not name and not equals:
        return ""
    return f"{_quote_raw(name)}={_quote_raw(value)}"


def _quote_raw(text: str) -> str:
    return quote(unquote_to_bytes(text.encode("utf-8", "surrogateescape")), safe="-_.~")


def canonical_headers(headers: Mapping[str, str], signed_headers: Sequence[str]) -> str:
    """`name:value` lines of the signed headers.  Raises KeyError for one that is not there."""
    lines = []
    for name in signed_headers:
        value = headers[name]
        if "  " in value or "\t" in value:
            value = _BLANKS.sub(" ", value)
        lines.append(f"{name}:{value.strip(' ')}\n")
    return "".join(lines)


def canonical_request(
    method: str, path: str, query: str, headers: str, signed_headers: str, payload_hash: str
) -> bytes:
    """The canonical request's bytes, from its canonical parts; `signed_headers` joined by semicolons."""
    text = f"{method}\n{path}\n{query}\n{headers}\n{signed_headers}\n{payload_hash}"
    return text.encode("utf-8", "surrogateescape")
