"""Cross-origin rules of a bucket: the document, which rule a request falls under, what a browser is told.

A rule matches a request by its origin, its method and, for a preflight, every header the browser asks for; the first
one that does is taken ("How does Amazon S3 evaluate the CORS configuration on a bucket").  Patterns have at most one
`*`.  Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from holdfast_server.s3.documents_out import document
from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.xml_text import escape
from holdfast_server.s3.xml_tree import Element, parse

MAX_CORS_SIZE_BYTES = 64 << 10
MAX_RULES = 100
MAX_ID_LENGTH = 255
MAX_AGE_LIMIT_SECONDS = (1 << 31) - 1
MAX_REQUEST_HEADERS = 128
"""That a preflight may ask for: no request can have more of them (`api.services.Limits`), and each is held against all
patterns of all rules, for whoever asks."""
METHODS = ("GET", "PUT", "POST", "DELETE", "HEAD")

_VARY = "Origin, Access-Control-Request-Headers, Access-Control-Request-Method"


class CorsRule(msgspec.Struct, frozen=True, kw_only=True):
    """One rule, as it is kept with the bucket."""

    origins: list[str]
    methods: list[str]
    headers: list[str] = []
    exposed: list[str] = []
    max_age_seconds: int | None = None
    id: str = ""

    def allows(self, origin: str, method: str, headers: Sequence[str] = ()) -> bool:
        """`headers` are the names a preflight asks for."""
        if not all(text.isascii() and text.isprintable() for text in (origin, *headers)):
            return False  # what is allowed is said back
        if method not in self.methods or not any(_matches(pattern, origin) for pattern in self.origins):
            return False
        patterns = [pattern.lower() for pattern in self.headers]
        left = {name.lower() for name in headers}.difference(patterns)
        for pattern in patterns if left else ():
            head, star, _ = pattern.partition("*")
            if star:
                left = {name for name in left if not (name.startswith(head) and _matches(pattern, name))}
        return not left

    def told(self, origin: str, headers: Sequence[str] = ()) -> dict[str, str]:
        """The response's headers for a request that this rule allows."""
        told = {"access-control-allow-methods": ", ".join(self.methods), "vary": _VARY}
        if "*" in self.origins:
            told["access-control-allow-origin"] = "*"
        else:
            told["access-control-allow-origin"] = origin
            told["access-control-allow-credentials"] = "true"
        if headers:
            told["access-control-allow-headers"] = ", ".join(name.lower() for name in headers)
        if self.exposed:
            told["access-control-expose-headers"] = ", ".join(self.exposed)
        if self.max_age_seconds is not None:
            told["access-control-max-age"] = str(self.max_age_seconds)
        return told


def _matches(pattern: str, text: str) -> bool:
    head, star, tail = pattern.partition("*")
    if not star:
        return pattern == text
    return len(text) >= len(head) + len(tail) and text.startswith(head) and text.endswith(tail)


def find_rule(rules: Sequence[CorsRule], origin: str, method: str, headers: Sequence[str] = ()) -> CorsRule | None:
    """The first rule that allows the request."""
    return next((rule for rule in rules if rule.allows(origin, method, headers)), None)


class Preflight(msgspec.Struct, frozen=True):
    """What a browser asks before it sends the request itself."""

    origin: str
    method: str
    headers: tuple[str, ...]


def parse_preflight(headers: Mapping[str, str]) -> Preflight:
    """Raises BadRequest where origin or method are missing, or more headers are asked for than there can be."""
    origin = headers.get("origin")
    if not origin:
        raise S3Error("BadRequest", "Insufficient information. Origin request header needed.")
    method = headers.get("access-control-request-method")
    if method not in METHODS:
        raise S3Error("BadRequest", f"Invalid Access-Control-Request-Method: {method or 'null'}")
    wanted = headers.get("access-control-request-headers", "").split(",")
    names = tuple(name.strip() for name in wanted if name.strip())
    if len(names) > MAX_REQUEST_HEADERS:
        raise S3Error("BadRequest", f"Access-Control-Request-Headers may name {MAX_REQUEST_HEADERS} headers.")
    return Preflight(origin, method, names)


