"""A drive of another pod behaves as the port says: answers, errors, deadlines, lost connections."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import Any

import msgspec
import pytest
import xxhash

from holdfast_server.drives import names, port
from holdfast_server.drives.port import DriveState, Register
from holdfast_server.memory import budget
from holdfast_server.peers import calls as under_way
from holdfast_server.peers import channel, frames, link, messages, remote
from holdfast_server.peers.connection import Connection
from holdfast_server.peers.dispatch import Dispatcher
from holdfast_server.peers.handshake import Acceptor, Dialler
from holdfast_server.peers.messages import ConnectionClass, Verb
from holdfast_server.peers.naming import Resolver
from holdfast_server.peers.port import PeerError
from holdfast_server.peers.server import MAX_STRANGERS

PATIENT_SECONDS = 90.0
"""Of calls: `conftest`."""
REGISTER = Register(b"o" + b"b" * 16, "some/key", b"")
HELD = port.Held(5, False, b"record", 2, b"inline", (b"i" * 16,))


async def test_every_verb_arrives_with_its_arguments_and_its_answer_comes_back(pod: Any, connect: Any) -> None:
    drive = (await connect()).drives()[0]
    page = port.ScanPage((port.ScanEntry(REGISTER, HELD, 5, True),), b"next", False)
    listed = port.ListPage([b"n", b"o"], [5, 1 << 62], b"\1\0", [], [b"record", b""], b"next", False)
    tombstone = port.Tombstone(REGISTER, 5)
    tombstone_request = port.TombstoneRequest(REGISTER, REGISTER, 62.0, 10)
    commit = port.CommitRequest(REGISTER, HELD, port.CommitMode.HEAL, b"", 3)
    reply = port.QueryReply((HELD,), 5, 5, 0, False)
    cases: list[tuple[str, tuple[Any, ...], Any]] = [
        ("query", (REGISTER, True), reply),
        ("commit", (commit,), port.CommitReply(port.CommitStatus.STALE, 1 << 62)),
        ("commit_many", ([commit, commit],), [port.CommitReply(port.CommitStatus.OK, 5), None]),
        (
            "commit_with_shard",
            (commit, [b"a" * 1000, b"b"], [b"h" * 16, b"g" * 16]),
            port.CommitReply(port.CommitStatus.OK, 5),
        ),
        ("note", (REGISTER, 5, True), None),
        ("note_many", ([(REGISTER, 5, True), (REGISTER, 6, False)],), None),
        ("prepare", (REGISTER, 4, b"l" * 16, 2.5), port.PrepareReply(port.PrepareStatus.PROMISED, 4, False)),
        ("release", (REGISTER, b"l" * 16), None),
        ("fence", (REGISTER, 5), port.FenceReply(True, False)),
        ("remove", (REGISTER, 5), None),
        ("tombstones", (tombstone_request,), port.TombstonePage((tombstone,), REGISTER)),
        ("weigh_tombstones", ([tombstone], 62.0), port.TombstoneReply((port.TombstoneState.SETTLED,), False)),
        ("drop_tombstones", ([tombstone],), None),
        ("stage", (b"i" * 16, 0, [b"a" * 1000, b"b"], [b"h" * 16, b"g" * 16], False), None),
        ("seal", (b"i" * 16,), None),
        ("discard", (b"i" * 16,), None),
        (
            "read_blocks",
            (b"i" * 16, 3, 2),
            ([b"a" * 1000, b"b"], [xxhash.xxh3_128_digest(b"a" * 1000), xxhash.xxh3_128_digest(b"b")]),
        ),
        ("scan", (port.ScanRequest(b"o", b"p", b"s", b"/", 10, False),), page),
        ("list_registers", (port.ListRequest(b"o", b"p", b"s", b"/", 10),), listed),
        ("spaces", (b"o", 100), [b"o" + b"b" * 16, b"p"]),
        ("repairs", (100,), [REGISTER]),
        ("repaired", ([(REGISTER, 7)],), None),
        ("query_many", ([REGISTER, REGISTER], True), [reply, reply]),
        ("finish_healing", (9,), None),
    ]
    for verb, arguments, answer in cases:
        pod.drive.answers[verb] = answer
        assert await getattr(drive, verb)(*arguments) == answer
        if verb == "note":  # those that come up together are one call
            verb, arguments = "note_many", ([arguments],)
        assert pod.drive.calls[-1] == (verb, arguments)
    verbs = {name for name in vars(port.Drive) if not name.startswith("_")} - {"state", "status"}
    assert {verb for verb, _, _ in cases} == verbs


async def test_hashes_are_taken_for_computed_only_where_that_was_done_here(pod: Any, connect: Any) -> None:
    """A drive need not look again at blocks that were hashed as they came, and must at all others."""
    drive = (await connect()).drives()[0]
    pod.drive.answers["stage"] = None
    large, small = [os.urandom(90_000), os.urandom(80_000)], [b"small"]
    for blocks, are_right, computed in ((large, True, True), (large, False, False), (small, True, False)):
        hashes = [xxhash.xxh3_128_digest(block) for block in blocks[:-1]]
        hashes.append(xxhash.xxh3_128_digest(blocks[-1]) if are_right else b"another hash 16 ")
        await drive.stage(b"i" * 16, 0, blocks, port.ComputedHashes(hashes))
        _, (_, _, came, arrived, _) = pod.drive.calls[-1]
        assert (came, list(arrived)) == (blocks, hashes)
        assert isinstance(arrived, port.ComputedHashes) == computed
        commit = port.CommitRequest(REGISTER, HELD, port.CommitMode.PLAIN)
        pod.drive.answers["commit_with_shard"] = port.CommitReply(port.CommitStatus.OK, 5)
        await drive.commit_with_shard(commit, blocks, port.ComputedHashes(hashes))
        _, (_, _, arrived) = pod.drive.calls[-1]
        assert isinstance(arrived, port.ComputedHashes) == computed


async def test_a_pod_of_an_earlier_release_is_asked_for_a_listing_by_scans(pod: Any, connect: Any) -> None:
    pod.report = msgspec.structs.replace(pod.report, features=("stage-last",))
    drive = (await connect()).drives()[0]
    entries = (port.ScanEntry(REGISTER, HELD, 5, True), port.ScanEntry(REGISTER, HELD, 4, False, b"some/"))
    pod.drive.answers["scan"] = port.ScanPage(entries, b"next", False, b"version")
    request = port.ListRequest(b"o", b"s", b"some/\xff", b"/", 10, True, True)
    page = await drive.list_registers(request)
    assert pod.drive.calls == [("scan", (port.ScanRequest(b"o", b"s", b"some/\xff", b"/", 10, True, b"", True),))]
    name = names.name_of(REGISTER)
    following = names.start_at(b"next", b"version")
    assert page == port.ListPage([name, b"some/"], [5, 5], b"\1\4", [b"", name], [b"record", b""], following, False)


@pytest.mark.parametrize(
    "error",
    [port.DriveFaulty, port.DriveFull, port.ShardMissing, port.ShardCorrupt, port.DriveOffline, port.DriveError],
)
async def test_a_drives_error_keeps_its_class_and_words(pod: Any, connect: Any, error: type[Exception]) -> None:
    drive = (await connect()).drives()[0]
    pod.drive.answers["commit"] = error("the reason")
    with pytest.raises(error, match="the reason") as caught:
        await drive.commit(port.CommitRequest(REGISTER, HELD, port.CommitMode.PLAIN))
    assert type(caught.value) is error


async def test_a_bug_in_the_other_pod_is_an_error_and_not_the_end(pod: Any, connect: Any) -> None:
    drive = (await connect()).drives()[0]
    pod.drive.answers["seal"] = RuntimeError("a secret of the other pod")
    with pytest.raises(port.DriveOffline, match="internal error: RuntimeError") as caught:
        await drive.seal(b"i" * 16)
    assert "secret" not in str(caught.value)
    await drive.discard(b"i" * 16)


async def test_bad_arguments_and_absent_volumes_are_answered(pod: Any, connect: Any) -> None:
    peer = await connect()
    control = peer.link.channels[messages.ConnectionClass.CONTROL]
    for verb, volume, arguments, match in [
        (Verb.NOTE, 0, ([("not a register", 1, True)],), "Expected"),
        (Verb.NOTE, 5, ([(REGISTER, 1, True)],), "no volume 5"),
        (Verb.NOTE, -1, ([(REGISTER, 1, True)],), "needs a volume"),
        (Verb.PING, 0, (), "not a drive's"),
    ]:
        with pytest.raises(PeerError, match=match):
            await control.call(verb, volume, arguments)
    assert peer.online


async def test_an_unknown_verb_is_answered(pod: Any) -> None:
    services: Any = None
    request = messages.ReceivedRequest(7, 99, 0, (), msgspec.Raw(messages.encode(())))
    header, blobs = await Dispatcher([pod.drive], services).answer(request, memoryview(b""))
    reply = messages.decode_reply(memoryview(header))
    assert (reply.id, reply.outcome, list(blobs)) == (7, messages.Outcome.REFUSED, [])
    assert msgspec.msgpack.decode(reply.result) == "unknown verb 99"


async def test_the_pods_own_verbs(pod: Any, connect: Any) -> None:
    peer = await connect()
    await peer.announce("documents", ["users/a", "users/b"])
    await peer.fence_bucket(b"b" * 16)
    slots = await peer.remembered_slots()
    await peer.remember_slots(slots)
    assert pod.told == [("documents", ["users/a", "users/b"]), b"b" * 16, slots]
    assert pod.greeted == [("main", 0)] * 2
    assert peer.epoch == 1


async def test_big_payloads_both_ways_while_small_calls_go_on(pod: Any, connect: Any) -> None:
    drive = (await connect()).drives()[0]
    block = os.urandom(1 << 20)
    digest = xxhash.xxh3_128_digest(block)
    pod.drive.answers["read_blocks"] = lambda *_: _value(([block] * 8, [digest] * 8))
    pod.drive.answers["query"] = port.QueryReply((), 0, 0, 0, False)

    async def quick() -> None:
        for _ in range(50):
            await drive.query(REGISTER, False)

    (stuck,) = (one.connection for one in pod.server._sessions if one.connection_class is ConnectionClass.BULK)
    stuck.pause_reading()
    big = (
        asyncio.ensure_future(drive.read_blocks(b"i" * 16, 0, 16)),
        asyncio.ensure_future(drive.stage(b"i" * 16, 0, [block] * 20, [b"h" * 16] * 20)),
    )
    await quick()
    assert not any(call.done() for call in big)
    stuck.resume_reading()
    results = await asyncio.gather(*big, quick())
    assert results[0] == ([block] * 16, [digest] * 16)
    staged = [arguments for verb, arguments in pod.drive.calls if verb == "stage"]
    assert [index for _, index, _, _, _ in staged] == [0, 5, 10, 15]
    assert all(piece == block for _, _, blocks, _, _ in staged for piece in blocks)


@pytest.mark.parametrize("features", [messages.FEATURES, ()])
async def test_the_last_blocks_seal_the_shard_whether_or_not_the_peer_can_do_both_in_one(
    pod: Any, connect: Any, until: Any, features: tuple[str, ...]
) -> None:
    peer = await connect()
    pod.report = messages.Report(1, (port.DriveStatus(DriveState.FULL, b"d" * 16, 1),), features=features)
    pod.server.push_report()
    await until(lambda: peer.link.report.features == features)
    block = bytes(1 << 20)
    await peer.drives()[0].stage(b"i" * 16, 0, [block] * 6, [b"h" * 16] * 6, last=True)
    told = [(verb, arguments[-1]) for verb, arguments in pod.drive.calls]
    in_one = [("stage", False), ("stage", True)]
    assert told == (in_one if features else [("stage", False), ("stage", False), ("seal", b"i" * 16)])
    pod.drive.calls.clear()
    held = port.Held(5, False, b"record", 0, None, (b"i" * 16,))
    request = port.CommitRequest(REGISTER, held, port.CommitMode.PLAIN)
    pod.drive.answers["commit"] = pod.drive.answers["commit_with_shard"] = port.CommitReply(port.CommitStatus.OK, 5)
    reply = await peer.drives()[0].commit_with_shard(request, [block], [b"h" * 16])
    assert reply.status is port.CommitStatus.OK
    told = [verb for verb, _ in pod.drive.calls]
    assert told == (["commit_with_shard"] if features else ["stage", "seal", "commit"])


async def _value(value: Any) -> Any:
    return value


async def test_calls_beyond_the_bound_wait_their_turn(pod: Any, connect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(under_way.MAX_CALLS, messages.ConnectionClass.CONTROL, 4)
    monkeypatch.setattr(under_way, "MAX_BYTES_IN_FLIGHT", 3000)
    running = most = 0

    async def slow(*_: Any) -> port.QueryReply:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.002)
        running -= 1
        return port.QueryReply((), 0, 0, 0, False)

    pod.drive.answers["query"] = slow
    drive = (await connect()).drives()[0]
    calls = [asyncio.ensure_future(drive.query(REGISTER, False)) for _ in range(100)]
    stages = [drive.stage(b"i" * 16, 0, [bytes(size)], [b"h" * 16]) for size in [1000, 2500, 9000] * 10]
    for call in calls[10:60:3]:
        call.cancel()
    results = await asyncio.gather(*calls, *stages, return_exceptions=True)
    assert most == 4
    assert sum(isinstance(result, asyncio.CancelledError) for result in results) == len(calls[10:60:3])
    assert not [result for result in results if isinstance(result, port.DriveError)]


async def test_a_call_that_gets_no_turn_fails_at_its_deadline(
    pod: Any, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(under_way.MAX_CALLS, messages.ConnectionClass.CONTROL, 2)
    monkeypatch.setitem(messages.VERBS, Verb.FENCE, messages.VERBS[Verb.FENCE]._replace(timeout_seconds=0.1))
    go_on = asyncio.Event()

    async def slow(*_: Any) -> port.QueryReply:
        await go_on.wait()
        return port.QueryReply((), 0, 0, 0, False)

    pod.drive.answers["query"] = slow
    drive = (await connect()).drives()[0]
    calls = [asyncio.ensure_future(drive.query(REGISTER, False)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(port.DriveOffline, match="too many calls"):
        await drive.fence(REGISTER, 5)
    go_on.set()
    await asyncio.gather(*calls)


async def test_calls_of_one_turn_share_a_write(pod: Any, connect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    drive = (await connect()).drives()[0]
    pod.drive.answers["query"] = port.QueryReply((), 0, 0, 0, False)
    flushes = 0
    original = Connection._flush

    def counted(self: Connection) -> None:
        nonlocal flushes
        flushes += 1
        original(self)

    monkeypatch.setattr(Connection, "_flush", counted)
    await asyncio.gather(*[drive.query(REGISTER, False) for _ in range(200)])
    assert flushes < 20


async def _is_offline_at_once(drive: Any) -> None:
    """Without waiting for anything, be it a message or a deadline."""
    call = asyncio.ensure_future(drive.query(REGISTER, False))
    for _ in range(5):
        await asyncio.sleep(0)
    assert call.done()
    with pytest.raises(port.DriveOffline):
        await call


async def test_a_killed_peer_fails_pending_calls_at_once_and_is_dialled_again(
    pod: Any, connect: Any, until: Any
) -> None:
    peer = await connect()
    drive = peer.drives()[0]
    hang = asyncio.Event()
    pod.drive.answers["query"] = lambda *_: hang.wait()
    call = asyncio.ensure_future(drive.query(REGISTER, False))
    await until(lambda: pod.drive.calls)
    for session in list(pod.server._sessions):
        session.connection.abort("killed")
    with pytest.raises(port.DriveOffline, match=r"closed|lost|reset|refused"):
        async with asyncio.timeout(PATIENT_SECONDS / 2):  # long before its deadline
            await call
    assert drive.status().state in (DriveState.OFFLINE, DriveState.FULL)
    await until(lambda: pod.drive.cancelled == ["query"])
    pod.drive.answers["query"] = port.QueryReply((), 0, 0, 0, False)
    await until(lambda: peer.online)
    assert (await drive.query(REGISTER, False)).records == ()


async def test_a_peer_that_is_down_is_offline_at_once_and_back_soon(
    pod: Any, connect: Any, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    pause = channel.Channel._pause

    async def counted(self: channel.Channel, seconds: float) -> None:
        pauses.append(seconds)
        await pause(self, seconds)

    monkeypatch.setattr(channel.Channel, "_pause", counted)
    peer = await connect()
    drive = peer.drives()[0]
    await pod.stop()
    await until(lambda: not peer.online)
    status = drive.status()
    assert status.state is DriveState.OFFLINE
    assert status.drive_id == b"d" * 16
    assert "127.0.0.1" in status.message
    await _is_offline_at_once(drive)
    await pod.start()
    await until(lambda: peer.online)
    assert 0 < max(pauses) <= 1.0
    assert drive.status().state is DriveState.FULL


async def test_a_commit_under_way_runs_to_its_end_when_the_asker_is_gone(pod: Any, connect: Any, until: Any) -> None:
    peer = await connect()
    go_on = asyncio.Event()

    async def slow(*_: Any) -> port.CommitReply:
        await go_on.wait()
        return port.CommitReply(port.CommitStatus.OK)

    pod.drive.answers["commit"] = slow
    request = port.CommitRequest(REGISTER, HELD, port.CommitMode.PLAIN)
    call = asyncio.ensure_future(peer.drives()[0].commit(request))
    await until(lambda: pod.drive.calls)
    peer.link.channels[messages.ConnectionClass.CONTROL].abort("gone")
    with pytest.raises(port.DriveOffline):
        await call
    await asyncio.sleep(0.05)
    go_on.set()
    await until(lambda: pod.drive.finished == ["commit"])
    assert pod.drive.cancelled == []


async def test_a_hung_drive_costs_one_deadline_and_is_then_skipped(
    pod: Any, connect: Any, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(messages.VERBS, Verb.QUERY, messages.VERBS[Verb.QUERY]._replace(timeout_seconds=0.2))
    monkeypatch.setattr(link, "_FIRST_HOLD_OFF_SECONDS", 2.0)
    peer = await connect()
    drive = peer.drives()[0]
    hang = asyncio.Event()
    pod.drive.answers["query"] = lambda *_: hang.wait()
    with pytest.raises(port.DriveOffline, match="no answer in time"):
        await drive.query(REGISTER, False)
    assert drive.status().state is DriveState.OFFLINE
    for _ in range(10):
        await _is_offline_at_once(drive)
    # The pod itself answers pings, so it is not suspect for long; the drive is left alone a little longer.
    await until(lambda: peer.online)
    assert peer.link.skipped(0)
    pod.drive.answers["query"] = port.QueryReply((), 0, 0, 0, False)
    await until(lambda: drive.status().state is DriveState.FULL)
    await drive.query(REGISTER, False)


async def test_a_pod_that_hangs_is_suspected_dropped_and_dialled_again(
    pod: Any, connect: Any, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(messages.VERBS, Verb.PING, messages.VERBS[Verb.PING]._replace(timeout_seconds=0.2))
    monkeypatch.setattr(link, "PING_INTERVAL_SECONDS", 0.1)
    monkeypatch.setattr(link, "SILENT_SECONDS", 3600.0)
    peer = await connect()
    hang = asyncio.Event()
    pod.drive.answers["query"] = lambda *_: hang.wait()
    under_way = asyncio.ensure_future(peer.drives()[0].query(REGISTER, False))
    await until(lambda: pod.drive.calls)
    for session in pod.server._sessions:
        session.connection.pause_reading()
    with pytest.raises(port.DriveOffline, match="does not answer pings"):
        await under_way
    assert not peer.online
    with pytest.raises(port.DriveOffline, match="missed a deadline"):
        await peer.drives()[0].query(REGISTER, False)
    monkeypatch.setattr(link, "SILENT_SECONDS", 0.5)
    await until(lambda: peer.online)


async def test_who_is_woken_again_while_an_attempt_ends_dials_anew(
    pod: Any, connect: Any, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restarted pod dials by each class of connection, one moment after the other."""
    monkeypatch.setattr(channel, "_HANGING_AFTER_SECONDS", -1.0)
    dialled: list[asyncio.StreamWriter] = []
    silent = await asyncio.start_server(lambda _, writer: dialled.append(writer), "127.0.0.1")
    pod.port = silent.sockets[0].getsockname()[1]
    peer = await connect(wait=False)
    await until(lambda: len(dialled) >= 2, 60.0)  # both classes
    peer.link.wake()
    await asyncio.sleep(0)
    peer.link.wake()
    await until(lambda: len(dialled) >= 4, 60.0)
    for writer in dialled:
        writer.transport.abort()
    silent.close()


