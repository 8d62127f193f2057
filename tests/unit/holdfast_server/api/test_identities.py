"""Users and policies in memory: secrets sealed, unknown keys looked up at a bounded rate, changes seen."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from holdfast_server.api.identities import (
    LOOK_UPS_PER_SECOND,
    REFRESH_SECONDS,
    Identities,
    Resealed,
)
from holdfast_server.api.session_tokens import Session
from holdfast_server.api.user_documents import SecretBox, UserDocument
from holdfast_server.auth.entities import RoleEntity, encode_entity
from holdfast_server.clock.system import SystemClock
from holdfast_server.objects.port import Listing, Record, Unavailable
from holdfast_server.s3.errors import S3Error
from holdfast_server.testing.memory_objects import MemoryObjects

KEY = b"peer key"


def identities_over(objects: MemoryObjects) -> Identities:
    return Identities(objects, SystemClock(), lambda: [KEY], lambda: [("root", "root-secret")])


async def put_user(objects: MemoryObjects, identities: Identities, access_key: str, **fields: object) -> None:
    secret = identities.secrets.seal(access_key, f"secret-of-{access_key}")
    document = msgspec.convert({"secret": secret, **fields}, UserDocument)
    await objects.put_document(f"user/{access_key}", msgspec.json.encode(document))


def test_secrets_are_sealed_to_their_user_and_key() -> None:
    box = SecretBox(lambda: [KEY], SystemClock())
    sealed = box.seal("alice", "the secret")
    assert "secret" not in sealed
    assert box.open("alice", sealed) == "the secret"
    with pytest.raises(ValueError):
        box.open("mallory", sealed)
    with pytest.raises(ValueError):
        SecretBox(lambda: [b"another"], SystemClock()).open("alice", sealed)


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


async def test_only_what_has_changed_is_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every five seconds all secrets were: a second of nothing else, with 20,000 users."""
    objects, keys, opened = MemoryObjects(SystemClock()), [KEY], []
    identities = Identities(objects, SystemClock(), lambda: keys, list)
    await objects.put_document("policy/own", POLICY)
    for name in ("alice", "bob"):
        await put_user(objects, identities, name, policies=["own"])
    of_box = SecretBox.open

    def noted(box: SecretBox, access_key: str, sealed: str) -> str:
        opened.append(access_key)
        return of_box(box, access_key, sealed)

    monkeypatch.setattr(SecretBox, "open", noted)

    async def opened_anew() -> list[str]:
        opened.clear()
        await identities.refresh()
        assert [user.policies for user in identities.users()] == [("own",), ("own",)]
        return opened

    assert await opened_anew() == ["alice", "bob"]
    policy = identities.policy("own")
    assert await opened_anew() == []
    assert identities.policy("own") is policy
    await put_user(objects, identities, "bob", policies=["own"], enabled=False)
    await objects.put_document("policy/own", POLICY.replace(b"Allow", b"Deny"))
    assert await opened_anew() == ["bob"]
    assert identities.credentials("bob") is None
    assert identities.policy("own").statements[0].effect == "Deny"
    keys.append(b"the next peer key")
    assert await opened_anew() == ["alice", "bob"]
    keys.remove(KEY)
    await identities.refresh()
    assert identities.users() == [], "what nothing opens any more counts for nothing"


async def test_an_unknown_key_is_looked_up_directly() -> None:
    objects = MemoryObjects(SystemClock())
    identities = identities_over(objects)
    await identities.refresh()
    await put_user(objects, identities, "late")
    assert not await identities.look_up("nobody")
    assert await identities.look_up("late")
    assert identities.credentials("late") is not None


POLICY = b'{"Statement":{"Effect":"Allow","Action":"s3:PutObject","Resource":"arn:aws:s3:::b/*"}}'


@pytest.mark.parametrize("way", ["looked up", "announced"])
async def test_a_user_is_not_known_before_its_policies_are(way: str) -> None:
    """A pod that has just started must not refuse what the user may do, while it reads the second document."""
    objects = MemoryObjects(SystemClock())
    identities = identities_over(objects)
    await put_user(objects, identities, "alice", policies=["own", "nobody-defined-it"])
    await objects.put_document("policy/own", POLICY)
    seen: list[object] = []
    objects.failure = lambda operation: seen.append(identities.credentials("alice"))
    if way == "looked up":
        assert await identities.look_up("alice")
    else:
        await identities.announced(["user/alice"])
    assert len(seen) >= 3
    assert set(seen) == {None}, "known with a part of its policies"
    alice = identities.credentials("alice")
    assert alice is not None
    assert len(alice.principal.policies) == 1


