"""What pods say to each other once they have shaken hands.  Pure: values and their encoding.

A request is (id, verb, volume, sizes of its blobs, arguments); its reply carries the same id, an outcome and
the result.  Both are MessagePack arrays; `VERBS` says for every verb which connection it uses, how long an
answer may take, and the types of arguments and result.  A reply with id 0 answers nothing: it is a report the
peer sends because something about it has changed.

A verb keeps its number and its types for ever; a new meaning gets a new number.  An unknown verb is answered
with an error, so that an older pod survives a newer one's questions.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple

import msgspec

from holdfast_server.contract.admin import PodState
from holdfast_server.drives import port
from holdfast_server.memory.buffers import PAGE_SIZE_BYTES
from holdfast_server.peers.frames import Wish
from holdfast_server.peers.port import PeerRefused, SlotMemory

CONTROL_TIMEOUT_SECONDS = 5.0
"""Small questions and durable commits: far above any healthy fsync, far below a client's patience."""

BULK_TIMEOUT_SECONDS = 15.0
"""Shard blocks, seals (an fsync of many megabytes) and scans."""

FENCE_BUCKET_TIMEOUT_SECONDS = 30.0
"""The peer lets its writes to the bucket run to their end first."""

PING_TIMEOUT_SECONDS = 2.0
"""Longer than a busy pod's loop ever stalls; shorter than a client's patience."""

PUSHED_REPORT_ID = 0

VERSIONS_FEATURE = "versions"
"""It keeps versions of objects."""
LOCKS_FEATURE = "locks"
"""It does not delete locked ones."""
IAM_FEATURE = "iam"
"""It knows identities that clients made."""
SEALING_FEATURE = "sealing"
"""It does not serve what was encrypted as if it were the object."""
STAGE_LAST_FEATURE = "stage-last"
"""It seals a shard with its last blocks."""
REDUCED_FEATURE = "reduced"
"""It judges each version by the parity that it was coded with."""
LIST_PAGES_FEATURE = "list-pages"
"""It answers a listing in columns."""
COMMIT_MANY_FEATURE = "commit-many"
"""It takes several commits in one call."""
OPAQUE_ETAGS_FEATURE = "opaque-etags"
"""It completes an upload though ETags of its parts are no MD5s."""
COMMIT_SHARD_FEATURE = "commit-shard"
"""It takes a commit with the shard that it names."""
FETCH_BLOCKS_FEATURE = "fetch-blocks"
"""Blocks that whoever asks for them compares with their hashes."""
FEATURES = (
    VERSIONS_FEATURE,
    LOCKS_FEATURE,
    IAM_FEATURE,
    SEALING_FEATURE,
    STAGE_LAST_FEATURE,
    REDUCED_FEATURE,
    LIST_PAGES_FEATURE,
    COMMIT_MANY_FEATURE,
    OPAQUE_ETAGS_FEATURE,
    COMMIT_SHARD_FEATURE,
    FETCH_BLOCKS_FEATURE,
)
"""Of this release."""

MAX_BLOCKS_PER_READ = 8
"""So that a reply of 1 MiB blocks fits into a frame."""


class ConnectionClass(IntEnum):
    CONTROL = 1
    BULK = 2


class Verb(IntEnum):
    PING = 1
    ANNOUNCE = 2
    FENCE_BUCKET = 3
    REMEMBERED_SLOTS = 4
    REMEMBER_SLOTS = 5
    POD_STATE = 6
    START_SCAN = 7
    QUERY = 16
    COMMIT = 17
    NOTE = 18
    PREPARE = 19
    RELEASE = 20
    FENCE = 21
    REMOVE = 22
    STAGE = 24
    SEAL = 25
    DISCARD = 26
    READ_BLOCKS = 27
    SCAN = 28
    REPAIRS = 29
    FINISH_HEALING = 31
    SPACES = 32
    REPAIRED = 33
    """30 told of a single register, without the stamp."""
    TOMBSTONES = 34
    WEIGH_TOMBSTONES = 35
    DROP_TOMBSTONES = 36
    """23 dropped a single one."""
    QUERY_MANY = 37
    STAGE_LAST = 38
    LIST_REGISTERS = 39
    COMMIT_MANY = 40
    COMMIT_SHARD = 41
    FETCH_BLOCKS = 42
    """What READ_BLOCKS reads, but not compared with its hashes."""


