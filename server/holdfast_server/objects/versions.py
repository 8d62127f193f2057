"""The versions of an object: which is current, where the others rest, how one takes another's place.

A key's *current* version is what it is without versioning: the record of the register (object space, key).  It is
written under the quorum rules, read with one look-up, and listed by walking the object space; how many older
versions there are is nobody's concern there.  A version that is not current *rests* in a register of its own:
(version space, key, place), the place being the stamp with which it became current first, turned round, so that a walk
meets the newest first.  Its record is the same bytes, naming the same shard files; no data moves.  A delete marker is a
version without bytes, current or resting like others, that a listing passes over (`Held.hidden`).

Every change of a versioned key's current version is a conditional write of its register (rule 7), so all of them stand
in one line, and each knows exactly what it replaces.  docs/decisions/0009-versions.md has the argument for:

- **Rest before replaced.**  Before anything takes the place of what is current, that is committed to its resting
  register, conditionally like any other (rule 7); the promise for that is taken before the one for the key, so that a
  version which was deleted meanwhile is not brought back.  Whoever reads what is current and *then* what rests misses
  nothing; a copy of what is still current is the same version, not another.
- **Deleting a version** is a tombstone in its resting register; of the current version, *first* that tombstone, so that
  no copy of it can come to rest afterwards, then the next one (or a tombstone, if there is none) takes its place.  The
  delete takes effect with that second step: until then the version is current and is served.  That first tombstone, a
  *bar*, names the stamp of what it bars: once the version has been amended (it may be locked now), it is void.
- **A locked version is not deleted** (`object_lock`).  Whether it is locked is asked of exactly the record that the
  deletion replaces: every change of a lock is a write of the version's register, current or resting, and so is a
  conditional write's promise broken by it.
- **Becoming current again**: the one that is next is *claimed* first, by a conditional write of its resting register.
  Whoever is to delete or amend a claimed version *first* writes the key's current version anew, as it is, so that the
  claim comes to nothing, and then does so on the condition that nobody has claimed it since.
- **`null`**: at most one version has no id of its own.  The current version's record says where it rests; a resting
  `null` that is not the one so named is no version any more.  Writing another `null` thereby removes the old one in the
  same moment; its space is given back afterwards, by the writer or the scanner.

Not here: what S3 makes of it (`api`), when a bucket begins to keep versions (`api.versioning`), expiry.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from holdfast_server.drives.names import start_at
from holdfast_server.drives.port import Register
from holdfast_server.objects import object_lock, quorum, record
from holdfast_server.objects.erasure_set import (
    LEASED_ATTEMPTS,
    RETRY_PAUSE_SECONDS,
    Committed,
    Current,
    ErasureSet,
    Promise,
    Refill,
)
from holdfast_server.objects.listing import Walk, one_by_one
from holdfast_server.objects.look_up import Located, Overtaken, Plan, Step
from holdfast_server.objects.port import (
    NULL_VERSION,
    Condition,
    Conflict,
    Crossed,
    Locked,
    ObjectError,
    Unavailable,
    Versioning,
)
from holdfast_server.objects.reading import recut_inline
from holdfast_server.objects.record import Kind, Record, VersionInfo

if TYPE_CHECKING:
    from holdfast_server.objects.store import Made, ObjectStore

BEHIND_ALL_PLACES = b"\xff" * (record.PLACE_SIZE_BYTES + 1)
SUCCESSORS_PER_PAGE = 8

STAMP_SIZE_BYTES = 8

MakeFrom = Callable[[Record], "Made"]
Allow = Callable[[Record | None], None]
"""Raises unless a version may be deleted; None: there is none."""


class Changed(Exception):
    """Something is not any more as it was when this was begun: look again."""


@dataclass(frozen=True, slots=True)
class Version:
    """One version, and where it is."""

    register: Register
    located: Located
    record: Record
    """An object or a delete marker."""

    @property
    def current(self) -> bool:
        return self.register.space[:1] == record.OBJECT_SPACE

    @property
    def claimed(self) -> bool:
        return self.record.version is not None and self.record.version.claimed


class _Resting:
    """A version on its way to rest: promised, not committed."""

    def __init__(self, one: ErasureSet, promise: Promise, step: Step) -> None:
        self._one = one
        self._promise: Promise | None = promise
        self._step = step

    async def bring(self) -> None:
        """Raises Unavailable, OutOfSpace."""
        promise, self._promise = self._promise, None
        assert promise is not None
        step = self._step
        await self._one.commit_promised(promise, step.make_held, step.refill, deletes=step.deletes)

    def end(self) -> None:
        if self._promise is not None:
            self._one.release_later(self._promise)


def names(version: bytes, found: Record) -> bool:
    """Whether that version id is this version's."""
    return found.null if version == NULL_VERSION else not found.null and found.place == version


