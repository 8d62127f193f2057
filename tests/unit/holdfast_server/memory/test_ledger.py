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


def test_those_who_ask_take_turns_however_many_claims_each_has() -> None:
    ledger = Ledger(1, most_waiting=9)
    ledger.ask(Claim(1))
    many = [Claim(1, "many") for _ in range(4)]
    few = [Claim(1, "few") for _ in range(2)]
    for claim in (*many, *few):
        assert ledger.ask(claim) is Verdict.WAIT
    served = [ledger.give(1) for _ in range(6)]
    assert served == [[claim] for claim in (many[0], few[0], many[1], few[1], many[2], many[3])]
    assert (ledger.waiting, ledger.give(1)) == (0, [])


def test_who_gives_up_its_only_claim_is_passed_over() -> None:
    ledger = Ledger(1, most_waiting=9)
    ledger.ask(Claim(1))
    gone, left = Claim(1, "gone"), Claim(1, "left")
    ledger.ask(gone)
    ledger.ask(left)
    assert ledger.withdraw(gone) == []
    assert ledger.give(1) == [left]
    assert ledger.waiting == 0


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 15), st.sampled_from("abc")), max_size=80))
def test_whoever_asks_nobody_waits_for_nothing_and_no_more_is_granted_than_there_is(
    steps: list[tuple[int, int, str]],
) -> None:
    ledger = Ledger(10, most_waiting=9)
    granted: list[Claim] = []
    waiting: list[Claim] = []
    for action, amount, name in steps:
        woken = _step(ledger, granted, waiting, action, amount, name)
        for claim in woken:
            # Of one asker: first come, first served.
            assert claim is next(one for one in waiting if one.asker == claim.asker)
            waiting.remove(claim)
        granted += woken
        assert ledger.used == sum(claim.amount for claim in granted) <= ledger.capacity
        assert ledger.waiting == len(waiting)
        assert not waiting or any(ledger.used + claim.amount > ledger.capacity for claim in waiting)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 15)), max_size=80))
def test_never_more_is_granted_than_there_is_and_nobody_waits_for_nothing(steps: list[tuple[int, int]]) -> None:
    ledger = Ledger(10, most_waiting=4)
    granted: list[Claim] = []
    waiting: list[Claim] = []
    for action, amount in steps:
        woken = _step(ledger, granted, waiting, action, amount)
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


def _step(
    ledger: Ledger, granted: list[Claim], waiting: list[Claim], action: int, amount: int, name: str = ""
) -> list[Claim]:
    """Ask (0), give back (1), withdraw (2); whose turn has come by that.  Keeps the lists but for those."""
    if action == 0:
        claim = Claim(amount, name)
        verdict = ledger.ask(claim)
        if verdict is not Verdict.REFUSED:
            (granted if verdict is Verdict.GRANTED else waiting).append(claim)
    elif action == 1 and granted:
        return ledger.give(granted.pop(amount % len(granted)).amount)
    elif action == 2 and waiting:
        return ledger.withdraw(waiting.pop(amount % len(waiting)))
    return []
