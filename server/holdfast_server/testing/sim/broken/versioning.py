"""What keeps the versions of an object apart (docs/decisions/0009-versions.md), broken."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

from holdfast_server.objects import versions
from holdfast_server.objects.record import Record
from holdfast_server.objects.versions import Versions


def nothing_comes_to_rest() -> AbstractContextManager[Any]:
    """What is current is replaced without having been brought to rest."""

    async def to_rest(*_: Any) -> None:
        return None

    return mock.patch.object(Versions, "_to_rest", to_rest)


def deleted_versions_come_to_rest() -> AbstractContextManager[Any]:
    """No bar keeps a version that is being deleted from coming to rest."""

    async def bar(*_: Any) -> None:
        return None

    return mock.patch.object(Versions, "_bar", bar)


def bars_outlive_what_they_barred() -> AbstractContextManager[Any]:
    """A bar counts, though the version was amended since."""

    def bars(found: Record | None, _: Record) -> bool:
        return found is not None and found.deleted

    return mock.patch.object(versions, "_bars", bars)


def claims_are_not_broken() -> AbstractContextManager[Any]:
    """A claimed version is deleted or amended while another makes it current."""

    async def disclaim(*_: Any) -> None:
        return None

    return mock.patch.object(Versions, "_disclaim", disclaim)


def nobody_claims() -> AbstractContextManager[Any]:
    """What is to become current is not claimed."""

    async def claim(*_: Any) -> None:
        return None

    return mock.patch.object(Versions, "_claim", claim)


def judged_once() -> AbstractContextManager[Any]:
    """Whether a version is locked is asked when it is found, and not when it is deleted."""
    honest = Versions._delete_current

    async def delete_current(self: Versions, found: Any, version: bytes, _: Any) -> None:
        await honest(self, found, version, lambda there: None)

    return mock.patch.object(Versions, "_delete_current", delete_current)
