"""The memory of one pod, budget by budget: the one place where sizes that add up are written down.

Every part of the server that keeps bytes for somebody takes them out of one of these; `bound_bytes` is their
sum, and the tests hold real pods under load against it.  docs/operations.md ("Memory") tells it to people.
TLS takes more: what is encrypted exists twice, for as long as the socket has not taken it (`transport`).
Pure.  Not here: who waits for whom (`ledger`).
"""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1 << 10
MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class MemoryLimits:
    """Defaults are for a pod of two cores with two drives and at most 512 MiB.  Sizes in bytes."""

    # --- what clients can make a pod hold
    connections: int = 2048
    """Open at once; an idle one has to give way to one more."""
    connection_bytes: int = 12 * KIB
    """Of an idle connection: socket, transport, protocol."""
    tls_connection_places: int = 2
    """How many of the connections one with TLS counts for."""
    tls_connection_bytes: int = 64 * KIB
    """Of an idle one with TLS that was used both ways: what the library keeps of each, on top of the above."""
    requests: int = 256
    """Worked on at once, but for those that stream.  Loki alone keeps some 180 in flight."""
    request_bytes: int = 128 * KIB
    """Of one that does not stream: objects of at most 64 KiB, their shards, records."""
    waiting: int = 256
    """Requests that wait for their turn, and as many that wait to stream; one more is refused at once."""
    waiting_bytes: int = 64 * KIB
    """Of a request that waits: its head, and what came of its body before it was read no further."""
    streams: int = 96
    """Uploads and downloads of more than `streamed_from_bytes` at once."""
    streamed_from_bytes: int = 64 * KIB
    stream_buffer_bytes: int = 192 * KIB
    """Of each of them: what the socket delivered and nobody has taken yet."""
    write_bytes: int = 64 * MIB
    """Stripes of all uploads, as they are received, encoded, and until the drives have their shards."""
    read_bytes: int = 64 * MIB
    """Batches of stripes of all downloads, until the clients have taken them."""
    copies: int = 4
    """Copies at once: each takes from both budgets, so few enough that they alone exhaust neither."""
    document_bytes: int = 24 * MIB
    """Pages of listings, request documents and their answers."""
    admin_requests: int = 32
    """Requests of the admin API at once, whatever else goes on."""
    admin_request_bytes: int = 128 * KIB

    # --- what TLS adds for clients
    tls_handshakes: int = 128 + 32
    """At once, of clients and of peers (`transport.listener`, `peers.server`)."""
    tls_handshake_bytes: int = 160 * KIB
    """Where the other end makes the most of it: a first message of 128 KiB."""
    tls_session_bytes: int = 11 * MIB
    """Sessions of clients that take no tickets: the library keeps 20,480 of 0.53 KiB."""
    tls_waiting_bytes: int = 16 * KIB
    """Of a request that waits: a record that has come in part."""
    tls_request_bytes: int = 64 * KIB
    """Of one that does not stream: its response, encrypted."""
    tls_stream_bytes: int = 152 * KIB
    """Of an upload: what came with one read and nobody has taken; of a download: what the socket has not taken."""

    # --- what peers can make a pod hold
    peer_request_bytes: int = 16 * MIB
    """Frames that came from all peers and are being served; above it, connections are read no further."""
    peer_answer_bytes: int = 16 * MIB
    """Blocks read for all peers, until they have taken them."""

    tls_peer_bytes: int = 8 * MIB
    """Of its connections to 15 other pods, two classes each way: what the library keeps, and a buffer to read into."""

    # --- what it does on its own account
    background_tasks: int = 1000
    """Notes, releases, read repairs that run beside requests; more are dropped (docs/quorum.md, rule 1)."""
    background_task_bytes: int = 12 * KIB
    healing_bytes: int = 16 * MIB
    """One object at a time: a batch of its blocks from every drive."""
    table_bytes: int = 36 * MIB
    """RocksDB of one drive: block cache with index and filter blocks 16 MiB, memtables 16 MiB, the rest around them
    (`drives.engine`; measured flat over 600,000 rows)."""
    audit_bytes: int = 4 * MIB
    """Lines of the audit log that wait for stdout, a file and a webhook, and a batch of each on its way."""
    process_bytes: int = 76 * MIB
    """The interpreter, the code, the libraries, threads; what an idle pod has."""
    allocator_bytes: int = 40 * MIB
    """Freed, but kept for the next use (`wiring.process`)."""

    def parts(self, drives: int, *, tls: bool = False) -> dict[str, int]:
        """What each kind of use may take at most, in bytes, by name, in a pod with so many drives."""
        parts = {
            "process": self.process_bytes,
            "connections": self.connections * self.connection_bytes,
            "requests": self.requests * self.request_bytes,
            "waiting": 2 * self.waiting * self.waiting_bytes,
            "streams": self.streams * self.stream_buffer_bytes,
            "writes": self.write_bytes,
            "reads": self.read_bytes,
            "documents": self.document_bytes,
            "admin": self.admin_requests * self.admin_request_bytes,
            "peer requests": self.peer_request_bytes,
            "peer answers": self.peer_answer_bytes,
            "background": self.background_tasks * self.background_task_bytes,
            "healing": self.healing_bytes,
            "audit": self.audit_bytes,
            "tables": drives * self.table_bytes,
            "allocator": self.allocator_bytes,
        }
        return parts | self._tls_parts() if tls else parts

    def _tls_parts(self) -> dict[str, int]:
        secure = self.connections // self.tls_connection_places
        return {
            "connections": max(
                self.connections * self.connection_bytes, secure * (self.connection_bytes + self.tls_connection_bytes)
            ),
            "TLS handshakes": self.tls_handshakes * self.tls_handshake_bytes,
            "TLS sessions": self.tls_session_bytes,
            "TLS records": self.requests * self.tls_request_bytes
            + 2 * self.waiting * self.tls_waiting_bytes
            + self.streams * self.tls_stream_bytes,
            "TLS to peers": self.tls_peer_bytes,
        }

    def bound_bytes(self, drives: int, *, tls: bool = False) -> int:
        """What a pod may take under any load."""
        return sum(self.parts(drives, tls=tls).values())
