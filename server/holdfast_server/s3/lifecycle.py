"""Lifecycle rules of a bucket: what a rule says, to what it applies, and its document in and out.

A rule names objects (prefix, tags, sizes; all that it names must hold) and what becomes of them: expiry of what is
current, of what has been replaced, of delete markers that hide nothing, and the end of stale uploads.  Checked as the
S3 API reference documents ("Elements to describe lifecycle actions"), with one leniency: a filter may name several
things without `And`; they are taken together then, so it never applies to more than a reader of it would expect.

Transitions are refused with 501: there is nothing to move objects to.  When a rule is due is `expiry`'s.  Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from holdfast_server.s3.documents_out import document
from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.tags import MAX_OBJECT_TAGS, check_tags
from holdfast_server.s3.xml_text import escape
from holdfast_server.s3.xml_tree import Element, parse

MAX_LIFECYCLE_SIZE_BYTES = 1 << 20
MAX_RULES = 1000
MAX_ID_LENGTH = 255
MAX_PREFIX_SIZE_BYTES = 1024
MAX_NEWER_VERSIONS = 100
MAX_DAYS = (1 << 31) - 1
MAX_SIZE_BYTES = 1 << 50
DAY_MS = 24 * 3600 * 1000
LATEST_MS = 253_402_214_400_000
"""The last midnight that can be written, of the year 9999."""

MINIMUM_SIZE_HEADER = "x-amz-transition-default-minimum-object-size"
MINIMUM_SIZES = ("all_storage_classes_128K", "varies_by_storage_class")
"""The first is the default."""


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What a filter names, beside each other or within its `And`; None or empty: anything."""

    prefix: str | None = None
    tags: dict[str, str] = {}
    larger_than_bytes: int | None = None
    smaller_than_bytes: int | None = None

    def apply_to(self, key: str, size_bytes: int, tags: Callable[[], Mapping[str, str]]) -> bool:
        if self.prefix and not key.startswith(self.prefix):
            return False
        if self.larger_than_bytes is not None and size_bytes <= self.larger_than_bytes:
            return False
        if self.smaller_than_bytes is not None and size_bytes >= self.smaller_than_bytes:
            return False
        return not self.tags or self.tags.items() <= tags().items()

    @property
    def asks_for_content(self) -> bool:
        """Names what a delete marker or an upload does not have."""
        return bool(self.tags) or self.larger_than_bytes is not None or self.smaller_than_bytes is not None

    @property
    def empty(self) -> bool:
        return self == Terms()


class LifecycleRule(msgspec.Struct, frozen=True, kw_only=True):
    """One rule, as it is kept with the bucket."""

    id: str
    enabled: bool
    prefix: str | None = None
    """Of the old form, without a filter."""
    filter: Terms | None = None
    all_of: Terms | None = None
    """The filter's `And`."""
    days: int | None = None
    date_ms: int | None = None
    expired_marker: bool | None = None
    noncurrent_days: int | None = None
    newer_versions: int | None = None
    abort_days: int | None = None

    def names(self, key: str, size_bytes: int, tags: Callable[[], Mapping[str, str]]) -> bool:
        """Whether it applies to an object.  `tags` is asked only where that matters."""
        if self.prefix and not key.startswith(self.prefix):
            return False
        return all(terms is None or terms.apply_to(key, size_bytes, tags) for terms in (self.filter, self.all_of))

    def names_bare(self, key: str) -> bool:
        """Whether it applies to what has neither content nor tags: a delete marker, an upload."""
        return not self.asks_for_content and self.names(key, 0, dict)

    @property
    def asks_for_content(self) -> bool:
        return any(terms is not None and terms.asks_for_content for terms in (self.filter, self.all_of))

    @property
    def asks_for_tags(self) -> bool:
        return any(terms is not None and bool(terms.tags) for terms in (self.filter, self.all_of))


# --- the document in


