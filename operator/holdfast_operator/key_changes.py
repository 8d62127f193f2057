"""How keys change without locking anybody out.  Pure: time and new keys come in as arguments.

Two ways in, for root and for users alike:

* somebody writes another pair into the Secret.  It is announced already, so it becomes valid as soon as it can, and
  the one before stays valid beside it;
* somebody asks for a new pair (an annotation of a generated Secret).  It becomes valid everywhere first, is announced
  then, and the one before stays valid.

A former pair ends `overlap_seconds` after what took its place was valid everywhere, never earlier.  A generated Secret
that is gone has no say: its keys stay as they are, and it is written again.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from holdfast_operator.credentials import KeyPair
from holdfast_operator.key_book import MAX_FORMER, FormerPair, KeyHistory, PeerKeys


def change_keys(
    history: KeyHistory,
    *,
    given: KeyPair | None,
    wanted: bool,
    valid_everywhere: bool,
    mint: Callable[[], KeyPair],
    now: int,
    overlap_seconds: int,
    generated: bool,
) -> KeyHistory:
    """The next state.

    `given`: what the Secret says now.  `generated`: the operator writes that Secret, so that a former pair in it has
    not been overwritten yet, and is no wish to go back.  `wanted`: a new pair is asked for, and the wish stands until
    it has been withdrawn, which is the caller's part once `next` is there; `valid_everywhere`: all of
    `history.accepted` is; `now` in Unix seconds."""
    announced = history.current
    behind = generated and any(former.pair == given for former in history.former)
    if valid_everywhere:
        history = _all_have_taken_over(history, announce=not wanted, now=now)
    if given is not None and given != announced and not behind:
        history = _replaced(history, given)
    elif wanted and history.next is None:
        history = msgspec.structs.replace(history, next=mint())
    kept = [one for one in history.former if not one.replaced_at or now < one.replaced_at + overlap_seconds]
    return msgspec.structs.replace(history, former=tuple(kept[:MAX_FORMER]))


def _all_have_taken_over(history: KeyHistory, *, announce: bool, now: int) -> KeyHistory:
    former = tuple(one if one.replaced_at else msgspec.structs.replace(one, replaced_at=now) for one in history.former)
    if history.next is None or not announce:
        return msgspec.structs.replace(history, former=former)
    ended = FormerPair(pair=history.current, replaced_at=now)
    return KeyHistory(current=history.next, former=(ended, *former))


def _replaced(history: KeyHistory, given: KeyPair) -> KeyHistory:
    """`given` is announced already.  What it replaces counts from the moment that all have taken it over."""
    former = [one for one in history.former if one.pair != given]
    return KeyHistory(current=given, former=(FormerPair(pair=history.current), *former))


def change_peer_key(
    keys: PeerKeys, *, given: str, wanted: bool, taken_everywhere: bool, resealed: bool, mint: Callable[[], str]
) -> PeerKeys:
    """The next state.  `given`: another key that somebody wrote into the Secret, or empty; `taken_everywhere`: every
    pod works with what `keys` says; `resealed`: nothing in the store needs the former key."""
    if keys.stage == "Settled":
        if given and given != keys.own:
            return PeerKeys(own=keys.own, other=given, stage="Known")
        return PeerKeys(own=keys.own, other=mint(), stage="Known") if wanted else keys
    if not taken_everywhere:
        return keys
    if keys.stage == "Known":
        return PeerKeys(own=keys.other, other=keys.own, stage="Taken")
    return PeerKeys(own=keys.own) if resealed else keys
