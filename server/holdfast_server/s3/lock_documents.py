"""Object Lock's documents and headers: a bucket's configuration, an object's retention and legal hold.  Pure.

Times are milliseconds since 1970; what a client gives more exactly is rounded up, so that no lock ends before the
moment it named.  Reference: PutObjectLockConfiguration, PutObjectRetention and PutObjectLegalHold in the API reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import msgspec

from holdfast_server.s3.documents_out import document
from holdfast_server.s3.errors import S3Error, invalid_argument
from holdfast_server.s3.headers import iso_date
from holdfast_server.s3.xml_tree import Element, parse

MAX_LOCK_SIZE_BYTES = 16 << 10
MAX_DAYS = 36_500
MAX_YEARS = 100
MODES = ("GOVERNANCE", "COMPLIANCE")

MODE_HEADER = "x-amz-object-lock-mode"
UNTIL_HEADER = "x-amz-object-lock-retain-until-date"
HOLD_HEADER = "x-amz-object-lock-legal-hold"
BYPASS_HEADER = "x-amz-bypass-governance-retention"
MAX_UNTIL_MS = 253_402_300_799_999
"""The end of the year 9999."""
_LATEST = datetime(9999, 12, 31, tzinfo=UTC)
"""A default retention that would end later ends then."""


class DefaultRetention(msgspec.Struct, frozen=True):
    """What a bucket's new objects get; either days or years, the other 0."""

    mode: str
    days: int = 0
    years: int = 0

    def until_ms(self, since_ms: int) -> int:
        """Years are those of the calendar; February 29 becomes March 1."""
        since = datetime.fromtimestamp(since_ms // 1000, UTC)
        if self.years:
            year = min(since.year + self.years, _LATEST.year)
            try:
                until = since.replace(year=year)
            except ValueError:
                until = since.replace(year=year, month=3, day=1)
        else:
            until = min(since + timedelta(days=self.days), _LATEST)
        return int(until.timestamp()) * 1000 + since_ms % 1000


class AskedLock(msgspec.Struct, frozen=True):
    """What the headers of a write ask for."""

    mode: str = ""
    until_ms: int = 0
    """Both, or neither."""
    legal_hold: bool | None = None

    @property
    def asks(self) -> bool:
        return bool(self.mode) or self.legal_hold is not None


# --- in


def _root(body: bytes, name: str) -> Element:
    if not body.strip():
        raise S3Error("MissingRequestBodyError")
    root = parse(body, MAX_LOCK_SIZE_BYTES)
    if root.name != name:
        raise S3Error("MalformedXML")
    return root


def parse_lock_configuration(body: bytes) -> DefaultRetention | None:
    """The default retention; None where there is no rule.  Raises MalformedXML, InvalidRetentionPeriod."""
    root = _root(body, "ObjectLockConfiguration")
    if root.value("ObjectLockEnabled") != "Enabled":
        raise S3Error("MalformedXML")
    rules = list(root.all("Rule"))
    if not rules:
        return None
    defaults = list(rules[0].all("DefaultRetention"))
    if len(rules) != 1 or len(defaults) != 1:
        raise S3Error("MalformedXML")
    mode, days, years = (defaults[0].value(name) for name in ("Mode", "Days", "Years"))
    if mode not in MODES or (days is None) == (years is None):
        raise S3Error("MalformedXML")
    return DefaultRetention(mode, _period(days, MAX_DAYS), _period(years, MAX_YEARS))


def _period(text: str | None, most: int) -> int:
    if text is None:
        return 0
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 19):
        raise S3Error("MalformedXML")
    if not 1 <= int(text) <= most:
        raise S3Error("InvalidRetentionPeriod", f"The retention period must be between 1 and {most}.")
    return int(text)


def parse_retention(body: bytes) -> tuple[str, int] | None:
    """Mode and date; None where both are left out, which takes the retention away.  Raises MalformedXML."""
    root = _root(body, "Retention")
    mode, until = root.value("Mode"), root.value("RetainUntilDate")
    if mode is None and until is None:
        return None
    if mode not in MODES or until is None:
        raise S3Error("MalformedXML")
    try:
        return mode, parse_until(until)
    except ValueError as error:
        raise S3Error("MalformedXML") from error


def parse_legal_hold(body: bytes) -> bool:
    """Raises MalformedXML."""
    status = _root(body, "LegalHold").value("Status")
    if status not in ("ON", "OFF"):
        raise S3Error("MalformedXML")
    return status == "ON"


def parse_until(text: str) -> int:
    """An ISO 8601 date and time, of UTC where it does not say.  Raises ValueError."""
    if "T" not in text.upper():
        raise ValueError("a date without a time")
    when = datetime.fromisoformat(text)
    since = (when if when.tzinfo else when.replace(tzinfo=UTC)) - datetime.fromtimestamp(0, UTC)
    until_ms = -(-since // timedelta(milliseconds=1))
    if not 0 <= until_ms <= MAX_UNTIL_MS:
        raise ValueError("not within the years 1970 to 9999")
    return until_ms


def lock_of_headers(headers: Mapping[str, str], now_ms: int) -> AskedLock:
    """What a write asks for its object.  Raises InvalidArgument."""
    mode, until, hold = (headers.get(name, "") for name in (MODE_HEADER, UNTIL_HEADER, HOLD_HEADER))
    if hold not in ("", "ON", "OFF"):
        raise invalid_argument("Legal Hold must be either of 'ON' or 'OFF'", HOLD_HEADER, hold)
    if bool(mode) != bool(until):
        name = MODE_HEADER if until else UNTIL_HEADER
        raise invalid_argument(f"{UNTIL_HEADER} and {MODE_HEADER} must both be supplied", name, "")
    until_ms = 0
    if mode:
        if mode not in MODES:
            raise invalid_argument("Unknown wormMode directive.", MODE_HEADER, mode)
        try:
            until_ms = parse_until(until)
        except ValueError as error:
            text = "The retain until date must be provided in ISO 8601 format"
            raise invalid_argument(text, UNTIL_HEADER, until) from error
        check_future(until_ms, now_ms)
    return AskedLock(mode, until_ms, hold == "ON" if hold else None)


def check_future(until_ms: int, now_ms: int) -> None:
    """Raises InvalidArgument."""
    if until_ms <= now_ms:
        raise invalid_argument("The retain until date must be in the future!", UNTIL_HEADER, str(until_ms))


# --- out


def lock_configuration_xml(default: DefaultRetention | None) -> bytes:
    rule = ""
    if default is not None:
        period = f"<Years>{default.years}</Years>" if default.years else f"<Days>{default.days}</Days>"
        rule = f"<Rule><DefaultRetention><Mode>{default.mode}</Mode>{period}</DefaultRetention></Rule>"
    return document("ObjectLockConfiguration", f"<ObjectLockEnabled>Enabled</ObjectLockEnabled>{rule}")


def retention_xml(mode: str, until_ms: int) -> bytes:
    return document("Retention", f"<Mode>{mode}</Mode><RetainUntilDate>{iso_date(until_ms)}</RetainUntilDate>")


def legal_hold_xml(on: bool) -> bytes:
    return document("LegalHold", f"<Status>{'ON' if on else 'OFF'}</Status>")
