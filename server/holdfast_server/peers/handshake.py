"""Who is at the other end: the versioned, mutually authenticated opening of a connection.  Pure.

    dialler  → Hello      who I am, whom I mean to reach, which class of connection, my nonce
    acceptor → Challenge  who I am, my nonce, HMAC of the transcript   (or Refusal, and the end)
    dialler  → Proof      my report, HMAC of the transcript and of the report
    acceptor → Welcome    my report, HMAC of the transcript and of the report

Versions: a pod says the oldest and the newest version of the protocol it speaks; the acceptor picks the newest that
both do.  A roll from one release to the next must be possible pod by pod, so a release speaks the newest version of
the release before it.  Fields are only ever appended to these messages, with defaults, and an end that does not know
them passes over them; what the acceptor appends to its Challenge is not under the MAC of the version that lacks it.

The key is the tenant's peer key.  The transcript is both opening messages: tenant, pools, ordinals, pod
names, class, protocol version and both nonces, so that no message fits another connection, another role or
another pod.  That matters because pod addresses are reused: whoever answers at an address must prove to be
the pod that was meant.  While that key changes, a pod proves itself with its own, and a dialler believes an
acceptor that proves itself with any it was given, and goes on with that one; so both ends need not change at the
same moment (`contract.keys`).  MACs are compared in constant time, and nothing about drives is told to an end that
has proved nothing.

Not here: encryption and integrity of what follows (that takes TLS underneath), sockets, time-outs, and
randomness (nonces come in as arguments).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import msgspec

from holdfast_server.peers.messages import ConnectionClass, Report

OLDEST_PROTOCOL_VERSION = 1
NEWEST_PROTOCOL_VERSION = 1
MAGIC = "holdfast-peer"
NONCE_SIZE_BYTES = 32


class HandshakeError(Exception):
    """The other end is not the pod it should be, or not to be talked to; the message holds no secret."""


class NotAMember(HandshakeError):
    """The dialler is none of the tenant's pods by the acceptor's configuration, which may be an older one."""


class PodIdentity(NamedTuple):
    """What a pod proves about itself."""

    tenant: str
    pool: str
    ordinal: int
    pod: str


class Hello(msgspec.Struct, frozen=True, array_like=True, tag="hello"):
    magic: str
    version: int
    tenant: str
    pool: str
    ordinal: int
    pod: str
    to_pool: str
    to_ordinal: int
    connection_class: int
    nonce: bytes
    newest_version: int = 0
    """0: the same as `version`, which is the oldest."""


class Challenge(msgspec.Struct, frozen=True, array_like=True, tag="challenge"):
    version: int
    """The one that is spoken on this connection."""
    tenant: str
    pool: str
    ordinal: int
    pod: str
    nonce: bytes
    mac: bytes = b""


class Proof(msgspec.Struct, frozen=True, array_like=True, tag="proof"):
    report: bytes
    mac: bytes


class Welcome(msgspec.Struct, frozen=True, array_like=True, tag="welcome"):
    report: bytes
    mac: bytes


class Refusal(msgspec.Struct, frozen=True, array_like=True, tag="refusal"):
    reason: str
    not_a_member: bool = False


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Hello | Challenge | Proof | Welcome | Refusal)
_report_decoder = msgspec.msgpack.Decoder(Report)

_MAX_REASON_LENGTH = 200
_ANOTHER_KEY = "does not hold this tenant's peer key"

_M = TypeVar("_M", bound=msgspec.Struct)


def refusal(error: HandshakeError) -> bytes:
    """The last message to an end that is turned away."""
    return _encode(Refusal(str(error)[:_MAX_REASON_LENGTH], isinstance(error, NotAMember)))


class Dialler:
    """The end that opens the connection: `hello`, then `prove` on the challenge, then `welcomed`."""

    def __init__(
        self,
        me: PodIdentity,
        to_pool: str,
        to_ordinal: int,
        connection_class: ConnectionClass,
        keys: Sequence[bytes],
        nonce: bytes,
    ) -> None:
        """`keys`: all that an acceptor may hold; the first is this pod's own."""
        for key in keys:
            _check_key(key)
        self._me, self._to_pool, self._to_ordinal, self._keys = me, to_pool, to_ordinal, tuple(keys)
        self._key = self._keys[0]
        """The one the acceptor has proved to hold, once it has."""
        self._hello = _encode(
            Hello(
                MAGIC, OLDEST_PROTOCOL_VERSION, me.tenant, me.pool, me.ordinal, me.pod, to_pool, to_ordinal,
                connection_class, nonce, NEWEST_PROTOCOL_VERSION,
            )
        )  # fmt: skip
        self._transcript = b""
        self.version = 0
        """What is spoken, once the challenge has come."""

    def hello(self) -> bytes:
        return self._hello

    def prove(self, payload: memoryview, report: Report) -> bytes:
        """The challenge came: check the acceptor, answer with the proof.  Raises HandshakeError."""
        challenge = _expect(payload, Challenge)
        if not OLDEST_PROTOCOL_VERSION <= challenge.version <= NEWEST_PROTOCOL_VERSION:
            raise HandshakeError(f"speaks protocol version {challenge.version}, not {_spoken()}")
        self.version = challenge.version
        if challenge.tenant != self._me.tenant:
            raise HandshakeError("belongs to another tenant")
        if (challenge.pool, challenge.ordinal) != (self._to_pool, self._to_ordinal):
            raise HandshakeError(
                f"is pod {challenge.ordinal} of pool {challenge.pool!r}, "
                f"not pod {self._to_ordinal} of pool {self._to_pool!r}"
            )
        self._transcript = _transcript(self._hello, challenge)
        self._key = self._key_of(challenge.mac)
        body = _encode(report)
        return _encode(Proof(body, _mac(self._key, b"dialler", self._transcript, body)))

    def _key_of(self, mac: bytes) -> bytes:
        """The key that the acceptor's proof was made with.  Raises HandshakeError."""
        for key in self._keys:
            if hmac.compare_digest(mac, _mac(key, b"acceptor", self._transcript)):
                return key
        raise HandshakeError(_ANOTHER_KEY)

    def welcomed(self, payload: memoryview) -> Report:
        """The welcome came: the acceptor's report.  Raises HandshakeError."""
        welcome = _expect(payload, Welcome)
        _check_mac(welcome.mac, _mac(self._key, b"welcome", self._transcript, welcome.report))
        return _decode_report(welcome.report)