async def test_a_changed_report_is_pushed(pod: Any, connect: Any, until: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "PING_INTERVAL_SECONDS", 3600.0)
    peer = await connect()
    pod.report = messages.Report(2, (port.DriveStatus(DriveState.HEALING, b"e" * 16, 9),))
    pod.server.push_report()
    await until(lambda: peer.epoch == 2)
    assert peer.drives()[0].status().state is DriveState.HEALING


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"key": b"wrong"}, "peer key"),
        ({"tenant": "tenant-2"}, "another tenant"),
        ({"to_ordinal": 2}, "meant pod 2"),
    ],
)
async def test_strangers_are_turned_away_with_a_reason(
    pod: Any, connect: Any, until: Any, caplog: pytest.LogCaptureFixture, arguments: dict[str, Any], reason: str
) -> None:
    peer = await connect(wait=False, **arguments)
    await until(lambda: reason in peer.link.why_offline())
    assert not peer.online
    assert pod.greeted == []
    assert "wrong" not in caplog.text


async def test_noise_and_silence_do_not_disturb_the_server(pod: Any, connect: Any) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", pod.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 10)
    assert await reader.read() == b""
    writer.close()
    silent = await asyncio.open_connection("127.0.0.1", pod.port)
    peer = await connect()
    assert peer.online
    silent[1].close()