def null_rests(current: Record) -> bytes:
    """Where the version `null` rests while `current` is current; empty where none does."""
    return current.version.null_place if current.version is not None and not current.null else b""


def rests(found: Record, current: Record) -> bool:
    """Whether what lies in a resting register is one of the key's versions, and not the current one."""
    if found.deleted or found.place <= current.place:
        return False  # the current one's own copy, or what has become current since that was read
    return not found.null or found.place == null_rests(current)


def _bar_of(current: Record) -> bytes:
    """What a tombstone says that is to keep this version from coming to rest, as long as it is what it is."""
    return current.stamp.to_bytes(STAMP_SIZE_BYTES, "big")


def _bars(found: Record | None, current: Record) -> bool:
    """Whether what lies in its resting register is such a tombstone."""
    return found is not None and found.deleted and found.body == _bar_of(current)


def _with(found: Record, **changes: object) -> Record:
    assert found.version is not None
    return msgspec.structs.replace(found, version=msgspec.structs.replace(found.version, **changes))


def _at_rest(found: Record) -> Record:
    """As it is kept in its resting register."""
    return msgspec.structs.replace(found, version=VersionInfo(place=found.place, null=found.null, marker=found.marker))


def _null_place_beside(current: Record | None) -> bytes:
    """Where `null` will rest once `current` has been replaced by a version that is not `null`."""
    if current is None or current.deleted:
        return b""
    return current.place if current.null else null_rests(current)


def marker_over(current: Record) -> Record:
    """A delete marker in the place of a current version that does not come to rest: it is given up."""
    return Record(Kind.OBJECT, 0, version=VersionInfo(marker=True, null_place=null_rests(current)))


