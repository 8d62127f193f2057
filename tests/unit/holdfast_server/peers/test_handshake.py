"""Only the pod that was meant, of the same tenant and with its key, gets through."""

import msgspec
import pytest

from holdfast_server.drives.port import DriveState, DriveStatus
from holdfast_server.peers import handshake
from holdfast_server.peers.handshake import Acceptor, Dialler, HandshakeError, NotAMember, PodIdentity, refusal
from holdfast_server.peers.messages import ConnectionClass, Report

KEY = b"k" * 32
ZERO = PodIdentity("tenant-1", "main", 0, "logs-pool-main-0")
ONE = PodIdentity("tenant-1", "main", 1, "logs-pool-main-1")
REPORT_ZERO = Report(3, (DriveStatus(DriveState.FULL, b"d" * 16, 5),))
REPORT_ONE = Report(4, (DriveStatus(DriveState.BLANK),))


def dialler(me: PodIdentity = ZERO, to: PodIdentity = ONE, key: bytes = KEY, nonce: bytes = b"n" * 32) -> Dialler:
    return Dialler(me, to.pool, to.ordinal, ConnectionClass.BULK, [key], nonce)


def acceptor(me: PodIdentity = ONE, key: bytes = KEY, nonce: bytes = b"m" * 32) -> Acceptor:
    return Acceptor(me, key, nonce)


def shake(a: Dialler, b: Acceptor) -> tuple[PodIdentity, ConnectionClass, Report, Report]:
    challenge, who, connection_class = b.challenge(memoryview(a.hello()))
    proof = a.prove(memoryview(challenge), REPORT_ZERO)
    welcome, report = b.welcome(memoryview(proof), REPORT_ONE)
    return who, connection_class, report, a.welcomed(memoryview(welcome))


def test_both_ends_learn_who_the_other_is_and_what_it_reports() -> None:
    assert shake(dialler(), acceptor()) == (ZERO, ConnectionClass.BULK, REPORT_ZERO, REPORT_ONE)


def test_an_acceptor_without_the_key_is_found_out_before_anything_is_told() -> None:
    challenge, *_ = acceptor(key=b"x" * 32).challenge(memoryview(dialler().hello()))
    with pytest.raises(HandshakeError, match="peer key"):
        dialler().prove(memoryview(challenge), REPORT_ZERO)


def test_a_dialler_without_the_key_is_turned_away() -> None:
    # It cannot check the challenge either, so play it as a client that does not care.
    b = acceptor()
    b.challenge(memoryview(dialler().hello()))
    forged = acceptor(key=b"x" * 32)
    challenge_of_forger, *_ = forged.challenge(memoryview(dialler(key=b"x" * 32).hello()))
    proof = dialler(key=b"x" * 32).prove(memoryview(challenge_of_forger), REPORT_ZERO)
    with pytest.raises(HandshakeError, match="peer key"):
        b.welcome(memoryview(proof), REPORT_ONE)


def test_who_is_turned_away_learns_whether_it_is_unknown() -> None:
    for told, kind in ((NotAMember("no such pod"), NotAMember), (HandshakeError("busy"), HandshakeError)):
        with pytest.raises(HandshakeError, match=f"refused: {told}") as caught:
            dialler().prove(memoryview(refusal(told)), REPORT_ZERO)
        assert type(caught.value) is kind


def test_a_refusal_of_an_older_release_is_just_that() -> None:
    older = msgspec.msgpack.encode(["refusal", "none of this tenant's"])
    with pytest.raises(HandshakeError, match="none of this tenant's") as caught:
        dialler().prove(memoryview(older), REPORT_ZERO)
    assert type(caught.value) is HandshakeError


@pytest.mark.parametrize(
    ("me", "to", "message"),
    [
        (ZERO._replace(tenant="tenant-2"), ONE, "another tenant"),
        (ZERO, ONE._replace(ordinal=2), "meant pod 2"),
        (ZERO, ONE._replace(pool="other"), "meant pod 1 of pool 'other'"),
        (ONE, ONE, "this very pod"),
    ],
)
def test_the_acceptor_refuses_a_dialler_that_means_another(me: PodIdentity, to: PodIdentity, message: str) -> None:
    with pytest.raises(HandshakeError, match=message):
        acceptor().challenge(memoryview(dialler(me, to).hello()))


def test_the_dialler_refuses_a_pod_it_did_not_mean() -> None:
    # A careless or lying acceptor that answers for another address.
    two = ONE._replace(ordinal=2)
    challenge, *_ = acceptor(two).challenge(memoryview(dialler(to=two).hello()))
    with pytest.raises(HandshakeError, match="is pod 2"):
        dialler().prove(memoryview(challenge), REPORT_ZERO)


def test_a_recorded_dialler_cannot_be_replayed() -> None:
    a, b = dialler(), acceptor()
    challenge, *_ = b.challenge(memoryview(a.hello()))
    proof = a.prove(memoryview(challenge), REPORT_ZERO)
    b.welcome(memoryview(proof), REPORT_ONE)
    again = acceptor(nonce=b"M" * 32)
    again.challenge(memoryview(a.hello()))
    with pytest.raises(HandshakeError, match="peer key"):
        again.welcome(memoryview(proof), REPORT_ONE)


def test_a_recorded_acceptor_cannot_be_replayed() -> None:
    challenge, *_ = acceptor().challenge(memoryview(dialler().hello()))
    with pytest.raises(HandshakeError, match="peer key"):
        dialler(nonce=b"N" * 32).prove(memoryview(challenge), REPORT_ZERO)