class Acceptor:
    """The end that is dialled: `challenge` on the hello, then `welcome` on the proof."""

    def __init__(self, me: PodIdentity, key: bytes, nonce: bytes) -> None:
        _check_key(key)
        self._me, self._key, self._nonce = me, key, nonce
        self._transcript = b""
        self.version = 0
        """What is spoken, once the hello has come."""

    def challenge(self, payload: memoryview) -> tuple[bytes, PodIdentity, ConnectionClass]:
        """The hello came: our challenge, and who the dialler claims to be.  Raises HandshakeError."""
        hello = _expect(payload, Hello)
        if hello.magic != MAGIC:
            raise HandshakeError("does not speak this protocol")
        self.version = _common_version(hello)
        if len(hello.nonce) != NONCE_SIZE_BYTES:
            raise HandshakeError("sent a nonce of the wrong size")
        if hello.tenant != self._me.tenant:
            raise HandshakeError("belongs to another tenant")
        if (hello.to_pool, hello.to_ordinal) != (self._me.pool, self._me.ordinal):
            raise HandshakeError(
                f"meant pod {hello.to_ordinal} of pool {hello.to_pool!r}; "
                f"this is pod {self._me.ordinal} of pool {self._me.pool!r}"
            )
        if (hello.pool, hello.ordinal) == (self._me.pool, self._me.ordinal):
            raise HandshakeError("claims to be this very pod")
        try:
            connection_class = ConnectionClass(hello.connection_class)
        except ValueError:
            raise HandshakeError(f"asked for an unknown class of connection, {hello.connection_class}") from None
        bare = Challenge(self.version, *self._me, self._nonce)
        self._transcript = _transcript(bytes(payload), bare)
        challenge = msgspec.structs.replace(bare, mac=_mac(self._key, b"acceptor", self._transcript))
        return _encode(challenge), PodIdentity(hello.tenant, hello.pool, hello.ordinal, hello.pod), connection_class

    def welcome(self, payload: memoryview, report: Report) -> tuple[bytes, Report]:
        """The proof came: our welcome, and the dialler's report.  Raises HandshakeError."""
        proof = _expect(payload, Proof)
        _check_mac(proof.mac, _mac(self._key, b"dialler", self._transcript, proof.report))
        body = _encode(report)
        welcome = Welcome(body, _mac(self._key, b"welcome", self._transcript, body))
        return _encode(welcome), _decode_report(proof.report)


def _common_version(hello: Hello) -> int:
    """The newest that both ends speak.  Raises HandshakeError, naming both sides' versions."""
    newest = max(hello.version, hello.newest_version)
    common = min(newest, NEWEST_PROTOCOL_VERSION)
    if common < max(hello.version, OLDEST_PROTOCOL_VERSION):
        raise HandshakeError(f"speaks protocol version {_range(hello.version, newest)}, not {_spoken()}")
    return common


def _spoken() -> str:
    return _range(OLDEST_PROTOCOL_VERSION, NEWEST_PROTOCOL_VERSION)


def _range(oldest: int, newest: int) -> str:
    return str(oldest) if oldest == newest else f"{oldest} to {newest}"


def _expect(payload: memoryview, kind: type[_M]) -> _M:
    try:
        message = _decoder.decode(payload)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise HandshakeError("sent something that is no handshake message") from error
    if isinstance(message, Refusal):
        refused = NotAMember if message.not_a_member else HandshakeError
        raise refused(f"refused: {message.reason[:_MAX_REASON_LENGTH]}")
    if not isinstance(message, kind):
        raise HandshakeError(f"sent {type(message).__name__} where {kind.__name__} was due")
    return message


def _decode_report(body: bytes) -> Report:
    try:
        return _report_decoder.decode(body)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise HandshakeError("sent a report that cannot be read") from error


def _transcript(hello: bytes, challenge: Challenge) -> bytes:
    """Both opening messages, each with its length before it so that no bytes can move between them."""
    # The fields of version 1, whatever else the message has: both ends must hash the same.
    bare = _encode(
        Challenge(
            challenge.version, challenge.tenant, challenge.pool, challenge.ordinal, challenge.pod, challenge.nonce
        )
    )
    digest = hashlib.sha256()
    for part in (hello, bare):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()


def _mac(key: bytes, role: bytes, transcript: bytes, body: bytes = b"") -> bytes:
    return hmac.digest(key, role + b"\0" + transcript + body, "sha256")


def _check_mac(given: bytes, wanted: bytes) -> None:
    if not hmac.compare_digest(given, wanted):
        raise HandshakeError(_ANOTHER_KEY)


def _check_key(key: bytes) -> None:
    # An empty key would let anybody in; whoever reads the key file refuses it with a better message.
    assert key, "the peer key is empty"
