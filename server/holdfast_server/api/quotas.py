"""How much a bucket may hold: refusing what would be too much, and agreeing among the pods on what there is.

A write *reserves* what it brings before its body is taken, in one step with the check, and settles when it has ended.
So what one pod accepts never exceeds the quota by its own doing.  Every `TELL_SECONDS` a pod tells the others what it
has written (or reserved) since the last counts in buckets with a quota, and what it has counted: one short message to
each peer, and none where nothing changed.  So a quota can be exceeded by what other pods accept within that time and a
message's way, and by bodies that do not say how long they are.  Deletes are never refused, nor is anything before a
bucket has been counted once.

What is known may be too much: an overwrite of which nobody could tell what it replaced, an abort of an upload.  Where
that refuses a write and the count is older than `RECOUNT_SECONDS`, the bucket is counted anew at once.  A write that
was answered 503 and took effect all the same is not known before the next count: to keep what it reserved would, while
writes fail and are tried again, fill a bucket with what is not there.

Not here: the arithmetic (`usage_book`), counting (`heal.bucket_walk`).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from holdfast_server.api.bucket_record import BucketRecord, Quota
from holdfast_server.api.usage_book import Counted, Place, Sum, UsageBook, Used
from holdfast_server.clock.port import Clock
from holdfast_server.contract.healing import BucketUsage
from holdfast_server.s3.errors import S3Error

USAGE_TOPIC = "usage"
TELL_SECONDS = 0.5
TELL_ALL_SECONDS = 10.0
"""How often everything about buckets with a quota is told again, for those who missed it."""
RECOUNT_SECONDS = 60.0
ROWS_PER_MESSAGE = 500
LIFE_SIZE_BYTES = 8

log = logging.getLogger(__name__)


class _News(msgspec.Struct, array_like=True, omit_defaults=True):
    """One message.  Fields are only ever appended, with defaults."""

    life: str
    begun: list[tuple[str, str, int]] = []
    """Bucket, set, generation."""
    counted: list[tuple[str, int, int, BucketUsage]] = []
    """Set, generation, when, what."""
    sums: list[tuple[str, str, Sum]] = []
    """Of each place named, all of them."""
    recount: list[str] = []
    asks: bool = False
    """It has just begun, and knows nothing."""


class Reservation:
    """What one write has been given room for."""

    def __init__(self, quotas: Quotas, place: Place) -> None:
        self._quotas, self._place = quotas, place
        self._size_bytes = self._versions = 0

    def settle(self, size_bytes: int, versions: int) -> None:
        """So much more is there than before; nothing, where the write came to nothing."""
        self._quotas.wrote(self._place, size_bytes - self._size_bytes, versions - self._versions)
        self._size_bytes, self._versions = size_bytes, versions


Announce = Callable[[str, Sequence[str]], Awaitable[None]]


async def nobody(topic: str, news: Sequence[str]) -> None:
    """No peers."""


class Quotas:
    """Of one pod."""

    def __init__(
        self,
        clock: Clock,
        announce: Announce = nobody,
        sets: Callable[[], Sequence[str]] = tuple,
        set_name: Callable[[bytes, str], str] = lambda bucket_id, key: "",
        recount: Callable[[bytes], None] = lambda bucket_id: None,
    ) -> None:
        """`sets`: names of all erasure sets.  `set_name`: of the one in which a key of a bucket is written.
        `recount`: have this pod's drives count a bucket soon."""
        self.book = UsageBook()
        self._clock, self._announce = clock, announce
        self._sets, self._set_name, self._recount = sets, set_name, recount
        self._limited: dict[bytes, BucketRecord] = {}
        self._life = clock.random_bytes(LIFE_SIZE_BYTES).hex()
        self._generations: dict[Place, int] = {}
        self._told_of: set[bytes] = set()
        """Buckets with a quota, by the last pass and by what others say."""
        self._fresh: list[tuple[Place, Counted]] = []
        """Counts of this pod's drives that nobody was told yet."""
        self._led: dict[Place, Counted] = {}
        self._wanted: dict[bytes, float] = {}
        """When a recount was asked for."""
        self._news: list[str] = []
        self._changed: set[Place] = set()
        """Where this pod's sums are not what it told."""
        self._heard: set[str] = set()
        """Lives of pods that had something to say lately."""
        self._asked_for_all = False
        self._names: dict[bytes, str] = {}
        """Of all buckets at the last pass of this pod; none on a pod that walks for no set."""

    # ---------------------------------------------------------------- writes

    def seen(self, bucket: BucketRecord) -> None:
        """A bucket as it is now; whoever writes into one has read it a moment before."""
        if bucket.quota is not None:
            self._limited[bucket.id] = bucket
        else:
            self._limited.pop(bucket.id, None)

    def limited(self, bucket_id: bytes) -> BucketRecord | None:
        """The bucket, if it has a quota."""
        return self._limited.get(bucket_id)

    def reserve(self, bucket: BucketRecord, key: str, size_bytes: int, versions: int) -> Reservation:
        """Room for a write.  Raises QuotaExceeded."""
        self._check(bucket, size_bytes, versions)
        reservation = self.entry(bucket.id, key)
        reservation.settle(size_bytes, versions)
        return reservation

    def entry(self, bucket_id: bytes, key: str) -> Reservation:
        """For what is not refused: a delete."""
        return Reservation(self, Place(bucket_id, self._set_name(bucket_id, key)))

    def _check(self, bucket: BucketRecord, size_bytes: int, versions: int) -> None:
        quota, used = bucket.quota, self.used(bucket.id)
        if quota is None:
            return
        if not used.known:
            self.want_count(bucket.id)
            return
        full = quota.size_bytes is not None and used.size_bytes + max(size_bytes, 1) > quota.size_bytes
        crowded = quota.objects is not None and used.versions + versions > quota.objects
        if not (full or crowded):
            return
        if self._clock.now_ms() - used.counted_ms >= RECOUNT_SECONDS * 1000:
            self.want_count(bucket.id)
        held = f"{used.size_bytes} bytes in {used.versions} objects and versions"
        allowed = f"{quota.size_bytes} bytes" if full else f"{quota.objects} objects and versions"
        raise S3Error(
            "QuotaExceeded",
            f"The bucket may hold {allowed}; it holds {held}, and this would be too much.",
            BucketName=bucket.name,
        )

    def wrote(self, place: Place, size_bytes: int, versions: int) -> None:
        self.book.add(place, size_bytes, versions)
        self._changed.add(place)

    @property
    def _with_quota(self) -> set[bytes]:
        return self._told_of | self._limited.keys()

    def used(self, bucket_id: bytes) -> Used:
        return self.book.used(bucket_id, self._sets())

    def usage_by_name(self) -> list[tuple[str, Used, Quota | None]]:
        """Of the buckets that are wholly counted, as far as this pod has walked; the greatest first."""
        found = [
            (name, self.used(bucket_id), bucket.quota if (bucket := self.limited(bucket_id)) is not None else None)
            for bucket_id, name in self._names.items()
        ]
        return sorted((one for one in found if one[1].known), key=lambda one: -one[1].size_bytes)

    def want_count(self, bucket_id: bytes) -> None:
        """Have the bucket counted soon, wherever its sets are walked; once in `RECOUNT_SECONDS`."""
        now = self._clock.monotonic_seconds()
        if now - self._wanted.get(bucket_id, float("-inf")) < RECOUNT_SECONDS:
            return
        self._wanted[bucket_id] = now
        self._recount(bucket_id)
        self._say(_News(self._life, recount=[bucket_id.hex()]))

    # ---------------------------------------------------------------- counts of this pod's drives

    async def begin_count(self, set_name: str, bucket_id: bytes) -> None:
        place = Place(bucket_id, set_name)
        generation = max(self.book.generation(place) + 1, self._clock.now_ms())
        self._generations[place] = generation
        self.book.begin(place, generation)
        if bucket_id in self._with_quota:
            # Before the first record is looked at every pod must add up what it writes from now on.
            await self._announce(
                USAGE_TOPIC, [_encoded(_News(self._life, begun=[(bucket_id.hex(), set_name, generation)]))]
            )

    def counted(self, set_name: str, usage: BucketUsage, counted_ms: int) -> None:
        place = Place(bytes.fromhex(usage.bucket_id), set_name)
        counted = Counted(self._generations.get(place, counted_ms), usage, counted_ms)
        self.book.counted(place, counted)
        self._led[place] = counted
        self._fresh.append((place, counted))

    def knows(self, buckets: Sequence[BucketRecord]) -> None:
        """All buckets, as they are."""
        alive = {bucket.id for bucket in buckets}
        self.book.forget_buckets(alive)
        for place in [one for one in self._led if one.bucket_id not in alive]:
            del self._led[place]
        for bucket_id in [one for one in self._wanted if one not in alive]:
            del self._wanted[bucket_id]
        self._generations = {place: one for place, one in self._generations.items() if place.bucket_id in alive}
        for bucket_id in [one for one in self._limited if one not in alive]:
            del self._limited[bucket_id]
        for bucket in buckets:
            self.seen(bucket)
        self._told_of = set(self._limited)
        self._names = {bucket.id: bucket.name for bucket in buckets}

    # ---------------------------------------------------------------- telling and being told

    def _say(self, news: _News) -> None:
        self._news.append(_encoded(news))

    async def run(self) -> None:
        """Until cancelled."""
        self.ask()
        told_all_at = self._clock.monotonic_seconds()
        while True:
            now = self._clock.monotonic_seconds()
            if now - told_all_at >= TELL_ALL_SECONDS:
                told_all_at = now
                self.repeat()
            await self.tell()
            await self._clock.sleep(TELL_SECONDS)

    def ask(self) -> None:
        """This pod has just begun: have everybody tell what they know."""
        self._say(_News(self._life, asks=True))

    def repeat(self) -> None:
        """Have everything told again that is about buckets with a quota."""
        self._changed.update(self.book.own_places(self._with_quota))
        self.book.forget_lives(self._heard)
        self._heard = set()
        self._fresh += [one for one in self._led.items() if one[0].bucket_id in self._with_quota]

    async def tell(self) -> None:
        """What has changed since."""
        if self._asked_for_all:
            self._asked_for_all = False
            self._fresh = list(self._led.items())
            self._changed.update(self.book.own_places(self._with_quota))
        fresh, self._fresh = self._fresh, []
        for start in range(0, len(fresh), ROWS_PER_MESSAGE):
            some = fresh[start : start + ROWS_PER_MESSAGE]
            rows = [(place.set_name, one.generation, one.counted_ms, one.usage) for place, one in some]
            self._say(_News(self._life, counted=rows))
        changed, self._changed = [one for one in self._changed if one.bucket_id in self._with_quota], set()
        for start in range(0, len(changed), ROWS_PER_MESSAGE):
            sums = self.book.own_sums(changed[start : start + ROWS_PER_MESSAGE])
            self._say(_News(self._life, sums=[(place.bucket_id.hex(), place.set_name, one) for place, one in sums]))
        news, self._news = self._news, []
        for one in news:
            await self._announce(USAGE_TOPIC, [one])

    def on_news(self, messages: Sequence[str]) -> None:
        """A peer has something to tell; what makes no sense is passed over."""
        for text in messages:
            try:
                news = _decoder.decode(text)
                self._hear(news)
            except (msgspec.MsgspecError, ValueError) as error:
                log.info("a peer's news of usage was not understood: %s", error)

    def _hear(self, news: _News) -> None:
        self._heard.add(news.life)
        for bucket, set_name, generation in news.begun:
            place = Place(bytes.fromhex(bucket), set_name)
            self.book.begin(place, generation)
            self._changed.add(place)
        for set_name, generation, counted_ms, usage in news.counted:
            place = Place(bytes.fromhex(usage.bucket_id), set_name)
            self.book.counted(place, Counted(generation, usage, counted_ms))
            led = self._led.get(place)
            if led is not None and led.generation < generation:
                del self._led[place]  # another pod walks there now
        sums = [(Place(bytes.fromhex(bucket), set_name), one) for bucket, set_name, one in news.sums]
        self._told_of.update(place.bucket_id for place, _ in sums)
        self.book.told(news.life, sums)
        for bucket in news.recount:
            self._recount(bytes.fromhex(bucket))
        if news.asks:
            self._asked_for_all = True
            for bucket_id in self._with_quota:
                self._recount(bucket_id)


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_News)


def _encoded(news: _News) -> str:
    return _encoder.encode(news).decode()