def parse_lifecycle(body: bytes, new_id: Callable[[], str]) -> list[LifecycleRule]:
    """The rules of a LifecycleConfiguration, one at least; one without an ID gets `new_id()`.

    Raises MalformedXML, InvalidArgument, InvalidRequest, NotImplemented.
    """
    root = parse(body, MAX_LIFECYCLE_SIZE_BYTES)
    elements = list(root.all("Rule"))
    if root.name not in ("LifecycleConfiguration", "BucketLifecycleConfiguration"):
        raise S3Error("MalformedXML")
    if not 1 <= len(elements) <= MAX_RULES:
        raise S3Error("MalformedXML", f"A lifecycle configuration has 1 to {MAX_RULES} rules.")
    rules = [_rule(element, new_id) for element in elements]
    if len({rule.id for rule in rules}) != len(rules):
        raise S3Error("InvalidArgument", "Rule ID must be unique. Found same ID for more than one rule")
    for element in elements:
        _refuse_transitions(element)
    return rules


def _refuse_minios(rule: Element) -> None:
    """MinIO's own actions would seem to have been taken: `mc ilm rule add --expire-all-object-versions` beside a
    number of days, say.  Raises NotImplemented."""
    found = [name for name in _MINIOS if rule.find(name) is not None]
    expiration = rule.find("Expiration")
    if expiration is not None and (expiration.value(_ALL_VERSIONS) or "false").lower() != "false":
        found.append(_ALL_VERSIONS)
    if found:
        raise S3Error("NotImplemented", f"{found[0]} is not implemented.")


def _rule(element: Element, new_id: Callable[[], str]) -> LifecycleRule:
    _refuse_minios(element)
    rule_id = element.value("ID") or ""
    if len(rule_id) > MAX_ID_LENGTH:
        raise S3Error("InvalidArgument", f"ID length should not exceed allowed limit of {MAX_ID_LENGTH}")
    status = element.value("Status")
    if status not in ("Enabled", "Disabled"):
        raise S3Error("MalformedXML", "The Status of a rule is Enabled or Disabled.")
    filter_element = element.find("Filter")
    if (filter_element is None) == (element.find("Prefix") is None):
        raise S3Error("MalformedXML", "A rule has either a Filter or, in the old form, a Prefix.")
    both = filter_element.find("And") if filter_element is not None else None
    days, date_ms, expired_marker = _expiration(element.find("Expiration"))
    noncurrent_days, newer_versions = _noncurrent(element.find("NoncurrentVersionExpiration"))
    abort = element.find("AbortIncompleteMultipartUpload")
    rule = LifecycleRule(
        id=rule_id or new_id(),
        enabled=status == "Enabled",
        prefix=_prefix(element) if filter_element is None else None,
        filter=_terms(filter_element) if filter_element is not None else None,
        all_of=_conjunction(both) if both is not None else None,
        days=days,
        date_ms=date_ms,
        expired_marker=expired_marker,
        noncurrent_days=noncurrent_days,
        newer_versions=newer_versions,
        abort_days=_days(abort, "DaysAfterInitiation", "AbortIncompleteMultipartUpload") if abort is not None else None,
    )
    _check(rule, element)
    return rule


def _check(rule: LifecycleRule, element: Element) -> None:
    """What must not stand beside each other."""
    actions = (rule.days, rule.date_ms, rule.expired_marker, rule.noncurrent_days, rule.abort_days)
    if all(action is None for action in actions) and not any(element.find(name) for name in _TRANSITIONS):
        raise S3Error("InvalidRequest", "At least one action needs to be specified in a rule.")
    if rule.asks_for_content:
        told = "Tags" if rule.asks_for_tags else "Object Size"
        if rule.expired_marker is not None:
            raise S3Error("InvalidRequest", f"ExpiredObjectDeleteMarker cannot be specified with {told}.")
        if rule.abort_days is not None:
            raise S3Error("InvalidRequest", f"AbortIncompleteMultipartUpload cannot be specified with {told}.")
    if rule.newer_versions is not None and rule.filter is None:
        raise S3Error("InvalidRequest", "NewerNoncurrentVersions needs a rule with a Filter element.")


