"""Users and policies in memory: secrets sealed, unknown keys looked up at a bounded rate, changes seen."""

from __future__ import annotations

import msgspec
import pytest

from holdfast_server.api.identities import LOOK_UPS_PER_SECOND, Identities, SecretBox, UserDocument
from holdfast_server.clock.system import SystemClock
from holdfast_server.objects.port import Unavailable
from holdfast_server.testing.memory_objects import MemoryObjects

KEY = b"peer key"


def identities_over(objects: MemoryObjects) -> Identities:
    return Identities(objects, SystemClock(), KEY, lambda: ("root", "root-secret"))


async def put_user(objects: MemoryObjects, identities: Identities, access_key: str, **fields: object) -> None:
    secret = identities.secrets.seal(access_key, f"secret-of-{access_key}")
    document = msgspec.convert({"secret": secret, **fields}, UserDocument)
    await objects.put_document(f"user/{access_key}", msgspec.json.encode(document))


def test_secrets_are_sealed_to_their_user_and_key() -> None:
    box = SecretBox(KEY, SystemClock())
    sealed = box.seal("alice", "the secret")
    assert "secret" not in sealed
    assert box.open("alice", sealed) == "the secret"
    with pytest.raises(ValueError):
        box.open("mallory", sealed)
    with pytest.raises(ValueError):
        SecretBox(b"another", SystemClock()).open("alice", sealed)


async def test_users_are_found_after_a_refresh_with_their_policies() -> None:
    objects = MemoryObjects(SystemClock())
    identities = identities_over(objects)
    await put_user(objects, identities, "alice", policies=["readonly", "own", "nobody-defined-it"])
    await put_user(objects, identities, "bob", enabled=False)
    document = b'{"Statement":{"Effect":"Allow","Action":"s3:PutObject","Resource":"arn:aws:s3:::b/*"}}'
    await objects.put_document("policy/own", document)
    await identities.refresh()
    alice = identities.credentials("alice")
    assert alice is not None
    assert alice.secret_key == "secret-of-alice"
    assert len(alice.principal.policies) == 2
    assert identities.credentials("bob") is None
    assert identities.credentials("root").principal.is_root
    await objects.delete_document("user/alice")
    await identities.announced(["user/alice"])
    assert identities.credentials("alice") is None


async def test_an_unknown_key_is_looked_up_directly() -> None:
    objects = MemoryObjects(SystemClock())
    identities = identities_over(objects)
    await identities.refresh()
    await put_user(objects, identities, "late")
    assert not await identities.look_up("nobody")
    assert await identities.look_up("late")
    assert identities.credentials("late") is not None


async def test_guessed_keys_do_not_flood_the_drives() -> None:
    objects = MemoryObjects(SystemClock())
    asked: list[str] = []
    objects.failure = asked.append
    identities = identities_over(objects)
    refused = 0
    for number in range(100):
        try:
            await identities.look_up(f"guess-{number}")
        except Unavailable:
            refused += 1
    assert refused > 50
    assert LOOK_UPS_PER_SECOND <= asked.count("get_document") < 2 * LOOK_UPS_PER_SECOND
    await identities.refresh()
    for number in range(100):
        assert not await identities.look_up(f"guess-{number}")
    assert asked.count("get_document") < 2 * LOOK_UPS_PER_SECOND


async def test_a_document_that_cannot_be_read_locks_out_its_user_only(caplog: pytest.LogCaptureFixture) -> None:
    objects = MemoryObjects(SystemClock())
    identities = identities_over(objects)
    await put_user(objects, identities, "good")
    await objects.put_document("user/bad", b"no json")
    await objects.put_document("policy/bad", b"no policy")
    await identities.refresh()
    assert identities.credentials("good") is not None
    assert identities.credentials("bad") is None
    assert "user bad cannot be read" in caplog.text