class Versions:
    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    # ---------------------------------------------------------------- reading

    async def find(
        self, bucket_id: bytes, key: str, version: bytes | None = None, with_inline: bool = False
    ) -> Version | None:
        """The current version, or the one named.  Raises Unavailable."""
        register = record.object_register(bucket_id, key)
        located = await self._store.look_up(register).read(with_inline)
        current = located.current.record
        if current is None or current.deleted:
            return None
        if version is None or names(version, current):
            return Version(register, located, current)
        place = null_rests(current) if version == NULL_VERSION else version
        if not place:
            return None
        # After what is current: what was replaced before that was read rests by now.
        resting = record.version_register(bucket_id, key, place)
        there = await self._store.look_up(resting).read(with_inline)
        found = there.current.record
        if found is None or found.deleted or not names(version, found):
            return None
        return Version(resting, there, found)

    # ---------------------------------------------------------------- writing

    async def write(
        self,
        register: Register,
        into: ErasureSet,
        template: Record,
        versioning: Versioning,
        make: MakeFrom,
        condition: Condition | None,
        refill: Refill | None = None,
    ) -> tuple[Made, Committed]:
        """Make a version current.  `make` turns a template into what the drives hold."""
        null = versioning is Versioning.SUSPENDED
        made: Made | None = None
        replaced: Record | None = None

        async def plan(located: Located) -> Step:
            nonlocal made, replaced
            if condition is not None:
                condition(located.live)
            replaced = located.current.record
            info = VersionInfo(
                null=null, marker=template.marker, null_place=b"" if null else _null_place_beside(replaced)
            )
            made = make(msgspec.structs.replace(template, version=info))
            deletes = template.marker
            resting = await self._to_rest(register, located, null, deletes)
            if resting is None:
                return Step(into, made, refill, deletes=deletes)
            return Step(into, made, refill, resting.bring, resting.end, deletes)

        committed = await self._update(register, plan, spread=condition is None)
        if null and replaced is not None and null_rests(replaced):
            self._forget_later(_at(register, null_rests(replaced)))
        assert made is not None
        return made, committed

    async def _update(self, register: Register, plan: Plan, spread: bool = True) -> Committed:
        """`spread`: nobody set a condition, so that others write, too, is no conflict: it raises Crossed."""
        look_up = self._store.look_up(register)
        if not spread:
            return await look_up.update(plan, with_inline=True)
        try:
            return await look_up.update(plan, LEASED_ATTEMPTS, with_inline=True, spread=True)
        except Conflict as error:
            raise Crossed(str(error)) from error

    async def _to_rest(self, register: Register, located: Located, null: bool, deletes: bool) -> _Resting | None:
        """What brings the current version to rest; None where nothing is to be kept of it.

        `null`: another `null` takes its place; `deletes`: a delete marker does.  Raises Overtaken where somebody else
        is at it, Unavailable.
        """
        current = located.current.record
        if current is None or current.deleted or (null and current.null):
            return None
        one, resting = located.erasure_set, _at(register, current.place)
        template = _at_rest(current)
        promise = await one.promise(resting, Current(None, 0))  # usually there is nothing
        if promise is None:
            there = await self._beside_current(one, resting)
            if _bars(there.record, current):
                return None  # it is being deleted, which takes effect with its being replaced
            # A copy of it may be there already.  It is committed once more all the same: without a promise, somebody
            # could bar it now who judged it by what it was before.
            promise = await one.promise(resting, there)
            if promise is None:
                await one.clear_way(resting)
                raise Overtaken
        return _Resting(one, promise, self._step(resting, one, template, located, deletes))

    async def _beside_current(self, one: ErasureSet, resting: Register) -> Current:
        """What lies where the current version will rest.  Raises Unavailable.

        A copy of which too few are left to tell whether it was ever whole (its writer died, and a drive was lost) needs
        nobody's decision: as long as the version is current it is none, and whoever changes it writes it anew.
        """
        try:
            return await one.read(resting)
        except Unavailable:
            replies = await one.query(resting)
            stuck = self._store.healer.find_stuck(one, replies)
            if stuck is None or stuck.committed or not stuck.copies or self._store.healer.may_be_in_flight(stuck.stamp):
                raise
            return Current(None, stuck.stamp, highest=quorum.greatest_seen(replies))

    # ---------------------------------------------------------------- deleting

    async def delete(
        self,
        bucket_id: bytes,
        key: str,
        version: bytes,
        condition: Condition | None = None,
        bypass_governance: bool = False,
    ) -> Record | None:
        """What was there; None if nothing was.  Raises Locked, Unavailable, OutOfSpace, what `condition` raises."""

        def allow(there: Record | None) -> None:
            if condition is not None:
                condition(there if there is not None and there.live else None)
            if there is not None and object_lock.protects(there, self._store.bounds.earliest_ms(), bypass_governance):
                raise Locked(f"a version of {key!r} is locked")

        for attempt in range(LEASED_ATTEMPTS):
            if attempt:
                await self._store.clock.sleep(RETRY_PAUSE_SECONDS * 2**attempt)
            found = await self.find(bucket_id, key, version)
            allow(found.record if found is not None else None)
            if found is None:
                return None
            try:
                if found.current:
                    await self._delete_current(found, version, allow)
                    return found.record
                await self._disclaim(found, deletes=True)
                await self._forget(found)
            except Changed:
                continue
            return found.record
        raise Crossed(f"other writes of {key!r} are under way")

    async def _forget(self, found: Version) -> None:
        """A tombstone for what rests.  Raises Changed if it is not what was found any more."""
        one = found.located.erasure_set

        async def plan(located: Located) -> Step:
            if located.current.stamp != found.record.stamp:
                raise Changed
            return Step(one, self._tombstone(one))

        await self._store.look_up_in(one, found.register).update(plan, LEASED_ATTEMPTS, spread=True)

    async def rewrite(self, found: Version, amended: Record) -> Record:
        """Put another record in the place of one that rests, naming the same shards.  Raises Changed, Unavailable."""
        await self._disclaim(found)
        return await self._replace(found, _with(amended, claimed=False) if found.claimed else amended)

    async def _replace(self, found: Version, by: Record, deletes: bool = False) -> Record:
        one = found.located.erasure_set
        step = self._step(found.register, one, by, found.located, deletes)

        async def plan(located: Located) -> Step:
            if located.current.stamp != found.record.stamp:
                raise Changed
            return step

        committed = await self._store.look_up_in(one, found.register).update(plan, LEASED_ATTEMPTS, spread=True)
        return msgspec.structs.replace(by, stamp=committed.stamp)

    async def _disclaim(self, found: Version, deletes: bool = False) -> None:
        """Whoever claimed it, up to the moment it was found, cannot make it current any more: what is current is not
        what they go by.  Raises Changed where it has become current, Unavailable."""
        if not found.claimed:
            return
        register = record.object_register(found.register.space[1:], found.register.key)

        async def plan(located: Located) -> Step:
            current = located.current.record
            if current is None or current.deleted or not rests(found.record, current):
                raise Changed
            return self._step(register, located.erasure_set, current, located, deletes)

        await self._update(register, plan)

    async def _delete_current(self, found: Version, version: bytes, allow: Allow) -> None:
        register = found.register

        async def plan(located: Located) -> Step:
            current = located.current.record
            if current is None or current.deleted or not names(version, current):
                raise Changed
            allow(current)  # it may have been locked since it was found
            await self._bar(register, located, current)
            following = await self._following(register, current)
            if following is None:
                one = located.erasure_set
                return Step(one, self._tombstone(one))
            await self._claim(following)
            null_place = b"" if following.record.null else null_rests(current)
            template = _with(_at_rest(following.record), null_place=null_place)
            return self._step(register, following.located.erasure_set, template, following.located, deletes=True)

        await self._update(register, plan)

    async def _bar(self, register: Register, located: Located, current: Record) -> None:
        """From now on the current version, as it is now, cannot come to rest.  Raises Overtaken, Unavailable.

        Under the promise of its resting register nothing comes to rest there; so if it is current still, what may lie
        there is no version, but a copy of one.
        """
        one, resting = located.erasure_set, _at(register, current.place)
        there = await self._beside_current(one, resting)
        if _bars(there.record, current):
            return
        promise = await one.promise(resting, there)
        if promise is None:
            await one.clear_way(resting)
            raise Overtaken
        try:
            if (await self._store.look_up(register).read()).current.stamp != current.stamp:
                raise Overtaken
        except BaseException:
            one.release_later(promise)
            raise
        await one.commit_promised(promise, self._tombstone(one, _bar_of(current)), above=current.stamp)

    async def _following(self, register: Register, current: Record) -> Version | None:
        """The newest version that rests."""
        walk = Walk(
            record.VERSION_SPACE + register.space[1:],
            register.key.encode(),
            start=start_at(register.key.encode(), current.place),
            end=start_at(register.key.encode(), BEHIND_ALL_PLACES),
            page_size=SUCCESSORS_PER_PAGE,
            hidden=True,
        )
        async with aclosing(one_by_one(self._store.walk(walk))) as everything:
            async for found in everything:
                if found.record is None or found.register.key != register.key or not rests(found.record, current):
                    continue
                located = await self._store.look_up(found.register).read(with_inline=True)
                there = located.current.record
                if there is not None and rests(there, current):
                    return Version(found.register, located, there)
        return None

    async def _claim(self, found: Version) -> None:
        """Raises Changed if it is not what was found any more.  What is claimed already is claimed anew: else whoever
        has just brought the other claim to nothing would not know of this one."""
        await self._replace(found, _with(_at_rest(found.record), claimed=True), deletes=True)

    def _step(
        self, register: Register, into: ErasureSet, template: Record, source: Located, deletes: bool = False
    ) -> Step:
        """Commit a version that there is already once more; its shards are where they were."""
        holders = source.current.holders

        async def refill(positions: Collection[int]) -> Collection[int]:
            return await self._store.healer.refill(into, list(positions), holders)

        rotation = self._store.rotation(register, into)
        made = self._store.made(template, into, rotation=rotation, inline=recut_inline(template, holders))
        return Step(into, made, refill, deletes=deletes)

    def _tombstone(self, one: ErasureSet, bar: bytes = b"") -> Made:
        return self._store.made(Record(Kind.TOMBSTONE, 0, body=bar), one)

    # ---------------------------------------------------------------- what is no version any more

    def _forget_later(self, resting: Register) -> None:
        self._store.background.spawn(self.forget_superseded(resting))

    async def forget_superseded(self, resting: Register) -> bool:
        """Give back the space of a resting `null` that another has replaced; whether it was one.

        What is no version of its key any more never is again, so there is nothing to be raced.  Raises Unavailable.
        """
        look_up = self._store.look_up(resting)
        located = await look_up.read()
        found = located.current.record
        if found is None or found.deleted or not found.null:
            return False
        current = (await self._store.look_up(record.object_register(resting.space[1:], resting.key)).read()).current
        there = current.record
        if there is not None and not there.deleted and found.place in (there.place, null_rests(there)):
            return False
        try:
            await self._forget(Version(resting, located, found))
        except (Changed, ObjectError):
            return False
        return True


def _at(register: Register, place: bytes) -> Register:
    """Where that version of an object's register rests."""
    return record.version_register(register.space[1:], register.key, place)
