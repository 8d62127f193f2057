"""An access key that is made while its user is deleted: whatever comes first, no key is left over."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from holdfast_server.api.services import Services
from holdfast_server.testing import boto
from holdfast_server.testing.boto import refusal
from holdfast_server.testing.interrupted_objects import InterruptedObjects
from holdfast_server.testing.memory_services import memory_services, served


def keys_in(objects: InterruptedObjects) -> list[str]:
    return [entry.key for entry in asyncio.run(objects.list_documents("user/")).entries]


@pytest.fixture
def objects() -> InterruptedObjects:
    return InterruptedObjects()


@pytest.fixture
def services(objects: InterruptedObjects) -> Services:
    return memory_services(objects)


@pytest.fixture
def iam(services: Services) -> Iterator[Any]:
    with served(services) as endpoint:
        client = boto.client_of(endpoint, endpoint.access_key, endpoint.secret_key, service="iam", session_token="")
        client.create_user(UserName="ann")
        yield client


@pytest.mark.parametrize("again", [False, True], ids=["gone", "another of that name"])
def test_a_key_that_comes_after_its_users_end_is_taken_back(iam: Any, objects: InterruptedObjects, again: bool) -> None:
    def end() -> None:
        iam.delete_user(UserName="ann")
        if again:
            iam.create_user(UserName="ann")

    objects.meanwhile["put user/AKIA"] = end
    assert refusal(iam.create_access_key, UserName="ann") == "NoSuchEntity"
    assert keys_in(objects) == []
    if again:
        assert iam.list_access_keys(UserName="ann")["AccessKeyMetadata"] == []


def test_a_key_that_comes_before_its_users_end_goes_with_it(iam: Any, objects: InterruptedObjects) -> None:
    made: list[str] = []

    def make() -> None:
        made.append(iam.create_access_key(UserName="ann")["AccessKey"]["AccessKeyId"])

    objects.meanwhile["delete iam/user/"] = make
    iam.delete_user(UserName="ann")
    assert made
    assert keys_in(objects) == []


def test_a_key_that_this_pod_was_not_told_of_keeps_its_user(
    iam: Any, objects: InterruptedObjects, services: Services
) -> None:
    made = iam.create_access_key(UserName="ann")["AccessKey"]["AccessKeyId"]
    services.identities._users.pop(made)
    assert refusal(iam.delete_user, UserName="ann") == "DeleteConflict"
    assert keys_in(objects) == [f"user/{made}"]
