"""What one administrator changes through a pod while another renames or deletes through the next: both count, and
nothing is left that nobody can take away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from holdfast_server.clock.system import SystemClock
from holdfast_server.objects.port import Condition, Record
from holdfast_server.testing import boto
from holdfast_server.testing.memory_objects import MemoryObjects
from holdfast_server.testing.memory_services import memory_services, served

DENY = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "*", "Resource": "*"}]})


class Interrupted(MemoryObjects):
    """Something else happens, to its end, right before a document is put, or deleted."""

    def __init__(self) -> None:
        super().__init__(SystemClock())
        self.meanwhile: dict[str, Callable[[], object]] = {}
        """Verb → what happens, once."""

    async def _interrupt(self, verb: str, name: str) -> None:
        if name.startswith("iam/") and verb in self.meanwhile:
            await asyncio.to_thread(self.meanwhile.pop(verb))

    async def put_document(self, name: str, body: bytes, condition: Condition | None = None) -> Record:
        await self._interrupt("put", name)
        return await super().put_document(name, body, condition)

    async def delete_document(self, name: str, condition: Condition | None = None) -> None:
        await self._interrupt("delete", name)
        await super().delete_document(name, condition)


@pytest.fixture
def objects() -> Interrupted:
    return Interrupted()


@pytest.fixture
def pods(objects: Interrupted) -> Iterator[tuple[Any, Any]]:
    """Clients of two pods, which tell each other nothing."""
    with served(memory_services(objects)) as one, served(memory_services(objects)) as other:
        yield tuple(boto.client_of(pod, pod.access_key, pod.secret_key, service="iam") for pod in (one, other))


@pytest.mark.parametrize("verb", ["put", "delete"])
def test_a_policy_that_is_put_while_its_user_is_renamed_is_kept(
    pods: tuple[Any, Any], objects: Interrupted, verb: str
) -> None:
    one, other = pods
    one.create_user(UserName="ann")
    objects.meanwhile[verb] = lambda: other.put_user_policy(UserName="ann", PolicyName="none", PolicyDocument=DENY)
    one.update_user(UserName="ann", NewUserName="anna")
    assert not objects.meanwhile
    for pod in pods:
        assert pod.list_user_policies(UserName="anna")["PolicyNames"] == ["none"]


def test_a_policy_that_is_put_while_its_group_is_renamed_is_kept(pods: tuple[Any, Any], objects: Interrupted) -> None:
    one, other = pods
    one.create_group(GroupName="staff")
    objects.meanwhile["delete"] = lambda: other.put_group_policy(
        GroupName="staff", PolicyName="none", PolicyDocument=DENY
    )
    one.update_group(GroupName="staff", NewGroupName="crew")
    assert other.list_group_policies(GroupName="crew")["PolicyNames"] == ["none"]


def test_two_who_rename_a_user_to_the_same_name_are_both_told_that_it_is_so(
    pods: tuple[Any, Any], objects: Interrupted
) -> None:
    one, other = pods
    one.create_user(UserName="ann")
    objects.meanwhile["delete"] = lambda: other.update_user(UserName="ann", NewUserName="anna")
    one.update_user(UserName="ann", NewUserName="anna")
    assert one.get_user(UserName="anna")["User"]["UserName"] == "anna"


def test_a_group_that_goes_while_somebody_joins_it_does_not_keep_the_user(pods: tuple[Any, Any]) -> None:
    """Nobody can be removed from it any more."""
    one, other = pods
    one.create_user(UserName="ann")
    one.create_group(GroupName="staff")
    other.add_user_to_group(UserName="ann", GroupName="staff")  # of which the first pod was not told
    one.delete_group(GroupName="staff")
    assert one.list_groups_for_user(UserName="ann")["Groups"] == []
    one.delete_user(UserName="ann")


@pytest.mark.parametrize("kind", ["User", "Group"])
def test_a_policy_that_goes_while_it_is_attached_keeps_nobody(pods: tuple[Any, Any], kind: str) -> None:
    """No list shows it."""
    one, other = pods
    arn = one.create_policy(PolicyName="none", PolicyDocument=DENY)["Policy"]["Arn"]
    name = {f"{kind}Name": "ann"}
    getattr(one, f"create_{kind.lower()}")(**name)
    getattr(other, f"attach_{kind.lower()}_policy")(**name, PolicyArn=arn)  # of which the first pod was not told
    one.delete_policy(PolicyArn=arn)
    assert getattr(one, f"list_attached_{kind.lower()}_policies")(**name)["AttachedPolicies"] == []
    getattr(one, f"delete_{kind.lower()}")(**name)
