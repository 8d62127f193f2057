"""Lists in pages: a marker names the last entry that was shown, so that what is made or deleted between two pages moves
nothing.  Pure."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import TypeVar

from holdfast_server.iam.answers import Result
from holdfast_server.iam.errors import IamError
from holdfast_server.iam.parameters import Parameters

T = TypeVar("T")


def page_of(
    parameters: Parameters,
    name: str,
    entries: Sequence[T],
    key: Callable[[T], str],
    show: Callable[[T], object],
) -> Result:
    """`entries` are ordered by `key`."""
    marker, size = parameters.page()
    if marker:
        try:
            after = base64.b64decode(marker, altchars=b"-_", validate=True).decode()
        except ValueError as error:
            raise IamError("ValidationError", "Marker: is none that was given.") from error
        entries = [entry for entry in entries if key(entry) > after]
    shown = entries[:size]
    more = len(entries) > len(shown)
    return {
        name: [show(entry) for entry in shown],
        "IsTruncated": more,
        "Marker": base64.urlsafe_b64encode(key(shown[-1]).encode()).decode() if more else None,
    }