def _expiration(element: Element | None) -> tuple[int | None, int | None, bool | None]:
    if element is None:
        return None, None, None
    given = [name for name in ("Days", "Date", "ExpiredObjectDeleteMarker") if element.find(name) is not None]
    if len(given) != 1:
        raise S3Error("MalformedXML", "An Expiration has exactly one of Days, Date and ExpiredObjectDeleteMarker.")
    if given == ["Days"]:
        return _days(element, "Days", "Expiration"), None, None
    if given == ["Date"]:
        return None, _date_ms(element.value("Date") or ""), None
    text = element.value("ExpiredObjectDeleteMarker")
    if text not in ("true", "false"):
        raise S3Error("MalformedXML")
    return None, None, text == "true"


def _noncurrent(element: Element | None) -> tuple[int | None, int | None]:
    if element is None:
        return None, None
    action = "NoncurrentVersionExpiration"
    days = _days(element, "NoncurrentDays", action)
    if element.find("NewerNoncurrentVersions") is None:
        return days, None
    newer = _number(element, "NewerNoncurrentVersions")
    if not 1 <= newer <= MAX_NEWER_VERSIONS:
        raise S3Error("InvalidArgument", f"'NewerNoncurrentVersions' must be from 1 to {MAX_NEWER_VERSIONS}")
    return days, newer


def _days(element: Element, name: str, action: str) -> int:
    if element.find(name) is None:
        raise S3Error("MalformedXML", f"{action} needs {name}.")
    days = _number(element, name)
    if not 1 <= days <= MAX_DAYS:
        raise S3Error("InvalidArgument", f"'{name}' for {action} action must be a positive integer")
    return days


def _number(element: Element, name: str) -> int:
    text = element.value(name) or ""
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 19):
        raise S3Error("MalformedXML", f"{name} is no number.")
    return int(text)


