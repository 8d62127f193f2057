"""A person's decision about a version that is stuck (rule 11, last sentence).

Stuck is what all drives of the set together can neither decide nor rebuild: fewer than K shards are left, and it may
have been acknowledged.  Two kinds: it was *committed* and lost more shards than parity replaces; or it is *undecided*,
an acknowledged write that was lost, or one that failed, which look the same.  Of an undecided one there may be nothing
left at all, where the record itself rotted on too many drives.

- *keep*: it stays, in the hope of a drive that holds a missing shard.  If one has come back meanwhile, the version is
  made whole now; else the decision is refused, and says what is missing.
- *discard*: an undecided version is fenced on every drive that lacks it and removed from those that hold it; what was
  current before it is current again.  A committed one is never removed (rule 1): it is deleted, by quorum, as a client
  deletes a key: where versions are kept, a delete marker takes the place of the current one, and the others stay.

Either way every drive of the set has to answer, so that nothing is given up that a silent drive could save, and the
version is judged anew: what is not stuck now is not touched.

Not here: finding stuck registers (`heal`), the admin API.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from holdfast_server.drives.port import Register
from holdfast_server.objects import quorum, record
from holdfast_server.objects.asking import ask
from holdfast_server.objects.erasure_set import Current, ErasureSet, MakeHeld
from holdfast_server.objects.healing import Healer, Stuck, find_holes
from holdfast_server.objects.port import Conflict, Missing, Unavailable
from holdfast_server.objects.record import Record

InPlaceOf = Callable[[Record], MakeHeld]
"""What a delete leaves of a version that was committed."""


async def find_stuck(healer: Healer, sets: Sequence[ErasureSet], register: Register) -> tuple[ErasureSet, Stuck]:
    """Where, and what, is stuck now; what is undecided first, in case a committed one waits for it in another pool.

    Raises Missing if nothing is, Unavailable if a drive that could tell does not answer.
    """
    silent: list[str] = []
    committed: tuple[ErasureSet, Stuck] | None = None
    for erasure_set in sets:
        replies = await erasure_set.query(register, with_inline=True)
        if len(replies) < erasure_set.quorums.set_size:
            silent.append(erasure_set.name)
            continue
        stuck = healer.find_stuck(erasure_set, replies)
        if stuck is None and quorum.versions(replies):
            # Enough drives hold it; whether they have its shards is known when these are read.
            stuck = (await healer.heal(erasure_set, register, verify=True)).stuck
        if stuck is not None and not stuck.committed:
            return erasure_set, stuck
        if stuck is not None and committed is None:
            committed = erasure_set, stuck
    if committed is not None:
        return committed
    if silent:
        raise Unavailable(f"not every drive of {', '.join(silent)} answers: one of them may have what is missing")
    raise Missing(f"nothing about {register.key!r} is stuck")


async def keep(healer: Healer, erasure_set: ErasureSet, register: Register, stuck: Stuck) -> str:
    """Raises Conflict where too few shards are left."""
    healed = await healer.heal(erasure_set, register, verify=True)
    if healed.stuck is None and healed.settled:
        return "made whole from the shards there are"
    raise Conflict(
        f"{stuck.copies} of the {stuck.copies_needed} shards it takes are left: it stays as it is until a drive that "
        "has another comes back; discard it if there is none"
    )


async def discard(
    healer: Healer, erasure_set: ErasureSet, register: Register, stuck: Stuck, in_place_of: InPlaceOf
) -> str:
    """Raises Conflict while something upon it may be under way, Unavailable if a drive did not do its part: the
    decision may be repeated."""
    if healer.may_be_in_flight(stuck.stamp):
        raise Conflict("it was written within the last half minute and may yet become whole by itself")
    if stuck.committed:
        return await _delete(healer, erasure_set, register, stuck, in_place_of)
    drives = erasure_set.awake()
    replies = await erasure_set.query(register)
    holding = quorum.holders(replies, stuck.stamp)
    if len(replies) < erasure_set.quorums.set_size or len(holding) != stuck.copies:
        raise Unavailable("the drives have changed; look at it again")
    holes = [] if quorum.versions(replies) else find_holes(erasure_set, replies)
    if not stuck.copies and not holes:
        raise Unavailable("the drives have changed; look at it again")
    # Every one of them, the replacement too: it is in its predecessor's name that a person decides here.
    fences = await ask(
        {p: drive for p, drive in drives.items() if p not in holding},
        lambda _, drive: drive.fence(register, stuck.stamp),
    )
    if len(fences) + len(holding) < erasure_set.quorums.set_size or not all(reply.fenced for reply in fences.values()):
        raise Unavailable("a drive could not be fenced")
    if holes:
        ended = await ask({p: drives[p] for p in holes}, lambda _, drive: drive.remove(register, stuck.stamp + 1))
        if len(ended) < len(holes):
            raise Unavailable("a drive could not forget it")
        return "given up: whatever it was, nothing of it is left"
    removed = await ask(
        {p: drive for p, drive in drives.items() if p in holding},
        lambda _, drive: drive.remove(register, stuck.stamp),
    )
    if len(removed) < len(holding):
        raise Unavailable("a drive could not remove it")
    await healer.heal(erasure_set, register)
    return "taken back: what was current before it is current again"


async def _delete(
    healer: Healer, erasure_set: ErasureSet, register: Register, stuck: Stuck, in_place_of: InPlaceOf
) -> str:
    """Raises Unavailable where something newer has come, which nobody has decided about."""
    changed = "the drives have changed; look at it again"
    replies = await erasure_set.query(register)
    found = quorum.versions(replies)
    newer = [stamp for stamp in found if stamp > stuck.stamp]
    # What provably never was is no reason to wait: it goes by itself.
    judged = {quorum.decide_heal(erasure_set.quorums, replies, stamp) for stamp in newer}
    if stuck.stamp not in found or judged - {quorum.HealStep.TAKE_BACK}:
        raise Unavailable(changed)
    version = record.decode(found[stuck.stamp].record)
    if newer:
        # No drive that holds it would promise anything.
        await healer.heal(erasure_set, register)
    if len(quorum.full_replies(replies)) >= erasure_set.quorums.write_quorum:
        # On this condition, as every change of what may have versions: a plain write would wait for one that is under
        # way, and then take the place of that.
        seen = Current(version, stuck.stamp, highest=quorum.greatest_seen(replies))
        promise = await erasure_set.promise(register, seen)
        if promise is None:
            raise Unavailable(changed)
        await erasure_set.commit_promised(promise, in_place_of(version), deletes=True)
    else:
        # Nobody is promised anything now, and drives may wait for just this to be filled.
        await erasure_set.commit(register, in_place_of(version), deletes=True)
    told = "deleted: it was committed, and too few of its shards are left to rebuild it"
    is_current = not register.version and version.version is not None
    return f"{told}; a delete marker takes its place, older versions stay" if is_current else told
