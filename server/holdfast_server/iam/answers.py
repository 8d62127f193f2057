"""Answers of the query protocol as XML.  A mapping becomes elements, a list `<member>`s, `Entries` a map.  Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from holdfast_server.iam.errors import IamError
from holdfast_server.iam.operations import STS, Operation
from holdfast_server.s3.xml_text import DECLARATION, escape

_NAMESPACES = {"iam": "https://iam.amazonaws.com/doc/2010-05-08/", STS: "https://sts.amazonaws.com/doc/2011-06-15/"}
XML_HEADERS = {"content-type": "text/xml"}


class Entries(msgspec.Struct, frozen=True):
    """A map from names to numbers."""

    items: Mapping[str, int]


Tree = "Mapping[str, Tree] | Sequence[Tree] | Entries | str | int | bool | None"
Result = Mapping[str, object]
"""None leaves an element out."""


def _xml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Entries):
        rows = [
            f"<entry><key>{escape(key)}</key><value>{number}</value></entry>" for key, number in value.items.items()
        ]
        return "".join(rows)
    if isinstance(value, Mapping):
        return "".join(f"<{key}>{_xml(item)}</{key}>" for key, item in value.items() if item is not None)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "".join(f"<member>{_xml(item)}</member>" for item in value)
    return escape(str(value))


def answer_xml(operation: Operation, result: Result, request_id: str) -> bytes:
    name, namespace = operation.name, _NAMESPACES[operation.service]
    inner = f"<{name}Result>{_xml(result)}</{name}Result>"  # empty ones too: some clients look for them
    return (
        f'{DECLARATION}<{name}Response xmlns="{namespace}">{inner}<ResponseMetadata><RequestId>{escape(request_id)}'
        f"</RequestId></ResponseMetadata></{name}Response>"
    ).encode()


def error_xml(error: IamError, service: str, request_id: str) -> bytes:
    told = {"Type": "Sender" if error.status < 500 else "Receiver", "Code": error.code, "Message": error.message}
    return (
        f'{DECLARATION}<ErrorResponse xmlns="{_NAMESPACES[service]}"><Error>{_xml(told)}</Error>'
        f"<RequestId>{escape(request_id)}</RequestId></ErrorResponse>"
    ).encode()


def date(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds // 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"
