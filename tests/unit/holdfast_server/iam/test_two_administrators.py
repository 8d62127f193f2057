"""What one administrator changes through a pod while another renames or deletes through the next: both count, and
nothing is left that nobody can take away."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from holdfast_server.objects.port import Unavailable
from holdfast_server.testing import boto
from holdfast_server.testing.interrupted_objects import InterruptedObjects
from holdfast_server.testing.memory_services import memory_services, served

DENY = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "*", "Resource": "*"}]})


@pytest.fixture
def objects() -> InterruptedObjects:
    return InterruptedObjects()


@pytest.fixture
def pods(objects: InterruptedObjects) -> Iterator[tuple[Any, Any]]:
    """Clients of two pods, which tell each other nothing."""
    with served(memory_services(objects)) as one, served(memory_services(objects)) as other:
        yield tuple(boto.client_of(pod, pod.access_key, pod.secret_key, service="iam") for pod in (one, other))


@pytest.mark.parametrize("verb", ["put", "delete"])
def test_a_policy_that_is_put_while_its_user_is_renamed_is_kept(
    pods: tuple[Any, Any], objects: InterruptedObjects, verb: str
) -> None:
    one, other = pods
    one.create_user(UserName="ann")
    objects.meanwhile[f"{verb} iam/"] = lambda: other.put_user_policy(
        UserName="ann", PolicyName="none", PolicyDocument=DENY
    )
    one.update_user(UserName="ann", NewUserName="anna")
    assert not objects.meanwhile
    for pod in pods:
        assert pod.list_user_policies(UserName="anna")["PolicyNames"] == ["none"]


def test_a_policy_that_is_put_while_its_group_is_renamed_is_kept(
    pods: tuple[Any, Any], objects: InterruptedObjects
) -> None:
    one, other = pods
    one.create_group(GroupName="staff")
    objects.meanwhile["delete iam/"] = lambda: other.put_group_policy(
        GroupName="staff", PolicyName="none", PolicyDocument=DENY
    )
    one.update_group(GroupName="staff", NewGroupName="crew")
    assert other.list_group_policies(GroupName="crew")["PolicyNames"] == ["none"]


def test_two_who_rename_a_user_to_the_same_name_are_both_told_that_it_is_so(
    pods: tuple[Any, Any], objects: InterruptedObjects
) -> None:
    one, other = pods
    one.create_user(UserName="ann")
    objects.meanwhile["delete iam/"] = lambda: other.update_user(UserName="ann", NewUserName="anna")
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


def die_half_way(objects: InterruptedObjects, rename: Any, **names: str) -> None:
    """The pod that renames dies before the old document goes."""

    def dies(verb: str) -> None:
        if verb == "delete_document":
            raise Unavailable("gone")

    objects.failure = dies
    with pytest.raises(ClientError):
        rename(**names)
    objects.failure = None


@pytest.mark.parametrize("kind", ["User", "Group"])
def test_a_rename_that_died_keeps_nobody_from_the_old_name(
    pods: tuple[Any, Any], objects: InterruptedObjects, kind: str
) -> None:
    one, _ = pods
    verb = kind.lower()
    create, rename, get = (getattr(one, f"{what}_{verb}") for what in ("create", "update", "get"))
    create(**{f"{kind}Name": "ann"})
    create(**{f"{kind}Name": "bob"})
    die_half_way(objects, rename, **{f"{kind}Name": "ann", f"New{kind}Name": "anna"})
    first = get(**{f"{kind}Name": "anna"})[kind]
    second = create(**{f"{kind}Name": "ann"})[kind]
    assert second[f"{kind}Id"] != first[f"{kind}Id"]
    die_half_way(objects, rename, **{f"{kind}Name": "ann", f"New{kind}Name": "ann2"})
    assert get(**{f"{kind}Name": "ann2"})[kind][f"{kind}Id"] == second[f"{kind}Id"]
    rename(**{f"{kind}Name": "bob", f"New{kind}Name": "ann"})
    names = [found[f"{kind}Name"] for found in getattr(one, f"list_{verb}s")()[f"{kind}s"]]
    assert names == ["ann", "ann2", "anna"]


def test_who_is_deleted_does_not_come_back_under_a_former_name(
    pods: tuple[Any, Any], objects: InterruptedObjects
) -> None:
    one, _ = pods
    one.create_user(UserName="ann")
    die_half_way(objects, one.update_user, UserName="ann", NewUserName="anna")
    one.update_user(UserName="anna", NewUserName="anne")
    one.delete_user(UserName="anne")
    assert one.list_users()["Users"] == []
    one.create_user(UserName="ann")
