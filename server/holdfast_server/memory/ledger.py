"""Who gets how much of one budget, and who waits: decisions only, no clock, no waiting.

First come, first served, whatever the size: a large claim is not starved by small ones that would still fit,
and begun work queues behind new work for its next piece, so that a few long downloads do not keep everybody
else out.  A claim larger than the whole budget is cut down to it and goes alone.

Invariant: the sum of what is granted never exceeds the capacity.
"""

from __future__ import annotations

from collections import deque
from enum import Enum


class Verdict(Enum):
    GRANTED = 1
    WAIT = 2
    REFUSED = 3
    """Too many wait already: the claim would only grow old."""


class Claim:
    """An amount somebody asks for; `granted` once it is theirs."""

    __slots__ = ("amount", "granted")

    def __init__(self, amount: int) -> None:
        self.amount = amount
        self.granted = False


class Ledger:
    def __init__(self, capacity: int, most_waiting: int) -> None:
        """`capacity` in any unit; `most_waiting` claims."""
        assert capacity > 0
        self.capacity = capacity
        self.used = 0
        self._most_waiting = most_waiting
        self._waiting: deque[Claim] = deque()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def fits(self, amount: int) -> bool:
        """Whether it could be granted now without overtaking anybody."""
        return not self._waiting and self.used + amount <= self.capacity

    def ask(self, claim: Claim) -> Verdict:
        claim.amount = min(claim.amount, self.capacity)
        if self.fits(claim.amount):
            self.used += claim.amount
            claim.granted = True
            return Verdict.GRANTED
        if len(self._waiting) >= self._most_waiting:
            return Verdict.REFUSED
        self._waiting.append(claim)
        return Verdict.WAIT

    def give(self, amount: int) -> list[Claim]:
        """Give an amount back; returns the claims that are granted by that, in order."""
        self.used -= amount
        assert self.used >= 0, "more was given back than taken"
        return self._grant()

    def withdraw(self, claim: Claim) -> list[Claim]:
        """Somebody does not want to wait any longer; those behind may fit now."""
        if claim.granted:
            claim.granted = False
            return self.give(claim.amount)
        self._waiting.remove(claim)
        return self._grant()

    def _grant(self) -> list[Claim]:
        granted = []
        while self._waiting and self.used + self._waiting[0].amount <= self.capacity:
            claim = self._waiting.popleft()
            self.used += claim.amount
            claim.granted = True
            granted.append(claim)
        return granted
