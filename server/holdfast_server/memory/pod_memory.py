"""All budgets of one pod, made from its limits; built once by the wiring and handed to whoever keeps bytes."""

from __future__ import annotations

from holdfast_server.memory.budget import Budget
from holdfast_server.memory.limits import MemoryLimits
from holdfast_server.memory.pipes import PIPE_SIZE_BYTES, Pipes

WAIT_SECONDS = 5.0
"""The longest a request waits for its turn before it is told to come again.  Long enough for a burst, and for a
drive that hangs until its deadline, to pass; far shorter than any client's patience (SDKs read for 60 s)."""
MOST_PEER_ANSWERS_WAITING = 1024


class PodMemory:
    """See `MemoryLimits` for what each is for."""

    def __init__(self, limits: MemoryLimits | None = None, wait_seconds: float = WAIT_SECONDS) -> None:
        self.limits = limits = limits or MemoryLimits()

        def budget(name: str, capacity: int) -> Budget:
            return Budget(name, capacity, wait_seconds, limits.waiting)

        self.requests = budget("requests", limits.requests)
        self.copies = budget("copies", limits.copies)
        self.admin = budget("admin requests", limits.admin_requests)
        self.writes = budget("bytes being written", limits.write_bytes)
        self.reads = budget("bytes being read", limits.read_bytes)
        self.streams = Budget("streams", limits.streams, wait_seconds, limits.waiting, (self.writes, self.reads))
        self.documents = budget("bytes of documents", limits.document_bytes)
        self.peer_answers = Budget(
            "answers to peers", limits.peer_answer_bytes, wait_seconds, MOST_PEER_ANSWERS_WAITING
        )
        self.pipes = Pipes(limits.peer_answer_bytes // PIPE_SIZE_BYTES)
        """What answers to peers are in, as far as they can be: taken from their budget, too."""

    def budgets(self) -> list[Budget]:
        """For metrics."""
        return [
            self.requests, self.streams, self.copies, self.admin,
            self.writes, self.reads, self.documents, self.peer_answers,
        ]  # fmt: skip
