"""An access key that is made while its user is deleted: whatever comes first, no key is left over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from holdfast_server.api.services import Services
from holdfast_server.clock.system import SystemClock
from holdfast_server.objects.port import Condition, Record
from holdfast_server.testing import boto
from holdfast_server.testing.memory_objects import MemoryObjects
from holdfast_server.testing.memory_services import memory_services, served


class Interrupted(MemoryObjects):
    """Something else happens, to its end, right before a document is written or deleted."""

    def __init__(self) -> None:
        super().__init__(SystemClock())
        self.meanwhile: dict[str, Callable[[], object]] = {}
        """Beginning of a document's name → what happens, once."""

    async def _interrupt(self, verb: str, name: str) -> None:
        for beginning in list(self.meanwhile):
            if f"{verb} {name}".startswith(beginning):
                await asyncio.to_thread(self.meanwhile.pop(beginning))

    async def put_document(self, name: str, body: bytes, condition: Condition | None = None) -> Record:
        await self._interrupt("put", name)
        return await super().put_document(name, body, condition)

    async def delete_document(self, name: str, condition: Condition | None = None) -> None:
        await self._interrupt("delete", name)
        await super().delete_document(name, condition)

    async def keys(self) -> list[str]:
        return [entry.key for entry in (await self.list_documents("user/")).entries]


@pytest.fixture
def objects() -> Interrupted:
    return Interrupted()


@pytest.fixture
def services(objects: Interrupted) -> Services:
    return memory_services(objects)


@pytest.fixture
def iam(services: Services) -> Iterator[Any]:
    with served(services) as endpoint:
        client = boto.client_of(endpoint, endpoint.access_key, endpoint.secret_key, service="iam", session_token="")
        client.create_user(UserName="ann")
        yield client


def code_of(call: Any, **arguments: Any) -> str:
    with pytest.raises(ClientError) as raised:
        call(**arguments)
    return str(raised.value.response["Error"]["Code"])


@pytest.mark.parametrize("again", [False, True], ids=["gone", "another of that name"])
def test_a_key_that_comes_after_its_users_end_is_taken_back(iam: Any, objects: Interrupted, again: bool) -> None:
    def end() -> None:
        iam.delete_user(UserName="ann")
        if again:
            iam.create_user(UserName="ann")

    objects.meanwhile["put user/AKIA"] = end
    assert code_of(iam.create_access_key, UserName="ann") == "NoSuchEntity"
    assert asyncio.run(objects.keys()) == []
    if again:
        assert iam.list_access_keys(UserName="ann")["AccessKeyMetadata"] == []


def test_a_key_that_comes_before_its_users_end_goes_with_it(iam: Any, objects: Interrupted) -> None:
    made: list[str] = []

    def make() -> None:
        made.append(iam.create_access_key(UserName="ann")["AccessKey"]["AccessKeyId"])

    objects.meanwhile["delete iam/user/"] = make
    iam.delete_user(UserName="ann")
    assert made
    assert asyncio.run(objects.keys()) == []


def test_a_key_that_this_pod_was_not_told_of_keeps_its_user(iam: Any, objects: Interrupted, services: Services) -> None:
    made = iam.create_access_key(UserName="ann")["AccessKey"]["AccessKeyId"]
    services.identities._users.pop(made)
    assert code_of(iam.delete_user, UserName="ann") == "DeleteConflict"
    assert asyncio.run(objects.keys()) == [f"user/{made}"]