async def test_a_key_that_is_no_text_is_nobodys_and_not_looked_up() -> None:
    """Bytes that are not UTF-8 come as lone surrogates, in which no document can be named."""
    objects = MemoryObjects(SystemClock())
    identities = identities_over(objects)
    await identities.refresh()
    asked: list[str] = []
    objects.failure = asked.append
    assert not await identities.look_up("\udc8aoldfast-root")
    assert not await identities.look_up("a\x00b")
    assert asked == []


async def test_a_user_whose_policies_cannot_be_read_stays_unknown() -> None:
    objects = MemoryObjects(SystemClock())
    identities = identities_over(objects)
    await put_user(objects, identities, "alice", policies=["own"])
    await objects.put_document("policy/own", POLICY)
    calls: list[str] = []

    def fails(operation: str) -> None:
        calls.append(operation)
        if len(calls) == 2:
            raise Unavailable("too few drives answer")

    objects.failure = fails
    with pytest.raises(Unavailable):
        await identities.look_up("alice")
    assert identities.credentials("alice") is None, "it would be refused what it may do"
    assert await identities.look_up("alice")
    alice = identities.credentials("alice")
    assert alice is not None
    assert len(alice.principal.policies) == 1


class CountedClock(SystemClock):
    """Sleeps not at all, and ends who sleeps too often."""

    def __init__(self, most: int) -> None:
        self.slept: list[float] = []
        self._most = most

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if len(self.slept) >= self._most:
            raise asyncio.CancelledError


async def test_what_keeps_users_from_being_read_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """A pod without enough drives stays so for long, and asks every second."""
    clock = CountedClock(most=40)
    objects = MemoryObjects(clock)

    def fail(verb: str) -> None:
        raise Unavailable("0 drives can be listed" if len(clock.slept) < 20 else "one drive can be listed")

    objects.failure = fail
    with pytest.raises(asyncio.CancelledError):
        await Identities(objects, clock, lambda: [KEY], lambda: [("root", "root-secret")]).keep_fresh()
    lines = [record.getMessage() for record in caplog.records if "could not be refreshed" in record.getMessage()]
    assert len(lines) == 2
    assert lines[0].endswith("0 drives can be listed")
    assert lines[1].endswith("one drive can be listed")


async def test_what_is_not_loaded_yet_is_asked_for_again_soon() -> None:
    clock = CountedClock(most=8)
    objects = MemoryObjects(clock)

    def fail(verb: str) -> None:
        if len(clock.slept) < 6:
            raise Unavailable("no quorum yet")

    objects.failure = fail
    identities = Identities(objects, clock, lambda: [KEY], lambda: [("root", "root-secret")])
    with pytest.raises(asyncio.CancelledError):
        await identities.keep_fresh()
    assert identities.loaded
    assert clock.slept == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0, REFRESH_SECONDS, REFRESH_SECONDS]


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


async def test_secrets_sealed_with_a_former_peer_key_are_read_and_brought_under_the_new_one() -> None:
    objects = MemoryObjects(SystemClock())
    await put_user(objects, identities_over(objects), "alice", policies=["readonly"])
    await objects.put_document("user/bad", b"no json")
    both = Identities(objects, SystemClock(), lambda: [b"new key", KEY], list)
    alone = Identities(objects, SystemClock(), lambda: [b"new key"], list)
    await alone.refresh()
    assert alone.credentials("alice") is None
    await both.refresh()
    assert both.credentials("alice").secret_key == "secret-of-alice"
    assert await both.reseal() == Resealed(done=1, left=0, unreadable=1)
    assert await both.reseal() == Resealed(done=0, left=0, unreadable=1)
    await alone.refresh()
    assert alone.credentials("alice").secret_key == "secret-of-alice"
    assert alone.users()[0].policies == ("readonly",)


