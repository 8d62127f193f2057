"""What keeps the versions of an object apart (docs/decisions/0009-versions.md), broken."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

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
