"""Audit lines to the process's standard output, where the container's log collector takes them.

A pipe that nobody reads blocks the sink's own thread and nothing else; meanwhile the outlet's queue fills, and what
does not fit is counted as dropped.
"""

from __future__ import annotations

import os
import select
from collections.abc import Sequence

from holdfast_server.audit.outlet import DeliveryError
from holdfast_server.audit.patient_thread import PatientThread

STDOUT = 1
WAIT_MILLISECONDS = 1000


class StdoutSink:
    name = "stdout"

    def __init__(self, descriptor: int = STDOUT) -> None:
        self._descriptor = descriptor
        self._thread = PatientThread("audit-stdout")

    async def deliver(self, lines: Sequence[bytes]) -> None:
        try:
            await self._thread.call(lambda: write_all(self._descriptor, b"".join(lines)))
        except OSError as error:
            raise DeliveryError(error.strerror or str(error)) from error

    async def close(self) -> None:
        self._thread.end()


def write_all(descriptor: int, data: bytes) -> None:
    """Every byte, however long it takes; also where somebody has made the descriptor non-blocking.  Raises OSError."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            poll.poll(WAIT_MILLISECONDS)