def answer_preflight(rules: Sequence[CorsRule], asked: Preflight) -> dict[str, str]:
    """The headers that let the browser go on.  Raises AccessForbidden."""
    rule = find_rule(rules, asked.origin, asked.method, asked.headers)
    if rule is not None:
        return rule.told(asked.origin, asked.headers)
    if not rules:
        raise S3Error("AccessForbidden", "CORSResponse: CORS is not enabled for this bucket.", Method=asked.method)
    raise S3Error(
        "AccessForbidden",
        "CORSResponse: This CORS request is not allowed. This is usually because the evalution of Origin, request "
        "method / Access-Control-Request-Method or Access-Control-Request-Headers are not whitelisted by the "
        "resource's CORS spec.",
        Method=asked.method,
    )


def response_headers(rules: Sequence[CorsRule], headers: Mapping[str, str], method: str) -> dict[str, str]:
    """What is added to the answer of a request that names an origin; nothing where no rule allows it."""
    origin = headers.get("origin", "")
    rule = find_rule(rules, origin, headers.get("access-control-request-method", method))
    return rule.told(origin) if rule is not None else {}


# --- the document


def parse_cors(body: bytes) -> list[CorsRule]:
    """The rules of a CORSConfiguration, one at least.  Raises MalformedXML, InvalidRequest."""
    root = parse(body, MAX_CORS_SIZE_BYTES)
    rules = [_rule(element) for element in root.all("CORSRule")]
    if root.name != "CORSConfiguration" or not 1 <= len(rules) <= MAX_RULES:
        raise S3Error("MalformedXML")
    return rules


def _rule(element: Element) -> CorsRule:
    rule = CorsRule(
        origins=_texts(element, "AllowedOrigin"),
        methods=_texts(element, "AllowedMethod"),
        headers=_texts(element, "AllowedHeader"),
        exposed=_texts(element, "ExposeHeader"),
        max_age_seconds=_max_age(element.value("MaxAgeSeconds")),
        id=element.value("ID") or "",
    )
    if not rule.origins or not rule.methods:
        raise S3Error("MalformedXML")
    if len(rule.id) > MAX_ID_LENGTH:
        raise S3Error("InvalidRequest", f"The ID of a CORS rule can have at most {MAX_ID_LENGTH} characters.")
    for method in rule.methods:
        if method not in METHODS:
            raise S3Error(
                "InvalidRequest", f"Found unsupported HTTP method in CORS config. Unsupported method is {method}"
            )
    for kind, patterns in (("AllowedOrigin", rule.origins), ("AllowedHeader", rule.headers)):
        for pattern in patterns:
            if pattern.count("*") > 1:
                raise S3Error("InvalidRequest", f'{kind} "{pattern}" can not have more than one wildcard.')
    for name in rule.exposed:
        if "*" in name:
            raise S3Error("InvalidRequest", f'ExposeHeader "{name}" contains wildcard. We currently do not support it.')
    for text in (*rule.origins, *rule.exposed):
        if not text or not text.isascii() or not text.isprintable():
            raise S3Error("InvalidRequest", "CORS rules name origins and headers in printable ASCII.")
    return rule


def _texts(element: Element, name: str) -> list[str]:
    return [child.text.strip() for child in element.all(name)]


def _max_age(text: str | None) -> int | None:
    if not text:
        return None
    digits = text.removeprefix("-")  # browsers keep no answer of a preflight for -1
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 10 and int(digits) <= MAX_AGE_LIMIT_SECONDS):
        raise S3Error("MalformedXML")
    return int(text)


def cors_xml(rules: Sequence[CorsRule]) -> bytes:
    """GetBucketCors."""
    return document("CORSConfiguration", "".join(map(_rule_xml, rules)))


def _rule_xml(rule: CorsRule) -> str:
    parts = [f"<ID>{escape(rule.id)}</ID>" if rule.id else ""]
    for name, texts in (
        ("AllowedHeader", rule.headers),
        ("AllowedMethod", rule.methods),
        ("AllowedOrigin", rule.origins),
        ("ExposeHeader", rule.exposed),
    ):
        parts += [f"<{name}>{escape(text)}</{name}>" for text in texts]
    if rule.max_age_seconds is not None:
        parts.append(f"<MaxAgeSeconds>{rule.max_age_seconds}</MaxAgeSeconds>")
    return f"<CORSRule>{''.join(parts)}</CORSRule>"
