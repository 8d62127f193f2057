"""Who gets how much of one budget, and who waits: decisions only, no clock, no waiting.

Those who ask take turns, however many claims each has: who keeps others waiting with many requests waits for them
itself.  Among the claims of one it is first come, first served, whatever the size: a large claim is not starved by
small ones that would still fit, and begun work queues behind new work for its next piece, so that a few long downloads
do not keep everybody else out.  A claim larger than the whole budget is cut down to it and goes alone.

Invariant: the sum of what is granted never exceeds the capacity.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from enum import Enum


class Verdict(Enum):
    GRANTED = 1
    WAIT = 2
    REFUSED = 3
    """Too many wait already: the claim would only grow old."""


class Claim:
    """An amount somebody asks for, `asker` by name; `granted` once it is theirs."""

    __slots__ = ("amount", "asker", "granted")

    def __init__(self, amount: int, asker: str = "") -> None:
        self.amount = amount
        self.asker = asker
        self.granted = False


class Ledger:
    def __init__(self, capacity: int, most_waiting: int) -> None:
        """`capacity` in any unit; `most_waiting` claims."""
        assert capacity > 0
        self.capacity = capacity
        self.used = 0
        self._most_waiting = most_waiting
        self._waiting: OrderedDict[str, deque[Claim]] = OrderedDict()
        """By asker, whose turn is next first; none of them empty."""
        self.waiting = 0
        """Claims."""

    def fits(self, amount: int) -> bool:
        """Whether it could be granted now without overtaking anybody."""
        return not self._waiting and self.used + amount <= self.capacity

    def ask(self, claim: Claim) -> Verdict:
        claim.amount = min(claim.amount, self.capacity)
        if self.fits(claim.amount):
            self.used += claim.amount
            claim.granted = True
            return Verdict.GRANTED
        if self.waiting >= self._most_waiting:
            return Verdict.REFUSED
        self._waiting.setdefault(claim.asker, deque()).append(claim)
        self.waiting += 1
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
        self._waiting[claim.asker].remove(claim)
        self._forget(claim)
        return self._grant()

    def _grant(self) -> list[Claim]:
        granted = []
        while self._waiting:
            claim = next(iter(self._waiting.values()))[0]
            if self.used + claim.amount > self.capacity:
                break
            self._waiting[claim.asker].popleft()
            self._waiting.move_to_end(claim.asker)
            self._forget(claim)
            self.used += claim.amount
            claim.granted = True
            granted.append(claim)
        return granted

    def _forget(self, claim: Claim) -> None:
        """It waits no more."""
        self.waiting -= 1
        if not self._waiting[claim.asker]:
            del self._waiting[claim.asker]
