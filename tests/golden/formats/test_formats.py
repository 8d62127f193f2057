"""Today's bytes of every format that outlives a process or crosses a connection, beside those of `drives`.

`formats.json` has one example of each, by name: what pods in the field hold and say.  A change that breaks a line needs
a new version of that format and a reader for the old one; the old line stays.  Growing at the end breaks none.
`HOLDFAST_WRITE_GOLDEN=1` adds lines for names that are new, and changes none.

The drive's own formats are in `tests/unit/holdfast_server/drives/test_drive_formats.py`, the operator's ledger in
`tests/unit/holdfast_operator/test_operator_ledger.py`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import pytest
import xxhash

from holdfast_server.api import bucket_record, user_documents
from holdfast_server.api.bucket_record import BucketDocumentError, BucketRecord, PublicAccessBlock
from holdfast_server.api.session_tokens import Session
from holdfast_server.api.user_documents import AccountDocument, UserDocument
from holdfast_server.auth import entities
from holdfast_server.contract.config import (
    ConfigError,
    ErasureConfig,
    KeyFiles,
    PoolConfig,
    ServerConfig,
    TenantConfig,
    from_builtins,
    to_builtins,
)
from holdfast_server.drives import port
from holdfast_server.drives.port import CommitMode, CommitStatus, DriveState, PrepareStatus, Register
from holdfast_server.drives.slot import SlotMemory
from holdfast_server.heal.filling import Pass
from holdfast_server.heal.scanner import ScanPass
from holdfast_server.objects import record
from holdfast_server.objects.record import Extent, Geometry, Kind, PartInfo, Record, RecordCorrupt, VersionInfo
from holdfast_server.peers import handshake, messages
from holdfast_server.peers.frames import encode_frame
from holdfast_server.peers.messages import Reply, Report, Request, Verb
from holdfast_server.s3.acl import Grant
from holdfast_server.s3.cors import CorsRule
from holdfast_server.s3.encryption import BucketEncryption
from holdfast_server.sealing.envelope import SSE_KMS, Sealing

FILE = Path(__file__).with_name("formats.json")

ID = bytes(range(16))
REGISTER = Register(b"o" + ID, "folder/ключ", b"")
HELD = port.Held(1 << 60, False, b"record", 2, b"inline", (ID,))
STATUS = port.DriveStatus(DriveState.HEALING, ID, 1 << 59, "text", 1 << 40, 1 << 39, 1 << 30)
RECORDS = {
    "object": Record(
        Kind.OBJECT, 1 << 60, 1_700_000_000_000, 1_048_577, "d41d8cd98f00b204e9800998ecf8427e",
        {"content-type": "text/plain", "x-amz-meta-a": "ü"}, {"CRC32C": "AAAAAA==", "type": "FULL_OBJECT"},
        Geometry(2, 2), (Extent(ID, 1_048_577),),
    ),
    "completed object": Record(
        Kind.OBJECT, 7, 1, 3, "0-2", {}, {}, Geometry(4, 2), (Extent(ID, 2), Extent(ID[::-1], 1)),
        (PartInfo(1, 2, "e1"), PartInfo(2, 1, "e2", "c2")),
    ),
    "tombstone": Record(Kind.TOMBSTONE, 8, 2),
    "upload": Record(Kind.UPLOAD, 9, 3, headers={"a": "b"}, body=b"kept by the API"),
    "part": Record(Kind.PART, 10, 4, 5, "e", {}, {}, Geometry(2, 2), (Extent(ID, 5),)),
    "document": Record(Kind.DOCUMENT, 11, 5, 2, body=b"{}"),
    "moved": Record(Kind.MOVED, 12, 6),
    "delete marker": Record(Kind.OBJECT, 13, 7, version=VersionInfo(b"p" * 8, False, True, b"n" * 8)),
    "resting version": Record(
        Kind.OBJECT, 14, 8, 5, "e", {}, {}, Geometry(2, 2), (Extent(ID, 5),),
        version=VersionInfo(b"p" * 8, True, claimed=True),
    ),
    "sealed object": Record(
        Kind.OBJECT, 15, 9, 5, "e", {}, {}, Geometry(2, 2), (Extent(ID, 21),), (PartInfo(1, 5, "e"),),
        sealing=Sealing(SSE_KMS, "billing.2", b"s" * 32, b"w" * 48, "e30=", "billing", True, b"t" * 32),
    ),
}  # fmt: skip
BUCKET = BucketRecord(
    id=ID, name="logs", owner="root", region="us-east-1", created_ms=1, state="deleting", mark=b"m", marked_ms=2
)
SEALED_BUCKET = msgspec.structs.replace(
    BUCKET, format=bucket_record.SEALED_FORMAT, encryption=BucketEncryption("aws:kms", "billing", True)
)
VERSIONED_BUCKET = msgspec.structs.replace(BUCKET, versioning="Enabled", format=bucket_record.VERSIONED_FORMAT)
BUCKET_WITH_SETTINGS = msgspec.structs.replace(
    BUCKET,
    state="active",
    tags={"team": "one"},
    cors=[CorsRule(origins=["*"], methods=["GET"], headers=["x-*"], exposed=["ETag"], max_age_seconds=5, id="app")],
    account="other",
    policy='{"Statement": []}',
    ownership="ObjectWriter",
    grants=[Grant("http://acs.amazonaws.com/groups/global/AllUsers", "READ")],
    public_access_block=PublicAccessBlock(ignore_public_acls=True),
)
USER_OF_AN_ACCOUNT = UserDocument(secret="c2VjcmV0", account="other")
USER = UserDocument(secret="c2VjcmV0", name="app", policies=["readwrite"], enabled=False, changed_ms=3)
KEY_OF_CLIENTS = UserDocument(
    secret="c2VjcmV0", name="ann", account="other", identity="AIDAABCDEFGHIJKLMNOPQ", expires_ms=5, policy="{}",
    created_ms=4, account_root=True,
)  # fmt: skip
ENTITIES: dict[str, entities.Entity] = {
    "user": entities.UserEntity(
        id="AIDAABCDEFGHIJKLMNOPQ", name="Ann", account="other", path="/staff/", created_ms=1, moves=1, tags={"a": "b"},
        inline={"own": "{}"}, attached=[entities.Attached("arn:aws:iam::aws:policy/readonly")], declared=True,
        groups=[entities.Reference("staff", "AGPAABCDEFGHIJKLMNOPQ")],
    ),
    "group": entities.GroupEntity(id="AGPAABCDEFGHIJKLMNOPQ", name="staff"),
    "role": entities.RoleEntity(
        id="AROAABCDEFGHIJKLMNOPQ", name="reader", trust="{}", description="reads", max_session_seconds=7200
    ),
    "policy": entities.PolicyEntity(
        id="ANPAABCDEFGHIJKLMNOPQ", name="may", description="what", changed_ms=2, default=2, next_number=3,
        versions=[entities.PolicyVersion(number=2, text="{}", created_ms=1)],
    ),
}  # fmt: skip
SESSION = Session(
    secret="s", issued_ms=1, expires_ms=2, parent="AKIA", parent_mark=b"mark", kind="role", account="other",
    role_name="reader", role_id="AROAABCDEFGHIJKLMNOPQ", session_name="me", policy="{}",
    policy_arns=[entities.Attached("arn:aws:iam::000000000000:policy/may", "ANPAABCDEFGHIJKLMNOPQ")],
)  # fmt: skip
CONFIG = ServerConfig(
    tenant=TenantConfig(id="t-1", name="logs", namespace="loki"),
    epoch=3,
    pools=[
        PoolConfig(
            name="more", servers=4, volumes_per_server=2, erasure=ErasureConfig(set_size=8, parity=4),
            pod_name_prefix="logs-pool-more-", host_suffix=".logs-pods", drive_path="/data{volume}", first_node=4,
            readable_from_epoch=2, writable_from_epoch=3, formatting=True,
        ),
        PoolConfig(
            name="main", servers=4, volumes_per_server=1, erasure=ErasureConfig(set_size=4, parity=2),
            pod_name_prefix="logs-pool-main-", drive_path="/data",
        ),
    ],
    keys=KeyFiles(root_user_file="/u", root_password_file="/p", peer_key_file="/k"),
)  # fmt: skip
HELLO = handshake.Hello("holdfast-peer", 1, "t-1", "main", 0, "logs-0", "main", 1, 2, b"n" * 32, 1)
SPOKEN: dict[str, Any] = {
    "report": Report(3, (STATUS,), 1.5, True, ("versions",)),
    "report with keys": Report(3, (STATUS,), 1.5, True, ("sealing",), 5, (b"12345678",)),
    "query reply": port.QueryReply((HELD,), 5, 6, 7, True),
    "commit request": port.CommitRequest(REGISTER, HELD, CommitMode.HEAL, b"lease", 9),
    "commit reply": port.CommitReply(CommitStatus.NO_DATA, 9),
    "prepare reply": port.PrepareReply(PrepareStatus.MISMATCH, 9, False),
    "fence reply": port.FenceReply(True, False, 9),
    "scan request": port.ScanRequest(b"o" + ID, b"p", b"s", b"/", 10, False, b"v", True),
    "scan page": port.ScanPage((port.ScanEntry(REGISTER, HELD, 5, True, b"g/"),), b"n", False, b"v"),
    "list request": port.ListRequest(b"o" + ID, b"p", b"s", b"/", 10, True, True, False),
    "list page": port.ListPage(
        [b"g/", b"key\0\0\0\0"], [5, 6], b"\5\1", [b"g/1\0\0\0\0", b""], [b"", b"record"], b"n", True
    ),
    "slot memory": SlotMemory("main", 1, 2, ID, 1 << 59),
    "request": Request(9, Verb.QUERY, 1, (4, 5), (REGISTER, True)),
    "reply": Reply(9, messages.Outcome.OK, (4,), None),
    "hello": HELLO,
    "challenge": handshake.Challenge(1, "t-1", "main", 1, "logs-1", b"m" * 32, b"mac"),
    "proof": handshake.Proof(b"report", b"mac"),
    "welcome": handshake.Welcome(b"report", b"mac"),
    "refusal": handshake.Refusal("why"),
}
KEPT: dict[str, Any] = {
    "filling": Pass(1 << 59, registers=5, copied=2, copied_bytes=3, left=1),
    "scanner": ScanPass(ID, 1, registers=5),
}


def _examples() -> dict[str, bytes]:
    pack = msgspec.msgpack.encode
    found = {f"record: {name}": record.encode(value) for name, value in RECORDS.items()}
    found["document: bucket"] = bucket_record.encode(BUCKET)
    found["document: bucket that keeps versions"] = bucket_record.encode(VERSIONED_BUCKET)
    found["document: bucket with encrypted objects"] = bucket_record.encode(SEALED_BUCKET)
    found["document: bucket with settings"] = bucket_record.encode(BUCKET_WITH_SETTINGS)
    found["document: user"] = msgspec.json.encode(USER)
    found["document: user of an account"] = msgspec.json.encode(USER_OF_AN_ACCOUNT)
    found["document: key that clients made"] = user_documents.encode_user(KEY_OF_CLIENTS)
    found["document: account"] = msgspec.json.encode(AccountDocument(display_name="Other"))
    found |= {f"document: {kind} of IAM": entities.encode_entity(entity) for kind, entity in ENTITIES.items()}
    found["session"] = msgspec.msgpack.encode(SESSION)
    found["config"] = msgspec.json.encode(to_builtins(CONFIG))
    found |= {f"message: {name}": pack(value) for name, value in SPOKEN.items()}
    found |= {f"kept: {name}": pack(value) for name, value in KEPT.items()}
    found["frame"] = b"".join(map(bytes, encode_frame(b"header", [b"blob", b"another"])))
    return found


EXAMPLES = _examples()


@pytest.fixture(scope="module")
def golden() -> dict[str, bytes]:
    known: dict[str, str] = json.loads(FILE.read_text()) if FILE.exists() else {}
    if os.environ.get("HOLDFAST_WRITE_GOLDEN"):
        known = {**{name: data.hex() for name, data in EXAMPLES.items()}, **known}
        FILE.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
    return {name: bytes.fromhex(text) for name, text in known.items()}


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_what_is_written_is_what_it_was_or_has_grown_at_the_end(name: str, golden: dict[str, bytes]) -> None:
    before, now = golden[name], EXAMPLES[name]
    if name == "frame":
        assert now == before
    elif name.startswith("record: "):
        assert now[:4] == before[:4]
        assert _grew(msgspec.msgpack.decode(before[12:]), msgspec.msgpack.decode(now[12:]))
    elif name.startswith(("message: ", "kept: ", "session")):
        assert _grew(msgspec.msgpack.decode(before), msgspec.msgpack.decode(now))
    else:
        assert _grew(json.loads(before), json.loads(now))


def _grew(before: Any, now: Any) -> bool:
    """The same, but for fields appended and members added."""
    if isinstance(before, list):
        return isinstance(now, list) and len(now) >= len(before) and all(map(_grew, before, now))
    if isinstance(before, dict):
        return isinstance(now, dict) and all(name in now and _grew(before[name], now[name]) for name in before)
    return type(before) is type(now) and bool(before == now)


def test_a_field_that_changes_its_place_or_type_is_noticed() -> None:
    assert _grew([1, [2, {"a": 3}]], [1, [2, {"a": 3, "b": 4}, 5], 6])
    for changed in (
        [[2, {"a": 3}], 1],
        [1, [{"a": 3}]],
        [1, [2, {"b": 3}]],
        [1, [2, {"a": "3"}]],
        [True, [2, {"a": 3}]],
    ):
        assert not _grew([1, [2, {"a": 3}]], changed)


@pytest.mark.parametrize("name", sorted(RECORDS))
def test_a_record_reads_back(name: str, golden: dict[str, bytes]) -> None:
    assert record.decode(golden[f"record: {name}"]) == RECORDS[name]


@pytest.mark.parametrize("name", sorted(SPOKEN))
def test_a_message_reads_back_and_what_a_newer_pod_appends_is_passed_over(name: str, golden: dict[str, bytes]) -> None:
    value = SPOKEN[name]
    said = msgspec.msgpack.encode(value)
    read = msgspec.msgpack.decode(said, type=type(value))
    assert msgspec.msgpack.decode(golden[f"message: {name}"], type=type(value)) == read
    grown = msgspec.msgpack.encode([*msgspec.msgpack.decode(said), "of tomorrow", 2])
    assert msgspec.msgpack.decode(grown, type=type(value)) == read


def test_a_report_from_before_pods_told_of_their_requests_is_read(golden: dict[str, bytes]) -> None:
    data = golden["message: report, before slowdown"]
    assert msgspec.msgpack.decode(data, type=Report) == Report(3, (STATUS,))


def test_messages_from_before_there_were_versions_are_read(golden: dict[str, bytes]) -> None:
    data = golden["message: scan request, before delete markers"]
    asked = port.ScanRequest(b"o" + ID, b"p", b"s", b"/", 10, False, b"v")
    assert msgspec.msgpack.decode(data, type=port.ScanRequest) == asked
    assert msgspec.msgpack.decode(golden["message: report, before features"], type=Report) == Report(3, (STATUS,))


@pytest.mark.parametrize("name", sorted(KEPT))
def test_what_a_pod_keeps_on_its_drives_reads_back(name: str, golden: dict[str, bytes]) -> None:
    data = golden[f"kept: {name}"]
    assert msgspec.msgpack.decode(data, type=type(KEPT[name])) == KEPT[name]
    appended = msgspec.msgpack.encode([*msgspec.msgpack.decode(data), "of tomorrow"])
    assert msgspec.msgpack.decode(appended, type=type(KEPT[name])) == KEPT[name]


def test_documents_and_configuration_read_back(golden: dict[str, bytes]) -> None:
    assert bucket_record.decode(golden["document: bucket"]) == BUCKET
    assert bucket_record.decode(golden["document: bucket with settings"]) == BUCKET_WITH_SETTINGS
    account = msgspec.json.decode(golden["document: user of an account"], type=UserDocument)
    assert account == USER_OF_AN_ACCOUNT
    assert bucket_record.decode(golden["document: bucket that keeps versions"]) == VERSIONED_BUCKET
    assert msgspec.json.decode(golden["document: user"], type=UserDocument) == USER
    key = msgspec.json.decode(golden["document: key that clients made"], type=UserDocument)
    assert key == msgspec.structs.replace(KEY_OF_CLIENTS, format=2), "what an older pod must not overlook"
    assert {kind: entities.decode_entity(golden[f"document: {kind} of IAM"]) for kind in ENTITIES} == ENTITIES
    assert msgspec.msgpack.decode(golden["session"], type=Session) == SESSION
    assert from_builtins(json.loads(golden["config"])) == CONFIG


def test_a_record_of_a_newer_server_with_more_fields_is_read(golden: dict[str, bytes]) -> None:
    body = msgspec.msgpack.encode([*msgspec.msgpack.decode(golden["record: sealed object"][12:]), "of tomorrow"])
    assert record.decode(record.MAGIC + xxhash.xxh3_64_digest(body) + body) == RECORDS["sealed object"]


def test_documents_of_a_newer_server_with_more_fields_are_read() -> None:
    later = {**json.loads(bucket_record.encode(BUCKET)), "tomorrow": {"on": True}}
    read = bucket_record.decode(json.dumps(later).encode())
    assert msgspec.structs.replace(read, unknown={}) == BUCKET
    assert json.loads(bucket_record.encode(read)) == later  # a change by this server takes nothing of it away
    user = {**json.loads(msgspec.json.encode(USER)), "groups": ["a"]}
    assert msgspec.json.decode(json.dumps(user).encode(), type=UserDocument) == USER


def test_documents_written_before_they_had_a_format_are_of_the_first() -> None:
    before = json.loads(bucket_record.encode(BUCKET))
    del before["format"]
    assert bucket_record.decode(json.dumps(before).encode()) == BUCKET


def test_later_versions_are_refused_by_name(golden: dict[str, bytes]) -> None:
    newer = bytearray(golden["record: object"])
    newer[3] = 2
    with pytest.raises(RecordCorrupt, match="format version 2, this server reads 1"):
        record.decode(bytes(newer))
    later = bucket_record.NEWEST_FORMAT + 1
    with pytest.raises(BucketDocumentError, match=f"'logs' has format {later}, this server reads up to {later - 1}"):
        bucket_record.decode(bucket_record.encode(msgspec.structs.replace(BUCKET, format=later)))
    listed = bucket_record.decode_listed(bucket_record.encode(msgspec.structs.replace(BUCKET, format=later)))
    assert (listed.id, listed.name, listed.lifecycle) == (BUCKET.id, BUCKET.name, []), "it expires nothing"
    with pytest.raises(ConfigError, match="version: 2 is not 1"):
        from_builtins({**json.loads(golden["config"]), "version": 2})
    assert user_documents.USER_FORMAT == 2


def test_every_verb_keeps_its_number() -> None:
    known = {
        "PING": 1, "ANNOUNCE": 2, "FENCE_BUCKET": 3, "REMEMBERED_SLOTS": 4, "REMEMBER_SLOTS": 5, "QUERY": 16,
        "COMMIT": 17, "NOTE": 18, "PREPARE": 19, "RELEASE": 20, "FENCE": 21, "REMOVE": 22, "STAGE": 24, "SEAL": 25,
        "DISCARD": 26, "READ_BLOCKS": 27, "SCAN": 28, "REPAIRS": 29, "FINISH_HEALING": 31, "SPACES": 32,
    }  # fmt: skip
    assert {name: Verb[name].value for name in known} == known
    assert all(verb in messages.VERBS for verb in Verb)


def test_everything_that_is_spoken_may_grow() -> None:
    """A type that forbids fields it does not know would turn away a newer pod."""
    kinds: list[Any] = [type(value) for value in SPOKEN.values()] + [
        Record,
        VersionInfo,
        Extent,
        PartInfo,
        Geometry,
        Pass,
        ScanPass,
    ]
    for kind in kinds:
        assert kind.__struct_config__.array_like, kind
        assert not kind.__struct_config__.forbid_unknown_fields, kind
        assert get_type_hints(kind)