async def test_many_silent_strangers_do_not_grow_without_bound(pod: Any, until: Any) -> None:
    strangers = [await asyncio.open_connection("127.0.0.1", pod.port) for _ in range(MAX_STRANGERS + 10)]
    await until(lambda: sum(reader.at_eof() or reader.exception() is not None for reader, _ in strangers) == 10)
    assert pod.server._strangers == MAX_STRANGERS
    for _, writer in strangers:
        writer.close()


async def test_a_stranger_whose_words_cannot_even_be_read_is_not_left_connected(pod: Any) -> None:
    """What has no place in a message is read over, as deep as it goes: deeper than Python counts."""
    hello = Dialler(pod.identity, "main", 1, messages.ConnectionClass.BULK, [b"k"], bytes(32)).hello()
    assert hello[0] & 0xF0 == 0x90
    deep = bytes([hello[0] + 1]) + hello[1:] + b"\x91" * 15_000 + b"\xc0"
    reader, writer = await asyncio.open_connection("127.0.0.1", pod.port)
    writer.writelines(frames.encode_frame(deep))
    async with asyncio.timeout(2.0):
        await reader.read()
    writer.close()
    assert pod.server._strangers == 0


async def test_a_mistake_of_our_own_in_a_handshake_leaves_no_stranger_connected(
    pod: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mistaken(*arguments: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(pod.server, "_is_member", mistaken)
    hello = Dialler(pod.identity._replace(ordinal=0), "main", 1, messages.ConnectionClass.BULK, [b"k"], bytes(32))
    reader, writer = await asyncio.open_connection("127.0.0.1", pod.port)
    writer.writelines(frames.encode_frame(hello.hello()))
    async with asyncio.timeout(2.0):
        with contextlib.suppress(ConnectionResetError):
            await reader.read()
    writer.close()


async def test_who_ceases_to_be_a_member_in_the_midst_of_its_handshake_is_not_let_in(
    pod: Any, connect: Any, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody would ever close that connection: sessions are looked through when members change, and it was none yet."""
    peer = await connect(wait=False)
    challenge = Acceptor.challenge

    def then_left_out(self: Any, payload: memoryview) -> Any:
        challenged = challenge(self, payload)
        asyncio.get_running_loop().call_soon(leave_out)
        return challenged

    def leave_out() -> None:
        monkeypatch.setattr(pod.server, "_is_member", lambda pool, ordinal: False)
        pod.server.turn_away_former_members()

    monkeypatch.setattr(Acceptor, "challenge", then_left_out)
    await until(lambda: pod.greeted or all(channel.turned_away for channel in peer.link.channels.values()))
    assert pod.greeted == []


async def test_a_pod_tells_its_state_and_is_told_to_scan(pod: Any, connect: Any) -> None:
    peer = await connect()
    state = await peer.pod_state()
    assert (state.pod, state.version, state.epoch) == ("pod-1", "9.9", 3)
    await peer.start_scan()
    assert "scan" in pod.told


async def test_what_a_peers_clock_shows_is_known_as_long_as_it_answers(pod: Any, connect: Any, until: Any) -> None:
    peer = await connect()
    assert peer.link.clock_reading() is None, "an earlier release does not say"
    before = pod.report
    pod.report = msgspec.structs.replace(before, now_ms=1_800_000_000_000)
    await until(lambda: peer.link.clock_reading() is not None)
    told_ms, age_seconds = peer.link.clock_reading()
    assert told_ms == 1_800_000_000_000
    assert 0 <= age_seconds < 60
    assert peer.link.report == before, "the time alone is no news"
    await pod.stop()
    await until(lambda: peer.link.clock_reading() is None)
    await pod.start()


async def test_a_frozen_peer_that_gives_way_leaves_nothing_uncounted(
    pod: Any, connect: Any, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written for it would stay in memory for as long as its connection does: minutes, for a lost machine."""
    monkeypatch.setattr(budget, "SLOW_SECONDS", 0.2)
    monkeypatch.setattr(budget, "LOOK_AROUND_SECONDS", 0.1)
    peer = await connect()
    block = os.urandom(1 << 20)
    pod.drive.answers["read_blocks"] = lambda *_: _value(([block] * 8, [xxhash.xxh3_128_digest(block)] * 8))
    frozen = peer.link.channels[ConnectionClass.BULK]._connection
    frozen.pause_reading()
    reads = [asyncio.ensure_future(peer.drives()[0].read_blocks(b"i" * 16, 0, 8)) for _ in range(2)]
    (session,) = (one for one in pod.server._sessions if one.connection_class is ConnectionClass.BULK)
    await until(lambda: session.connection.congested)
    answers = pod.server._answers
    assert answers.used
    await answers.take(answers.capacity, PATIENT_SECONDS)
    assert session.connection.lost
    await until(lambda: session not in pod.server._sessions)
    answers.give(answers.capacity)
    assert answers.used == 0
    frozen.resume_reading()
    for read in reads:
        with pytest.raises(port.DriveOffline):
            await read
    await until(lambda: peer.online)
    assert len((await peer.drives()[0].read_blocks(b"i" * 16, 0, 8))[0]) == 8


async def test_a_peer_whose_dialling_failed_in_a_way_nobody_foresaw_is_dialled_again(
    pod: Any, connect: Any, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where no thread can be started for its name: nobody else would ever dial it."""
    monkeypatch.setattr(remote, "RESTART_SECONDS", 0.05)
    failed = asyncio.Event()
    resolve = Resolver.resolve

    async def fail_once(self: Any, name: str) -> str:
        if not failed.is_set():
            failed.set()
            raise RuntimeError("can't start new thread")
        return await resolve(self, name)

    monkeypatch.setattr(Resolver, "resolve", fail_once)
    peer = await connect()
    assert failed.is_set()
    pod.drive.answers["query"] = port.QueryReply((), 0, 0, 0, False)
    assert await peer.drives()[0].query(REGISTER, False) == pod.drive.answers["query"]


async def test_a_bad_frame_right_behind_the_handshake_ends_that_connection_alone() -> None:
    """It may be there before anybody takes frames."""
    told: list[str] = []
    connection = Connection()
    for piece in frames.encode_frame(b"not a reply"):
        connection.get_buffer(-1)[: len(piece)] = piece
        connection.buffer_updated(len(piece))

    def on_frame(frame: frames.Frame) -> None:
        raise frames.FrameError("reply cannot be read")

    connection.start(on_frame, told.append)
    assert told == ["reply cannot be read"]
    assert connection.lost


async def test_records_that_do_not_fit_into_one_frame_come_in_several(pod: Any, connect: Any) -> None:
    """Of objects of ten thousand parts: what asked for many at once was never answered, and nothing was healed."""
    drive = (await connect()).drives()[0]
    registers = [Register(b"o" + b"b" * 16, f"key{number}", b"") for number in range(40)]

    def reply(register: Register) -> port.QueryReply:
        held = port.Held(5, False, register.key.encode() * 100_000, 2, None)
        return port.QueryReply((held,), 5, 5, 0, False)

    pod.drive.answers["query_many"] = lambda some, _: _value([reply(one) for one in some])
    assert await drive.query_many(registers, True) == [reply(one) for one in registers]
    asked = [len(arguments[0]) for verb, arguments in pod.drive.calls if verb == "query_many"]
    assert asked == [40, 20, 20]
    pod.drive.answers["query_many"] = port.DriveFaulty("set aside")
    with pytest.raises(port.DriveFaulty):
        await drive.query_many(registers, True)
