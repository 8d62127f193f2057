"""What an account with many users costs: its lists are made on the event loop, while everybody else waits."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast_server.api.identities import Identities
from holdfast_server.api.user_documents import User, UserDocument, encode_user
from holdfast_server.auth.principal import Principal
from holdfast_server.auth.verified import Identity
from holdfast_server.iam import policies, users
from holdfast_server.iam.call import IamCall
from holdfast_server.iam.parameters import Parameters
from holdfast_server.s3.request import Request
from holdfast_server.s3.sigv4 import SigningContext
from holdfast_server.testing.memory_services import memory_services

USERS = 40


@pytest.fixture
async def call() -> IamCall:
    """Of root, in a tenant that declares so many users."""
    services = memory_services()
    for number in range(USERS):
        key = f"KEY-{number}"
        secret = services.identities.secrets.seal(key, "a-secret-of-enough-length")
        document = UserDocument(secret=secret, name=f"user-{number}", policies=["readwrite"])
        await services.objects.put_document(f"user/{key}", encode_user(document))
    await services.identities.refresh()
    request = Request(method="POST", raw_path="/", raw_query="", headers={}, remote="", received_ms=0, secure=False)
    root = Principal(access_key="root-key", user_name="root", is_root=True)
    return IamCall(services, Identity(root, SigningContext("")), request, Parameters({"Scope": "AWS"}))


async def test_policies_are_listed_with_one_look_at_the_users(call: IamCall, monkeypatch: pytest.MonkeyPatch) -> None:
    """One for each policy and user, all users in order, took 13 s of a thousand users: no probe was answered."""
    looks = 0
    users_of = Identities.users

    def counted(identities: Identities) -> list[User]:
        nonlocal looks
        looks += 1
        return users_of(identities)

    monkeypatch.setattr(Identities, "users", counted)
    listed: Any = (await policies.list_policies(call))["Policies"]
    assert {one["PolicyName"]: one["AttachmentCount"] for one in listed if one["AttachmentCount"]} == {
        "readwrite": USERS
    }
    assert looks <= 2


async def test_a_user_that_comes_or_goes_is_listed_at_once(call: IamCall) -> None:
    async def names() -> list[str]:
        listed: Any = (await users.list_users(call))["Users"]
        return [one["UserName"] for one in listed]

    assert len(await names()) == USERS
    await call.services.objects.delete_document("user/KEY-7")
    await call.tell(["user/KEY-7"])
    assert "user-7" not in await names()
    assert call.identities.keys_of("", "user-7") == []
    (key,) = call.identities.keys_of("", "USER-8")
    assert key.access_key == "KEY-8"