def _date_ms(text: str) -> int:
    """Midnight UTC of a day.  Raises InvalidArgument."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError as error:
        raise S3Error("InvalidArgument", "'Date' must be in ISO 8601 format", ArgumentValue=text) from error
    when = when if when.tzinfo is not None else when.replace(tzinfo=UTC)
    milliseconds = int(when.timestamp() * 1000)
    if not 0 <= milliseconds <= LATEST_MS or milliseconds % DAY_MS:
        raise S3Error("InvalidArgument", "'Date' must be at midnight GMT", ArgumentValue=text)
    return milliseconds


def _terms(element: Element) -> Terms:
    tags = list(element.all("Tag"))
    if len(tags) > 1:
        raise S3Error("MalformedXML", "A Filter has at most one Tag; several stand in its And.")
    return _named(element, tags)


def _conjunction(element: Element) -> Terms:
    terms = _named(element, list(element.all("Tag")))
    if terms.empty:
        raise S3Error("MalformedXML", "An And must not be empty.")
    return terms


def _named(element: Element, tags: Sequence[Element]) -> Terms:
    pairs = []
    for tag in tags:
        key, value = tag.find("Key"), tag.find("Value")
        if key is None or value is None:
            raise S3Error("MalformedXML")
        pairs.append((key.text, value.text))
    if len({key for key, _ in pairs}) != len(pairs):
        raise S3Error("InvalidRequest", "Duplicate Tag Keys are not allowed.")
    larger, smaller = (
        _number(element, name) if element.find(name) is not None else None
        for name in ("ObjectSizeGreaterThan", "ObjectSizeLessThan")
    )
    for name, size in (("ObjectSizeGreaterThan", larger), ("ObjectSizeLessThan", smaller)):
        if size is not None and not 0 <= size <= MAX_SIZE_BYTES:
            raise S3Error("InvalidRequest", f"'{name}' must be from 0 to {MAX_SIZE_BYTES}")
    if smaller is not None and smaller <= (larger if larger is not None else 0):
        raise S3Error("InvalidRequest", "'ObjectSizeLessThan' has to be a value greater than 'ObjectSizeGreaterThan'.")
    return Terms(
        prefix=_prefix(element) if element.find("Prefix") is not None else None,
        tags=check_tags(pairs, MAX_OBJECT_TAGS),
        larger_than_bytes=larger,
        smaller_than_bytes=smaller,
    )


def _prefix(element: Element) -> str:
    found = element.find("Prefix")
    assert found is not None
    if len(found.text.encode()) > MAX_PREFIX_SIZE_BYTES:
        raise S3Error("InvalidRequest", "The maximum size of a prefix is 1024.")
    return found.text


_TRANSITIONS = ("Transition", "NoncurrentVersionTransition")
_MINIOS = ("AllVersionsExpiration", "DelMarkerExpiration")
_ALL_VERSIONS = "ExpiredObjectAllVersions"


def _refuse_transitions(element: Element) -> None:
    """Raises InvalidArgument where it could not be carried out anywhere, else NotImplemented."""
    for name in _TRANSITIONS:
        for transition in element.all(name):
            if transition.find("Date") is not None:
                _date_ms(transition.value("Date") or "")
            raise S3Error("NotImplemented", f"{name} is not implemented: there is no storage class to move objects to.")


def parse_minimum_size(text: str | None) -> str:
    """The header that says how small objects are that transitions leave alone.  Raises InvalidRequest."""
    if text is None:
        return MINIMUM_SIZES[0]
    if text not in MINIMUM_SIZES:
        raise S3Error("InvalidRequest", f"The value of {MINIMUM_SIZE_HEADER} is invalid.")
    return text


# --- the document out


def lifecycle_xml(rules: Sequence[LifecycleRule]) -> bytes:
    """GetBucketLifecycleConfiguration; says what was put."""
    return document("LifecycleConfiguration", "".join(map(_rule_xml, rules)))


def _rule_xml(rule: LifecycleRule) -> str:
    expiration = _row("Days", rule.days)
    if rule.date_ms is not None:
        date = datetime.fromtimestamp(rule.date_ms // 1000, UTC)
        expiration += _row("Date", f"{date:%Y-%m-%dT%H:%M:%S}.000Z")
    if rule.expired_marker is not None:
        expiration += _row("ExpiredObjectDeleteMarker", "true" if rule.expired_marker else "false")
    noncurrent = _row("NoncurrentDays", rule.noncurrent_days) + _row("NewerNoncurrentVersions", rule.newer_versions)
    parts = [
        _row("ID", rule.id),
        _row("Prefix", rule.prefix),
        _filter_xml(rule),
        _row("Status", "Enabled" if rule.enabled else "Disabled"),
        _wrapped("Expiration", expiration),
        _wrapped("NoncurrentVersionExpiration", noncurrent),
        _wrapped("AbortIncompleteMultipartUpload", _row("DaysAfterInitiation", rule.abort_days)),
    ]
    return f"<Rule>{''.join(parts)}</Rule>"


def _filter_xml(rule: LifecycleRule) -> str:
    if rule.filter is None:
        return ""
    both = _wrapped("And", _terms_xml(rule.all_of)) if rule.all_of is not None else ""
    return f"<Filter>{_terms_xml(rule.filter)}{both}</Filter>"


def _terms_xml(terms: Terms) -> str:
    tags = [f"<Tag>{_row('Key', key)}{_row('Value', value)}</Tag>" for key, value in terms.tags.items()]
    larger = _row("ObjectSizeGreaterThan", terms.larger_than_bytes)
    return _row("Prefix", terms.prefix) + "".join(tags) + larger + _row("ObjectSizeLessThan", terms.smaller_than_bytes)


def _row(name: str, value: object) -> str:
    return "" if value is None else f"<{name}>{escape(str(value))}</{name}>"


def _wrapped(name: str, content: str) -> str:
    return f"<{name}>{content}</{name}>" if content else ""