def test_an_acceptors_proof_is_no_diallers_proof() -> None:
    """Reflection: what one role has proved is of no use in the other."""
    a, b = dialler(), acceptor()
    challenge, *_ = b.challenge(memoryview(a.hello()))
    proof = bytearray(a.prove(memoryview(challenge), REPORT_ZERO))
    proof[-32:] = challenge[-32:]
    with pytest.raises(HandshakeError, match="peer key"):
        b.welcome(memoryview(bytes(proof)), REPORT_ONE)


def test_a_report_cannot_be_exchanged_on_the_way() -> None:
    a, b = dialler(), acceptor()
    challenge, *_ = b.challenge(memoryview(a.hello()))
    welcome, _ = b.welcome(memoryview(a.prove(memoryview(challenge), REPORT_ZERO)), REPORT_ONE)
    for index in range(len(welcome)):
        broken = bytearray(welcome)
        broken[index] ^= 1
        with pytest.raises(HandshakeError):
            a.welcomed(memoryview(bytes(broken)))


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"GET / HTTP/1.1\r\n\r\n", b"\x93\xa5hello\x01\x02", b"\x00" * 200])
def test_noise_is_refused(payload: bytes) -> None:
    with pytest.raises(HandshakeError):
        acceptor().challenge(memoryview(payload))


def test_the_reason_of_a_refusal_reaches_the_dialler() -> None:
    with pytest.raises(HandshakeError, match="refused: belongs to another tenant"):
        dialler().prove(memoryview(refusal(HandshakeError("belongs to another tenant"))), REPORT_ZERO)


def test_other_protocol_versions_are_refused() -> None:
    hello = bytearray(dialler().hello())
    at = hello.index(b"holdfast-peer") + len(b"holdfast-peer")
    assert hello[at] == 1
    hello[at] = 2
    with pytest.raises(HandshakeError, match="version 2, not 1"):
        acceptor().challenge(memoryview(bytes(hello)))


@pytest.mark.parametrize(
    ("dialling", "accepting", "spoken"),
    [((1, 1), (1, 2), 1), ((1, 2), (1, 1), 1), ((1, 2), (1, 2), 2), ((1, 3), (2, 2), 2), ((2, 3), (1, 2), 2)],
)
def test_the_newest_version_that_both_speak_is_spoken(
    dialling: tuple[int, int], accepting: tuple[int, int], spoken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    speak(monkeypatch, dialling)
    a, b = dialler(), acceptor()
    hello = a.hello()
    speak(monkeypatch, accepting)
    challenge, *_ = b.challenge(memoryview(hello))
    speak(monkeypatch, dialling)
    welcome, _ = b.welcome(memoryview(a.prove(memoryview(challenge), REPORT_ZERO)), REPORT_ONE)
    a.welcomed(memoryview(welcome))
    assert (a.version, b.version) == (spoken, spoken)


def test_pods_without_a_common_version_name_both(monkeypatch: pytest.MonkeyPatch) -> None:
    speak(monkeypatch, (2, 3))
    hello = dialler().hello()
    speak(monkeypatch, (1, 1))
    with pytest.raises(HandshakeError, match="version 2 to 3, not 1"):
        acceptor().challenge(memoryview(hello))
    speak(monkeypatch, (4, 5))
    with pytest.raises(HandshakeError, match="version 2 to 3, not 4 to 5"):
        acceptor().challenge(memoryview(hello))


def speak(monkeypatch: pytest.MonkeyPatch, versions: tuple[int, int]) -> None:
    monkeypatch.setattr(handshake, "OLDEST_PROTOCOL_VERSION", versions[0])
    monkeypatch.setattr(handshake, "NEWEST_PROTOCOL_VERSION", versions[1])


def test_the_versions_of_a_hello_cannot_be_changed_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody in between can make two new pods speak an old version."""
    speak(monkeypatch, (1, 2))
    a, b = dialler(), acceptor()
    hello = bytearray(a.hello())
    assert hello[-1] == 2
    hello[-1] = 1
    challenge, *_ = b.challenge(memoryview(bytes(hello)))
    with pytest.raises(HandshakeError, match="peer key"):
        a.prove(memoryview(challenge), REPORT_ZERO)


def test_fields_that_a_newer_pod_appends_are_passed_over() -> None:
    newer = msgspec.msgpack.decode(dialler().hello())
    b = acceptor()
    b.challenge(memoryview(msgspec.msgpack.encode([*newer, "news", {"of": 2}])))
    assert b.version == 1
    appended = [*msgspec.msgpack.decode(acceptor().challenge(memoryview(dialler().hello()))[0]), "news"]
    assert dialler().prove(memoryview(msgspec.msgpack.encode(appended)), REPORT_ZERO)


OLD, NEW, STRANGE = b"o" * 32, b"n" * 32, b"s" * 32


@pytest.mark.parametrize(
    ("dialling", "accepting"),
    [([OLD], OLD), ([OLD, NEW], OLD), ([OLD, NEW], NEW), ([NEW, OLD], OLD), ([NEW, OLD], NEW), ([NEW], NEW)],
)
def test_pods_connect_at_every_step_of_a_change_of_the_peer_key(dialling: list[bytes], accepting: bytes) -> None:
    """The steps: known everywhere, everybody's own, the old one gone; neighbours may be one step apart."""
    caller = Dialler(ZERO, ONE.pool, ONE.ordinal, ConnectionClass.BULK, dialling, b"n" * 32)
    assert shake(caller, acceptor(key=accepting))[2:] == (REPORT_ZERO, REPORT_ONE)


def test_a_key_that_was_taken_away_opens_nothing() -> None:
    caller = Dialler(ZERO, ONE.pool, ONE.ordinal, ConnectionClass.BULK, [NEW, OLD], b"n" * 32)
    with pytest.raises(HandshakeError, match="peer key"):
        shake(caller, acceptor(key=STRANGE))