async def test_a_user_that_changes_while_it_is_resealed_is_left_for_the_next_time() -> None:
    objects = MemoryObjects(SystemClock())
    before = identities_over(objects)
    await put_user(objects, before, "alice")
    both = Identities(objects, SystemClock(), lambda: [b"new key", KEY], list)
    stale = (await objects.get_document("user/alice")).body
    await put_user(objects, before, "alice", policies=["readwrite"])
    both._read_all = lambda prefix: _answer({"alice": stale})  # type: ignore[method-assign]
    assert await both.reseal() == Resealed(done=0, left=1, unreadable=0)
    await before.refresh()
    assert before.users()[0].policies == ("readwrite",)


async def _answer(value: dict[str, bytes]) -> dict[str, bytes]:
    return value


async def test_several_root_pairs_are_valid_and_may_share_an_access_key() -> None:
    pairs = [("new", "n" * 8), ("old", "o" * 8), ("new", "before-n")]
    identities = Identities(MemoryObjects(SystemClock()), SystemClock(), lambda: [KEY], lambda: pairs)
    new, old = identities.credentials("new"), identities.credentials("old")
    assert (new.secret_key, new.former_secret_keys, new.principal.is_root) == ("n" * 8, ("before-n",), True)
    assert (old.secret_key, old.former_secret_keys, old.principal.is_root) == ("o" * 8, (), True)
    del pairs[1:]
    assert identities.credentials("old") is None
    assert identities.root_access_keys == {"new"}


async def test_a_user_may_have_former_secrets() -> None:
    objects = MemoryObjects(SystemClock())
    identities = identities_over(objects)
    await put_user(objects, identities, "alice", former=[identities.secrets.seal("alice", "the-one-before")])
    await identities.refresh()
    assert identities.credentials("alice").former_secret_keys == ("the-one-before",)


async def test_sessions_of_root_outlive_a_rotation_until_the_former_key_is_dropped() -> None:
    objects = MemoryObjects(SystemClock())
    pairs = [("root", "before")]
    identities = Identities(objects, SystemClock(), lambda: [KEY], lambda: pairs)
    now_ms = SystemClock().now_ms()
    parent, mark = identities.hold_of("root", "", 0)
    session = Session(secret="s", issued_ms=now_ms, expires_ms=now_ms + 60_000, parent=parent, parent_mark=mark)
    issued = identities.tokens.issue(session)
    assert identities.known(issued.access_key, issued.token).principal.is_root
    pairs[:] = [("root", "after"), ("root", "before")]
    again = identities.known(issued.access_key, issued.token)
    assert again.principal.is_root
    assert identities.hold_of(issued.access_key, issued.token, 0) == (parent, mark), "its sessions hang on no later key"
    pairs[:] = [("root", "after")]
    with pytest.raises(S3Error, match="InvalidAccessKeyId"):
        identities.known(issued.access_key, issued.token)


async def test_sessions_live_on_while_the_peer_key_changes_and_end_with_the_former() -> None:
    objects = MemoryObjects(SystemClock())
    keys = [KEY]
    identities = Identities(objects, SystemClock(), lambda: keys, lambda: [("root", "root-secret")])
    now_ms = SystemClock().now_ms()
    parent, mark = identities.hold_of("root", "", 0)
    session = Session(secret="s", issued_ms=now_ms, expires_ms=now_ms + 60_000, parent=parent, parent_mark=mark)
    issued = identities.tokens.issue(session)
    keys[:] = [b"the next", KEY]
    other_pod = Identities(objects, SystemClock(), lambda: keys, lambda: [("root", "root-secret")])
    assert other_pod.known(issued.access_key, issued.token).secret_key == "s"
    keys[:] = [b"the next"]
    fresh_pod = Identities(objects, SystemClock(), lambda: keys, lambda: [("root", "root-secret")])
    with pytest.raises(S3Error, match="InvalidToken"):
        fresh_pod.known(issued.access_key, issued.token)


async def test_a_session_is_learnt_by_a_pod_that_knows_neither_its_key_nor_its_role() -> None:
    objects = MemoryObjects(SystemClock())
    one, other = identities_over(objects), identities_over(objects)
    await other.refresh()
    await put_user(objects, one, "alice", name="alice", account="a")
    role = RoleEntity(id="AROA1", name="reader", account="a", trust="{}", inline={"p": POLICY.decode()})
    await objects.put_document(role.document_name, encode_entity(role))
    await one.refresh()
    parent, mark = one.hold_of("alice", "", 0)
    now_ms = SystemClock().now_ms()
    issued = one.tokens.issue(
        Session(
            secret="s", issued_ms=now_ms, expires_ms=now_ms + 60_000, parent=parent, parent_mark=mark, kind="role",
            account="a", role_name="reader", role_id="AROA1", session_name="me",
        )
    )  # fmt: skip
    with pytest.raises(S3Error) as raised:
        other.known(issued.access_key, issued.token)
    assert await other.learn(raised.value)
    principal = other.known(issued.access_key, issued.token).principal
    assert (principal.role is not None, len(principal.client_policies)) == (True, 1)


