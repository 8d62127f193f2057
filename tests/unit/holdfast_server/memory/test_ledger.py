"""Who gets what: pure decisions, and their invariants over random histories."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from holdfast_server.memory.ledger import Claim, Ledger, Verdict
from holdfast_server.memory.limits import MIB, MemoryLimits


def test_a_claim_that_fits_is_granted_and_one_that_does_not_waits() -> None:
    ledger = Ledger(10, most_waiting=1)
    assert ledger.ask(Claim(7)) is Verdict.GRANTED
    waiting = Claim(4)
    assert ledger.ask(waiting) is Verdict.WAIT
    assert ledger.ask(Claim(4)) is Verdict.REFUSED
    assert ledger.give(7) == [waiting]
    assert (waiting.granted, ledger.used, ledger.waiting) == (True, 4, 0)


def test_a_small_claim_does_not_overtake_a_large_one() -> None:
    ledger = Ledger(10, most_waiting=9)
    ledger.ask(Claim(8))
    large, small = Claim(9), Claim(1)
    assert ledger.ask(large) is Verdict.WAIT
    assert ledger.ask(small) is Verdict.WAIT
    assert not ledger.fits(1)
    assert ledger.give(8) == [large, small]


def test_a_claim_beyond_the_whole_goes_alone() -> None:
    ledger = Ledger(10, most_waiting=9)
    huge, other = Claim(1000), Claim(1)
    assert ledger.ask(huge) is Verdict.GRANTED
    assert ledger.ask(other) is Verdict.WAIT
    assert ledger.give(huge.amount) == [other]


def test_who_gives_up_waiting_lets_those_behind_in() -> None:
    ledger = Ledger(10, most_waiting=9)
    ledger.ask(Claim(8))
    large, small = Claim(9), Claim(2)
    ledger.ask(large)
    ledger.ask(small)
    assert ledger.withdraw(large) == [small]
    assert ledger.withdraw(small) == []  # granted meanwhile: it is given back
    assert ledger.used == 8


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 15)), max_size=80))
def test_never_more_is_granted_than_there_is_and_nobody_waits_for_nothing(steps: list[tuple[int, int]]) -> None:
    ledger = Ledger(10, most_waiting=4)
    granted: list[Claim] = []
    waiting: list[Claim] = []
    for action, amount in steps:
        woken: list[Claim] = []
        if action == 0:
            claim = Claim(amount)
            verdict = ledger.ask(claim)
            if verdict is not Verdict.REFUSED:
                (granted if verdict is Verdict.GRANTED else waiting).append(claim)
        elif action == 1 and granted:
            woken = ledger.give(granted.pop(amount % len(granted)).amount)
        elif action == 2 and waiting:
            woken = ledger.withdraw(waiting.pop(amount % len(waiting)))
        assert woken == waiting[: len(woken)]  # first come, first served
        granted += waiting[: len(woken)]
        del waiting[: len(woken)]
        assert ledger.used == sum(claim.amount for claim in granted) <= ledger.capacity
        assert ledger.waiting == len(waiting) <= 4
        if waiting:
            assert ledger.used + waiting[0].amount > ledger.capacity


def test_a_pod_of_two_drives_stays_within_what_is_documented() -> None:
    assert MemoryLimits().bound_bytes(drives=2) <= 514 * MIB
    assert MemoryLimits().bound_bytes(drives=2, tls=True) <= 648 * MIB