class Report(msgspec.Struct, frozen=True, array_like=True):
    """What a pod says of itself: at the handshake, in every answer to a ping, and when it changes."""

    epoch: int
    drives: tuple[port.DriveStatus, ...]
    """One per volume, in order."""
    slowdown: float | None = None
    """How many times the usual its requests wait for records now; None without requests (`heal.pacing`)."""
    heals: bool = False
    """Its healing worked within the last second: what is slow elsewhere may be slow because of it."""
    features: tuple[str, ...] = ()
    """What it understands that pods of earlier releases do not, and that is used only once every pod does."""
    now_ms: int = 0
    """What its clock shows, since 1970; 0 from an earlier release."""
    encryption_keys: tuple[bytes, ...] = ()
    """Fingerprints of those it has (`contract.encryption_keys`)."""


class Request(msgspec.Struct, array_like=True, gc=False):
    id: int
    verb: int
    volume: int
    """Which drive of the pod; -1 for the verbs of the pod itself."""
    sizes: tuple[int, ...]
    arguments: Any


class ReceivedRequest(msgspec.Struct, array_like=True):
    id: int
    verb: int
    volume: int
    sizes: tuple[int, ...]
    arguments: msgspec.Raw


class Outcome(IntEnum):
    OK = 0
    REFUSED = 1
    """The request makes no sense to the peer: unknown verb, bad arguments, no such volume, its own bug."""
    DRIVE_ERROR = 2
    DRIVE_OFFLINE = 3
    DRIVE_FAULTY = 4
    DRIVE_FULL = 5
    SHARD_MISSING = 6
    SHARD_CORRUPT = 7


class Reply(msgspec.Struct, array_like=True, gc=False):
    id: int
    outcome: int
    sizes: tuple[int, ...]
    result: Any


class ReceivedReply(msgspec.Struct, array_like=True):
    id: int
    outcome: int
    sizes: tuple[int, ...]
    result: msgspec.Raw


class VerbSpec(NamedTuple):
    connection: ConnectionClass
    timeout_seconds: float
    arguments: msgspec.msgpack.Decoder[Any]
    result: msgspec.msgpack.Decoder[Any]
    changes: bool
    """Changes something on the drive: once begun it runs to its end, even if the asking pod is gone."""
    blobs: bool = False
    """The answer has blobs: blocks, whose hashes are its result."""


def _control(arguments: Any, result: Any, changes: bool, timeout_seconds: float = CONTROL_TIMEOUT_SECONDS) -> VerbSpec:
    decoder = msgspec.msgpack.Decoder
    return VerbSpec(ConnectionClass.CONTROL, timeout_seconds, decoder(arguments), decoder(result), changes)


def _bulk(arguments: Any, result: Any, changes: bool, blobs: bool = False) -> VerbSpec:
    decoder = msgspec.msgpack.Decoder
    return VerbSpec(ConnectionClass.BULK, BULK_TIMEOUT_SECONDS, decoder(arguments), decoder(result), changes, blobs)


_Register = port.Register