async def test_a_user_whose_entity_cannot_be_read_is_locked_out_rather_than_freed_of_its_denies() -> None:
    objects = MemoryObjects(SystemClock())
    identities = identities_over(objects)
    await put_user(objects, identities, "alice", name="alice", policies=["readwrite"])
    await objects.put_document("iam/user/000000000000/alice", b'{"kind":"of tomorrow"}')
    await identities.refresh()
    assert identities.credentials("alice") is None


async def test_what_clients_have_read_singly_keeps_no_pod_from_reading_everything() -> None:
    """Somebody with a key that was deleted goes on asking; a pod that missed a deletion learns of it all the same."""
    objects = MemoryObjects(SystemClock())
    identities = identities_over(objects)
    await put_user(objects, identities, "alice")
    await identities.refresh()
    await objects.delete_document("user/alice")
    listing = objects.list_documents

    async def asked_meanwhile(prefix: str, after: str = "", limit: int = 1000) -> Listing:
        page = await listing(prefix, after=after, limit=limit)
        await identities.look_up("nobody")
        return page

    objects.list_documents = asked_meanwhile
    await identities.refresh()
    assert identities.credentials("alice") is None


async def test_a_listing_brings_nothing_back_that_was_read_singly_meanwhile() -> None:
    objects = MemoryObjects(SystemClock())
    identities = identities_over(objects)
    for name in ("alice", "bob"):
        await put_user(objects, identities, name)
    await identities.refresh()
    listing = objects.list_documents

    async def changed_meanwhile(prefix: str, after: str = "", limit: int = 1000) -> Listing:
        page = await listing(prefix, after=after, limit=limit)
        if prefix == "user/":
            await objects.delete_document("user/alice")
            await put_user(objects, identities, "bob", enabled=False)
            await put_user(objects, identities, "carol")
            await identities.announced(["user/alice", "user/bob", "user/carol"])
        return page

    objects.list_documents = changed_meanwhile
    await identities.refresh()
    assert identities.credentials("alice") is None
    assert identities.credentials("bob") is None
    assert identities.credentials("carol") is not None


async def late_read(objects: MemoryObjects, identities: Identities) -> tuple[asyncio.Task[None], asyncio.Event]:
    """One of `user/alice` whose last step has read and does not go on before the event is set."""
    going_on, has_read, getting = asyncio.Event(), asyncio.Event(), objects.get_document
    seen: list[str] = []

    async def late(name: str) -> Record | None:
        document = await getting(name)
        seen.append(name)
        if seen.count("user/alice") == 2 and name == "user/alice":
            has_read.set()
            await going_on.wait()
        return document

    objects.get_document = late
    task = asyncio.create_task(identities.announced(["user/alice"]))
    await has_read.wait()
    return task, going_on


@pytest.mark.parametrize("way", ["announced", "refreshed", "refreshed around it"])
async def test_what_was_read_first_is_not_taken_over_last(way: str) -> None:
    """A key that was disabled or deleted would work on until all documents are read again."""
    objects = MemoryObjects(SystemClock())
    identities = identities_over(objects)
    await put_user(objects, identities, "alice")
    await identities.refresh()
    task, going_on = await late_read(objects, identities)
    await put_user(objects, identities, "alice", enabled=False)
    if way == "announced":
        await identities.announced(["user/alice"])
    elif way == "refreshed":
        await identities.refresh()
    else:
        listing = objects.list_documents

        async def ended_meanwhile(prefix: str, after: str = "", limit: int = 1000) -> Listing:
            page = await listing(prefix, after=after, limit=limit)
            going_on.set()
            await task
            return page

        objects.list_documents = ended_meanwhile
        await identities.refresh()
    going_on.set()
    await task
    assert identities.credentials("alice") is None
    await put_user(objects, identities, "alice")
    await identities.announced(["user/alice"])
    assert identities.credentials("alice") is not None
