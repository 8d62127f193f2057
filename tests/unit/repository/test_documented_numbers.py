"""The numbers that documents promise are those that the code goes by.

Each row is a phrase of a document, made from the constants it tells of: who changes one changes the other.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast_operator import controller, lease, provisioner
from holdfast_operator.status import progress
from holdfast_operator.tls import renewal
from holdfast_operator.tls.values import AUTHORITY_LIFETIME, LEAF_LIFETIME
from holdfast_server.admin import overview
from holdfast_server.api import failures
from holdfast_server.api.http import body, places
from holdfast_server.api.services import Limits
from holdfast_server.audit import outlet, webhook_sink
from holdfast_server.auth import failure_limits
from holdfast_server.drives import ballast, disk_threads, local, space, spares, trash
from holdfast_server.drives.faults import FaultKind
from holdfast_server.drives.parts import MAX_UNREADABLE_SHARDS
from holdfast_server.iam import access_keys, attachments, groups, parameters, policies, sessions
from holdfast_server.iam import call as iam
from holdfast_server.memory import budget, pod_memory
from holdfast_server.memory.limits import KIB, MIB, MemoryLimits
from holdfast_server.peers import channel
from holdfast_server.peers import server as peers
from holdfast_server.peers.connection import WRITE_BUFFER_HIGH_BYTES
from holdfast_server.pod import reopening
from holdfast_server.s3 import post_form
from holdfast_server.transport import listener, tls, tls_connection

ROOT = Path(__file__).resolve().parents[3]
LIMITS, FRONT = MemoryLimits(), Limits()


def mib(size_bytes: int) -> str:
    return f"{size_bytes / MIB:.0f}"


def memory_rows() -> list[str]:
    """Of the tables of what a pod may take, in MiB."""
    parts, secure = LIMITS.parts(2), LIMITS.parts(2, tls=True)
    of_peers = f"| peer requests, peer answers | {mib(parts.pop('peer requests'))} + {mib(parts.pop('peer answers'))} |"
    connections = f"| connections | {mib(secure['connections'])} instead of {mib(parts['connections'])} |"
    added = {name: size for name, size in secure.items() if name.startswith("TLS")}
    return [of_peers, connections, *(f"| {name} | {mib(size)} |" for name, size in (parts | added).items())]


OPERATIONS = [
    *memory_rows(),
    f"stays below **{LIMITS.bound_bytes(2) / MIB:.0f} MiB**",
    f"stays below **{LIMITS.bound_bytes(2, tls=True) / MIB:.0f} MiB**",
    f"and {LIMITS.table_bytes // MIB} MiB for every drive beyond two",
    f"| {LIMITS.requests} at once that do not stream, {LIMITS.request_bytes // KIB} KiB each",
    f"| {LIMITS.waiting} that wait for a place and {LIMITS.waiting} that wait to stream,"
    f" {LIMITS.waiting_bytes // KIB} KiB each",
    f"| {LIMITS.connections:,} open ones, {LIMITS.connection_bytes // KIB} KiB each",
    f"| {LIMITS.streams} uploads and downloads of more than {LIMITS.streamed_from_bytes // KIB} KiB at once,"
    f" {LIMITS.stream_buffer_bytes // KIB} KiB each",
    f"for at most {pod_memory.WAIT_SECONDS:g} s; then it is answered 503 `SlowDown` with"
    f" `Retry-After: {failures.RETRY_AFTER_SECONDS}`",
    f"when in {body.SLOW_SECONDS:g} s nothing or less than {body.PACE_BYTES // KIB} KiB came",
    f"and {places.GRACE_SECONDS:g} s later still: it is answered `RequestTimeout`",
    f"took less than a stripe of 1 MiB in {budget.SLOW_SECONDS:g} s",
    f"sends nothing, or takes nothing, for {FRONT.read_idle_seconds:g} s is cut off",
    f"must be complete {FRONT.head_seconds:g} s after its first byte and have at most"
    f" {FRONT.head_size_bytes // KIB} KiB",
    f"| says nothing | after {listener.FIRST_BYTES_SECONDS:g} s where the port takes TLS, else after"
    f" {FRONT.keepalive_seconds:g} s; on the peers' port after {channel.HANDSHAKE_TIMEOUT_SECONDS:g} s at most |",
    f"is one of more than {listener.MAX_ARRIVING} that have not said",
    f"| after {tls.HANDSHAKE_SECONDS:g} s, or {listener.CROWDED_SECONDS:g} s while others wait:"
    f" {listener.MAX_SHAKING_HANDS} are served at once (peers: {peers.MAX_SHAKING_HANDS})",
    f"| {tls_connection.GOODBYE_SECONDS:g} s after the last byte was taken, {tls_connection.FLUSH_SECONDS:g} s after",
    f"nothing more is sent once {WRITE_BUFFER_HIGH_BYTES // MIB} MiB are on their way",
    f"opened anew after {reopening.FIRST_PAUSE_SECONDS[FaultKind.MEDIUM]:g} s, then after pauses that double up to"
    f" {reopening.LAST_PAUSE_SECONDS[FaultKind.MEDIUM]:g} s, and forgotten after {reopening.WELL_SECONDS / 60:g} min",
    f"{MAX_UNREADABLE_SHARDS} shards could not be read",
    f"has been under way for more than {disk_threads.HANG_SECONDS:g} s",
    f"at most {disk_threads.HANG_SECONDS + disk_threads.WATCH_INTERVAL_SECONDS:g} s for it",
    f"hangs again and again within {local.HANGS_REMEMBERED_SECONDS / 60:g} minutes",
    f"a reserve ({space.RESERVE_BYTES // MIB} MiB or {space.RESERVE_FRACTION:.0%} of each drive,".replace("1%", "1 %"),
    f"freed {trash.RECLAIM_DELAY_SECONDS:g} to {2 * trash.RECLAIM_DELAY_SECONDS:g} seconds later",
    f"{spares.MAX_BYTES >> 30} GiB at most, is kept as files",
    f"gives up its ballast ({ballast.BALLAST_BYTES // MIB} MiB,",
    f"each sink has a queue of {outlet.QUEUE_BYTES // MIB} MiB",
    f"up to {outlet.BATCH_BYTES // KIB} KiB, {webhook_sink.TIMEOUT_SECONDS:g} s to answer with a 2xx",
    f"pauses of {outlet.FIRST_PAUSE_SECONDS:g} to {outlet.LAST_PAUSE_SECONDS:g} s",
    f"gives each sink {outlet.FLUSH_SECONDS:g} s for what it has",
    f"one that is told to end hands over in {lease.RETRY_SECONDS:g} seconds",
    f"replaced after {lease.DURATION_SECONDS} to {lease.DURATION_SECONDS + 2 * lease.RETRY_SECONDS:g} seconds",
    f"one that cannot renew for {lease.DEADLINE_SECONDS:g} seconds stops",
    f"`timed_out` (after {controller.PASS_TIMEOUT_SECONDS:g} s)",
    f"passes under way, {controller.WORKERS} at most",
    f"progress alone is written every {progress.PROGRESS_SECONDS:g} seconds at most",
    f"made by the operator, {LEAF_LIFETIME.days} days, renewed after {LEAF_LIFETIME.days * 2 // 3}",
]  # fmt: skip

COMPATIBILITY = [
    f"Limits: {access_keys.MAX_KEYS_PER_USER} keys and {groups.MAX_GROUPS_PER_USER} groups a user,"
    f" {attachments.MAX_ATTACHED} attached policies, {policies.MAX_VERSIONS} versions",
    f"{iam.MAX_ENTITIES_PER_ACCOUNT:,} entities and {iam.MAX_SIZE_BYTES_PER_ACCOUNT // MIB} MiB an account,"
    f" {iam.MAX_ENTITIES:,} and {iam.MAX_SIZE_BYTES // MIB} MiB a store",
    f"Lists have pages of up to {parameters.MAX_PAGE:,}",
    f"Sessions last {sessions.MIN_SECONDS // 60} minutes to 12 hours ({sessions.MAX_USER_SECONDS // 3600} for",
    f"their fields may take {post_form.MAX_FIELDS_SIZE_BYTES // KIB} KiB, the lines in front of each value"
    f" {post_form.MAX_PART_HEAD_SIZE_BYTES // KIB} KiB",
    f"`RequestTimeout` after {FRONT.head_seconds:g} s",
    f"body that stalls for {FRONT.read_idle_seconds:g} s",
]

TLS = [
    f"Certificates live {LEAF_LIFETIME.days} days and are renewed after two thirds",
    f"in the bundle (`ca.crt`) for {renewal.HANDOVER.days} days before it signs",
    f"those under way are answered on the old one (at most {channel.RETIRE_SECONDS:g} s)",
]

IDENTITY = [
    f"{failure_limits.SOURCE_BURST:g} failures at once and {failure_limits.SOURCE_PER_SECOND:g} a second are looked at",
    f"({failure_limits.KEY_BURST:g} at once, {failure_limits.KEY_PER_SECOND:g} a second)",
]

PHRASES = [
    (document, phrase)
    for document, phrases in (
        ("docs/operations.md", OPERATIONS),
        ("docs/s3-compatibility.md", COMPATIBILITY),
        ("docs/decisions/0007-tls.md", TLS),
        ("docs/decisions/0013-identity.md", IDENTITY),
    )
    for phrase in phrases
]


@pytest.mark.parametrize(("document", "phrase"), PHRASES, ids=[phrase for _, phrase in PHRASES])
def test_a_document_has_the_number_that_the_code_has(document: str, phrase: str) -> None:
    assert phrase in " ".join((ROOT / document).read_text().split())


def test_what_is_five_years_or_a_minute_in_words_is_so() -> None:
    assert AUTHORITY_LIFETIME.days == 5 * 365
    assert overview.ASK_TIMEOUT_SECONDS == 3  # "within three seconds"
    assert (provisioner.VERIFY_SECONDS, provisioner.REPEAT_SECONDS) == (60, 600)  # "every minute", "every ten minutes"
    assert (spares.SHARE, 1 / ballast.BALLAST_SHARE) == (1 / 100, 1 / 16)  # "a hundredth", "a sixteenth"
    assert reopening.LAST_PAUSE_SECONDS[FaultKind.PLACE] < 10  # "within 10 s of the right one being there"