VERBS: dict[int, VerbSpec] = {
    Verb.PING: _control(tuple[()], Report, False, PING_TIMEOUT_SECONDS),
    Verb.ANNOUNCE: _control(tuple[str, list[str]], None, True),
    Verb.FENCE_BUCKET: _control(tuple[bytes], None, True, FENCE_BUCKET_TIMEOUT_SECONDS),
    Verb.REMEMBERED_SLOTS: _control(tuple[()], list[SlotMemory], False),
    Verb.REMEMBER_SLOTS: _control(tuple[list[SlotMemory]], None, True),
    Verb.POD_STATE: _control(tuple[()], PodState, False),
    Verb.START_SCAN: _control(tuple[()], None, True),
    Verb.QUERY: _control(tuple[_Register, bool], port.QueryReply, False),
    Verb.COMMIT: _control(tuple[port.CommitRequest], port.CommitReply, True),
    Verb.COMMIT_MANY: _control(tuple[list[port.CommitRequest]], list[port.CommitReply | None], True),
    Verb.NOTE: _control(tuple[list[tuple[_Register, int, bool]]], None, True),
    Verb.PREPARE: _control(tuple[_Register, int, bytes, float], port.PrepareReply, True),
    Verb.RELEASE: _control(tuple[_Register, bytes], None, True),
    Verb.FENCE: _control(tuple[_Register, int], port.FenceReply, True),
    Verb.REMOVE: _control(tuple[_Register, int], None, True),
    Verb.STAGE: _bulk(tuple[bytes, int, list[bytes]], None, True),
    Verb.STAGE_LAST: _bulk(tuple[bytes, int, list[bytes]], None, True),
    Verb.COMMIT_SHARD: _bulk(tuple[port.CommitRequest, list[bytes]], port.CommitReply, True),
    Verb.SEAL: _bulk(tuple[bytes], None, True),
    Verb.DISCARD: _control(tuple[bytes], None, True),
    Verb.READ_BLOCKS: _bulk(tuple[bytes, int, int], list[bytes], False, blobs=True),
    Verb.FETCH_BLOCKS: _bulk(tuple[bytes, int, int], list[bytes], False, blobs=True),
    Verb.SCAN: _bulk(tuple[port.ScanRequest], port.ScanPage, False),
    Verb.LIST_REGISTERS: _bulk(tuple[port.ListRequest], port.ListPage, False),
    Verb.REPAIRS: _bulk(tuple[int], list[_Register], False),
    Verb.REPAIRED: _control(tuple[list[tuple[_Register, int]]], None, True),
    Verb.QUERY_MANY: _bulk(tuple[list[_Register], bool], list[port.QueryReply], False),
    Verb.FINISH_HEALING: _control(tuple[int], None, True),
    Verb.TOMBSTONES: _bulk(tuple[port.TombstoneRequest], port.TombstonePage, False),
    Verb.WEIGH_TOMBSTONES: _bulk(tuple[list[port.Tombstone], float], port.TombstoneReply, False),
    Verb.DROP_TOMBSTONES: _bulk(tuple[list[port.Tombstone]], None, True),
    Verb.SPACES: _bulk(tuple[bytes, int], list[bytes], False),
}

_ERRORS: tuple[tuple[Outcome, type[port.DriveError]], ...] = (
    (Outcome.DRIVE_OFFLINE, port.DriveOffline),
    (Outcome.DRIVE_FAULTY, port.DriveFaulty),
    (Outcome.DRIVE_FULL, port.DriveFull),
    (Outcome.SHARD_MISSING, port.ShardMissing),
    (Outcome.SHARD_CORRUPT, port.ShardCorrupt),
    (Outcome.DRIVE_ERROR, port.DriveError),
)


def outcome_of(error: port.DriveError) -> Outcome:
    return next(outcome for outcome, kind in _ERRORS if isinstance(error, kind))


def error_of(outcome: int, message: str) -> Exception:
    """The exception a failed call raises at the asking end: a DriveError, or a PeerError for a refusal."""
    for known, kind in _ERRORS:
        if outcome == known:
            return kind(message)
    return PeerRefused(f"the peer refused: {message}")


encode = msgspec.msgpack.Encoder().encode
_request_decoder = msgspec.msgpack.Decoder(ReceivedRequest)
_reply_decoder = msgspec.msgpack.Decoder(ReceivedReply)


def decode_request(header: memoryview) -> ReceivedRequest:
    """Raises msgspec.MsgspecError."""
    return _request_decoder.decode(header)


def wish_of_blobs(header: memoryview) -> Wish:
    """How the blobs of a request had best be received: blocks where the drive will have them in a page of its file, and
    hashed.  Nothing of the kind for all else, and for what cannot be read."""
    try:
        request = decode_request(header)
        if request.verb not in (Verb.STAGE, Verb.STAGE_LAST, Verb.COMMIT_SHARD) or not request.sizes:
            return Wish()
        if request.verb == Verb.COMMIT_SHARD:
            return Wish(0, request.sizes)
        _, index, _ = VERBS[request.verb].arguments.decode(request.arguments)
    except msgspec.MsgspecError:
        return Wish()
    return Wish(index * request.sizes[0] % PAGE_SIZE_BYTES, request.sizes)


def wish_of_blocks(header: memoryview) -> Wish:
    """How the blobs of a reply had best be received: hashed."""
    try:
        return Wish(0, decode_reply(header).sizes)
    except msgspec.MsgspecError:
        return Wish()


def decode_reply(header: memoryview) -> ReceivedReply:
    """Raises msgspec.MsgspecError."""
    return _reply_decoder.decode(header)
