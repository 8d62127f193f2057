"""One end of a TLS connection without any I/O: bytes of the wire in and out, bytes of the protocol in and out.

What it keeps is bounded whatever either end does: STEP_SIZE_BYTES at a time pass through the library's buffers, which
never shrink and would otherwise stay as large as the largest piece that ever came; what has come and is not yet read
is held by the owner of the stream (`received`), and nothing is encrypted before it can be sent (`encrypt`).  Measured:
an idle connection keeps some 50 KiB, against 520 KiB with the event loop's own way after one upload.

Not here: sockets, deadlines, who is to be stopped from sending (`tls_connection`).
"""

from __future__ import annotations

import ssl

STEP_SIZE_BYTES = 16 << 10
"""A TLS record's worth."""


class TlsStream:
    """Raises ssl.SSLError from every method where the other end does not keep to TLS, or is not to be trusted."""

    def __init__(self, context: ssl.SSLContext, *, server_side: bool, server_name: str | None = None) -> None:
        """`server_name`: for a dialling end, what the other's certificate must bear."""
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side, server_name)
        self._received = memoryview(b"")
        """Of the wire; not yet given to the library."""
        self.ended = False
        """The other end has said that nothing more comes."""

    @property
    def ssl_object(self) -> ssl.SSLObject:
        """For questions about certificate and cipher."""
        return self._object

    # --- from the wire
    def received(self, data: memoryview) -> None:
        """Take what came.  It is not copied: see `keep`."""
        assert not self._received, "what came before was not read"
        self._received = data

    def keep(self) -> None:
        """Copy what is left of it, before the caller uses its buffer for something else."""
        if self._received:
            self._received = memoryview(bytes(self._received))

    def forget(self) -> None:
        """Nothing more of it will be read."""
        self._received = memoryview(b"")

    @property
    def has_received(self) -> bool:
        """Whether something came that the library was not given yet."""
        return bool(self._received)

    def handshake(self) -> bool:
        """One step; True when it is complete."""
        while True:
            try:
                self._object.do_handshake()
                return True
            except ssl.SSLWantReadError:
                if not self._feed():
                    return False

    def read_into(self, buffer: memoryview) -> int:
        """Fill the buffer with what came, as far as that goes; 0 if nothing is complete."""
        filled = 0
        while filled < len(buffer) and not self.ended and self._may_have_more():
            try:
                count = self._object.read(len(buffer) - filled, buffer[filled:])
            except ssl.SSLWantReadError:
                if not self._feed():
                    break
                continue
            except ssl.SSLZeroReturnError:
                count = 0  # type: ignore[assignment]
            self.ended = not count
            filled += int(count)
        return filled

    def _may_have_more(self) -> bool:
        """Asking in vain raises an error, which costs more than all the rest of a small read."""
        return bool(self._received) or self._incoming.pending > 0 or self._object.pending() > 0

    def _feed(self) -> bool:
        if not self._received:
            return False
        self._incoming.write(self._received[:STEP_SIZE_BYTES])
        self._received = self._received[STEP_SIZE_BYTES:]
        return True

    # --- to the wire
    @property
    def has_own_words(self) -> bool:
        """Whether the library itself has something to say: of the handshake, an alert."""
        return self._outgoing.pending > 0

    def take(self) -> bytes:
        """What is to be sent now."""
        return self._outgoing.read()

    def encrypt(self, data: memoryview) -> tuple[int, bytes]:
        """How much of it was taken, at most a step, and what is to be sent for it."""
        count = self._object.write(data[:STEP_SIZE_BYTES])
        return count, self._outgoing.read()

    def say_goodbye(self) -> None:
        """Nothing more will be sent: `take` then has the last words."""
        try:
            self._object.unwrap()
        except ssl.SSLError:
            pass  # the other end has not said so yet, or breaks off: nobody waits for it here
