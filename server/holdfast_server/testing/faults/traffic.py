"""Random operations on a set of keys through all pods, each outcome told to the ledger at once.

One operation at a time per key (a lock each), many keys at a time.  2xx is acknowledged, 4xx has changed nothing,
everything else is undecided; every attempt is judged for itself, also where a `Retries` says to try again, as stock
clients do.  Which operations come, on which keys, with which sizes, follows from
the random generator that is given; when they come does not: real processes have no seed for that.
"""

from __future__ import annotations

import asyncio
import functools
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from holdfast_server.s3.headers import REDUCED_REDUNDANCY
from holdfast_server.testing.faults.kept_versions import KeptVersions
from holdfast_server.testing.faults.ledger import ABSENT, Ledger, PromiseBroken, Version, make_body, version_of
from holdfast_server.testing.faults.s3_session import Answer, NoAnswer, NotSent, S3Session

INLINE_SIZES_BYTES = (1, 700, 4096, 30_000, 65_536)
FILE_SIZES_BYTES = (65_537, 200_000, 1_048_577, 1_500_000)
PART_SIZE_BYTES = 5 << 20
READ_ATTEMPT_SECONDS = 90.0
"""How long a read may be refused with 503 once every pod is up again."""
READ_PAUSE_SECONDS = 0.1
REFUSED_PAUSE_SECONDS = 0.02
"""No connection at all fails at once; without a pause a dead pod would be asked thousands of times."""
READERS = 16
LEGAL_HOLD = b"<LegalHold><Status>ON</Status></LegalHold>"
VERSIONS_READ = 25
"""By their ids, through each pod, at each check; all are listed."""

T = TypeVar("T")
Operation = Callable[[str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Retries:
    """As the standard mode of stock clients: a bounded number of attempts with growing, random pauses, each at any
    pod, as behind a Service."""

    attempts: int = 1
    first_pause_seconds: float = 0.1
    longest_pause_seconds: float = 5.0

    def pause_seconds(self, attempt: int, chance: random.Random) -> float:
        return min(self.longest_pause_seconds, self.first_pause_seconds * 2**attempt) * chance.uniform(0.5, 1)


@dataclass(frozen=True, slots=True)
class Mix:
    """How often which operation comes, and with which sizes."""

    put_inline: int = 26
    put_file: int = 18
    delete: int = 14
    read: int = 18
    create: int = 6
    replace: int = 6
    multipart: int = 7
    read_range: int = 5
    listing: int = 0
    delete_version: int = 0
    """Only in a bucket that keeps versions."""
    hold: int = 0
    """A legal hold on a version; only in a bucket with object lock."""
    reduced: float = 0.0
    """How much of what is put whole is of reduced redundancy."""
    inline_sizes_bytes: tuple[int, ...] = INLINE_SIZES_BYTES
    file_sizes_bytes: tuple[int, ...] = FILE_SIZES_BYTES
    multipart_sizes_bytes: tuple[int, ...] = (PART_SIZE_BYTES + 1, PART_SIZE_BYTES + 1_500_000)


class Traffic:
    """See the module."""

    def __init__(
        self,
        session: S3Session,
        endpoints: Sequence[str],
        bucket: str,
        keys: Sequence[str],
        seed: int,
        mix: Mix | None = None,
        retries: Retries | None = None,
    ) -> None:
        self.mix, self.retries = mix or Mix(), retries or Retries()
        self.retried = self.failed = self.bytes_written = self.bytes_read = 0
        self.pause_seconds = 0.0
        """Of each worker after an operation."""
        self.longest_seconds = 0.0
        """Of one operation with its retries, succeeded or not: what a client felt at worst."""
        self._changes: Counter[str] = Counter()
        """Writes begun and ended, per key."""
        self.session, self.endpoints, self.bucket = session, endpoints, bucket
        self.ledger = Ledger()
        self.versions = KeptVersions()
        """Of a bucket that keeps them."""
        self.counts: Counter[str] = Counter()
        self.random = random.Random(seed)
        self._locks = {key: asyncio.Lock() for key in keys}
        self._body_seed = seed << 32
        self._stop = asyncio.Event()

    # --- running
    async def run(self, workers: int, operations: int = 1 << 40) -> None:
        """Until `stop`, or until that many operations were begun.  Raises PromiseBroken."""
        self._stop.clear()
        left = operations

        async def work() -> None:
            nonlocal left
            while left > 0 and not self._stop.is_set():
                left -= 1
                await self.one()
                if self.pause_seconds:
                    await asyncio.sleep(self.pause_seconds)

        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(work())

    def stop(self) -> None:
        self._stop.set()

    async def one(self) -> None:
        """One operation on a key that nobody works on."""
        key = self.random.choice([key for key, lock in self._locks.items() if not lock.locked()] or list(self._locks))
        operation = self._choose()
        async with self._locks[key]:
            try:
                await operation(key)
            except NoAnswer:
                await asyncio.sleep(REFUSED_PAUSE_SECONDS)

    def _choose(self) -> Operation:
        mix = self.mix
        operations: tuple[tuple[Operation, int], ...] = (
            (self.put_inline, mix.put_inline), (self.put_file, mix.put_file), (self.delete, mix.delete),
            (self.read, mix.read), (self.create, mix.create), (self.replace, mix.replace),
            (self.multipart, mix.multipart), (self.read_range, mix.read_range), (self.list_some, mix.listing),
            (self.delete_version, mix.delete_version), (self.hold, mix.hold),
        )  # fmt: skip
        return self.random.choices([o for o, _ in operations], [weight for _, weight in operations])[0]

    def _endpoint(self) -> str:
        return self.random.choice(self.endpoints)

    # --- writes
    async def put_inline(self, key: str) -> None:
        await self._put(key, self.random.choice(self.mix.inline_sizes_bytes))

    async def put_file(self, key: str) -> None:
        await self._put(key, self.random.choice(self.mix.file_sizes_bytes))

    async def create(self, key: str) -> None:
        """If-None-Match: only where nothing is."""
        answer = await self._put(key, self.random.choice(self.mix.inline_sizes_bytes), {"if-none-match": "*"}, ABSENT)
        state = self.ledger.state(key)
        if answer is not None and answer.status == 412 and not any((state.settled, *state.undecided)):
            raise self._broken(key, "If-None-Match was refused, though nothing can be there")

    async def replace(self, key: str) -> None:
        """If-Match: only what the client knows."""
        state = self.ledger.state(key)
        if state.settled == ABSENT:
            return
        answer = await self._put(
            key, self.random.choice(self.mix.file_sizes_bytes), {"if-match": f'"{state.settled}"'}, state.settled
        )
        if answer is not None and answer.status in (404, 412) and not state.undecided:
            raise self._broken(
                key, f"If-Match was refused with {answer.status} {answer.code}, though nothing else can be there"
            )

    async def delete(self, key: str) -> None:
        await self._write(key, None, "DELETE")

    async def multipart(self, key: str) -> None:
        """Two parts, completed; now and then aborted instead."""
        seed, size = self._next_seed(), self.random.choice(self.mix.multipart_sizes_bytes)
        body = make_body(seed, size)
        await self.upload(key, seed, body, PART_SIZE_BYTES, abort=self.random.random() < 0.15)

    async def upload(self, key: str, seed: int, body: bytes, part_size_bytes: int, abort: bool = False) -> None:
        """A multipart upload, each request through a pod of its own."""
        begun = await self._ask("POST", key, "uploads=", keep=True)
        if not begun.ok:
            return
        upload_id = begun.body.partition(b"<UploadId>")[2].partition(b"</UploadId>")[0].decode()
        listed = ""
        for number, at in enumerate(range(0, len(body), part_size_bytes), 1):
            part = body[at : at + part_size_bytes]
            stored = await self._ask("PUT", key, f"partNumber={number}&uploadId={upload_id}", part)
            if not stored.ok:
                return
            listed += f"<Part><PartNumber>{number}</PartNumber><ETag>{stored.etag}</ETag></Part>"
        if abort:
            await self._ask("DELETE", key, f"uploadId={upload_id}")
            return
        document = f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>".encode()
        version = version_of(seed, body, part_size_bytes)
        await self._write(key, version, "POST", f"uploadId={upload_id}", document)

    async def _put(
        self, key: str, size_bytes: int, headers: dict[str, str] | None = None, expected: str | None = None
    ) -> Answer | None:
        seed = self._next_seed()
        body = make_body(seed, size_bytes)
        if self.mix.reduced and self.random.random() < self.mix.reduced:
            headers = {**(headers or {}), "x-amz-storage-class": REDUCED_REDUNDANCY}
        return await self._write(key, version_of(seed, body), "PUT", "", body, headers, expected)

    async def _write(
        self,
        key: str,
        version: Version | None,
        method: str,
        query: str = "",
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        expected: str | None = None,
    ) -> Answer | None:
        """One exchange that changes the key, or not; `expected` is what a condition was met by if it succeeds."""
        started = time.monotonic()
        self._changes[key] += 1
        try:
            for attempt in range(self.retries.attempts):
                if attempt:
                    self.retried += 1
                    await asyncio.sleep(self.retries.pause_seconds(attempt - 1, self.random))
                answer = await self._attempt(key, version, method, query, body, headers, expected)
                if answer is not None and answer.status < 500:
                    self.bytes_written += len(body) if answer.ok else 0
                    return answer
            self.failed += 1
            return None
        finally:
            self._changes[key] += 1
            self.longest_seconds = max(self.longest_seconds, time.monotonic() - started)

    async def _attempt(
        self,
        key: str,
        version: Version | None,
        method: str,
        query: str,
        body: bytes,
        headers: dict[str, str] | None,
        expected: str | None,
    ) -> Answer | None:
        """None: no answer."""
        endpoint = self._endpoint()
        what = f"{method}{' if' if headers else ''} at {endpoint}"
        try:
            answer = await self.session.exchange(
                endpoint, method, self.bucket, key, query, body, headers, keep=method == "POST"
            )
        except NotSent:
            self.counts[f"{method} not sent"] += 1
            await asyncio.sleep(REFUSED_PAUSE_SECONDS)
            return None
        except NoAnswer as error:
            self.counts[f"{method} no answer"] += 1
            self.ledger.leave_undecided(key, version, f"{what}: {error}")
            return None
        # A long answer begins with 200 before it is known how it ends.
        failed_late = answer.ok and b"<Error>" in answer.body
        self.counts[f"{method} {answer.status}{' and an error' if failed_late else ''}"] += 1
        if not answer.ok:
            self.ledger.state(key).story.append(f"{what}: {answer.status} {answer.code}")
        if answer.status >= 500 or failed_late:
            self.ledger.leave_undecided(key, version, f"{what}: {answer.status} {answer.code}")
        elif answer.ok:
            if expected is not None:
                self.ledger.observe(key, expected, f"the condition of {what}")
            self.ledger.acknowledge(key, version)
            if answer.version_id:
                self.versions.acknowledge(key, answer.version_id, version.etag if version is not None else ABSENT)
        return answer

    async def delete_version(self, key: str) -> None:
        """One that is not current, for good: what is current stays."""
        retired = self.ledger.state(key).retired
        old = [version for version, etag in self.versions.of(key) if etag in retired]
        if not old:
            return
        version = self.random.choice(old)
        is_held, may_be_held = (key, version) in self.versions.held, (key, version) in self.versions.maybe_held
        etag = self.versions.kept[key, version]
        if not is_held:
            self.versions.delete(key, version)
        answer = await self.session.exchange(self._endpoint(), "DELETE", self.bucket, key, f"versionId={version}")
        self.counts[f"DELETE version {answer.status}{' held' if is_held else ''}"] += 1
        if answer.status == 403 and may_be_held:
            self.versions.acknowledge_hold(key, version, etag)
        elif answer.ok and is_held:
            raise self._broken(key, f"version {version} was deleted though it is held")
        elif answer.ok:
            self.versions.acknowledge_deletion(key, version)

    async def hold(self, key: str) -> None:
        """A legal hold on some version of an object, for good."""
        objects = [one for one, etag in self.versions.of(key) if etag != ABSENT]
        if not objects:
            return
        version = self.random.choice(objects)
        self.versions.maybe_held.add((key, version))
        answer = await self.session.exchange(
            self._endpoint(), "PUT", self.bucket, key, f"legal-hold=&versionId={version}", LEGAL_HOLD, keep=True
        )
        self.counts[f"PUT hold {answer.status}"] += 1
        if answer.ok:
            self.versions.held.add((key, version))
        elif answer.status < 500:
            raise self._broken(key, f"a hold on {version} was answered {answer.status} {answer.code}")

    # --- reads
    async def read(self, key: str) -> None:
        await self._retry_read("GET", lambda: self.read_through(self._endpoint(), key))

    async def _retry_read(self, what: str, attempt: Callable[[], Awaitable[bool]]) -> None:
        """Until it is answered with a verdict, or attempts are used up."""
        started = time.monotonic()
        try:
            for number in range(self.retries.attempts):
                if number:
                    self.retried += 1
                    await asyncio.sleep(self.retries.pause_seconds(number - 1, self.random))
                try:
                    if await attempt():
                        return
                except NoAnswer as error:
                    self.counts[f"{what} {'not sent' if isinstance(error, NotSent) else 'no answer'}"] += 1
                    await asyncio.sleep(REFUSED_PAUSE_SECONDS)
            self.failed += 1
        finally:
            self.longest_seconds = max(self.longest_seconds, time.monotonic() - started)

    async def read_through(self, endpoint: str, key: str) -> bool:
        """GET the whole; False if it was refused for now.  Raises PromiseBroken, NoAnswer."""
        answer = await self.session.exchange(endpoint, "GET", self.bucket, key)
        self.counts[f"GET {answer.status}"] += 1
        if answer.status == 404 and answer.code == "NoSuchKey":
            self.ledger.observe(key, ABSENT, f"GET at {endpoint}")
        elif answer.status == 200:
            self.ledger.observe(key, answer.etag, f"GET at {endpoint}")
            self.ledger.check_content(key, answer.etag, answer.sha256, answer.size_bytes, f"GET at {endpoint}")
            self.bytes_read += answer.size_bytes
        elif answer.status < 500:
            raise PromiseBroken(f"{key}: GET at {endpoint} answers {answer.status} {answer.code}")
        return answer.status < 500

    async def read_range(self, key: str) -> None:
        """Some bytes of what the client believes is there."""
        version = self.ledger.versions.get(self.ledger.state(key).settled)
        if version is None or version.size_bytes < 2:
            return
        first = self.random.randrange(version.size_bytes)
        last = min(version.size_bytes - 1, first + self.random.randrange(1, 1 << 20))
        await self._retry_read("GET range", lambda: self._read_bytes(key, first, last))

    async def _read_bytes(self, key: str, first: int, last: int) -> bool:
        endpoint = self._endpoint()
        answer = await self.session.exchange(
            endpoint, "GET", self.bucket, key, headers={"range": f"bytes={first}-{last}"}, keep=True
        )
        self.counts[f"GET range {answer.status}"] += 1
        if answer.status == 206:
            self.ledger.observe(key, answer.etag, f"GET {first}-{last} at {endpoint}")
            seen = self.ledger.versions[answer.etag]
            if answer.body != make_body(seen.seed, seen.size_bytes)[first : last + 1]:
                raise PromiseBroken(f"{key}: bytes {first}-{last} at {endpoint} are not those that were written")
            self.bytes_read += answer.size_bytes
        return answer.status < 500

    async def list_some(self, key: str) -> None:
        """All keys that begin like this one, beside the writes of others: judged where nobody wrote meanwhile."""
        await self._retry_read("LIST", lambda: self._list_beside_writes(key[:-1]))

    async def _list_beside_writes(self, prefix: str) -> bool:
        endpoint = self._endpoint()
        quiet = {k: self._changes[k] for k in self._locks if k.startswith(prefix) and self._changes[k] % 2 == 0}
        listed = await self.session.list_keys(endpoint, self.bucket, prefix)
        self.counts["LIST 200"] += 1
        for key, changes in quiet.items():
            if self._changes[key] == changes:
                self.ledger.observe(key, listed.get(key, ABSENT), f"LIST at {endpoint}")
        return True

    def _broken(self, key: str, what: str) -> PromiseBroken:
        return PromiseBroken(f"{key}: {what}\n  " + "\n  ".join(self.ledger.state(key).story[-12:]))

    # --- checking at rest
    async def check(self) -> None:
        """Every key through every pod, listed and read; all pods must be up.  Raises PromiseBroken."""
        for endpoint in self.endpoints:
            await self._check_listing(endpoint)
            await self._check_reads(endpoint)
        if self.versions.kept:
            for endpoint in self.endpoints:
                await self._check_versions(endpoint)

    async def _check_versions(self, endpoint: str) -> None:
        """All of them listed, some of them read."""
        listed = await self._patiently(
            lambda: self.session.list_versions(endpoint, self.bucket), f"LIST versions at {endpoint}"
        )
        self.versions.observe(listed, self.ledger, f"LIST versions at {endpoint}")
        objects = sorted(one for one, etag in self.versions.kept.items() if etag != ABSENT)
        for key, version in self.random.sample(objects, min(len(objects), VERSIONS_READ)):
            reading = functools.partial(self._must_read_version, endpoint, key, version)
            await self._patiently(reading, f"GET {key} {version} at {endpoint}")

    async def _must_read_version(self, endpoint: str, key: str, version: str) -> None:
        answer = await self.session.exchange(endpoint, "GET", self.bucket, key, f"versionId={version}")
        if answer.status >= 500:
            raise NoAnswer("503")
        etag = self.versions.kept[key, version]
        if (answer.status, answer.etag) != (200, etag):
            raise PromiseBroken(
                f"{key}: GET of {version} at {endpoint} answers {answer.status} {answer.etag}, not {etag}"
            )
        self.ledger.check_content(key, etag, answer.sha256, answer.size_bytes, f"GET of {version} at {endpoint}")

    async def _check_listing(self, endpoint: str) -> None:
        listed = await self._patiently(lambda: self.session.list_keys(endpoint, self.bucket), f"LIST at {endpoint}")
        for key in self._locks:
            self.ledger.observe(key, listed.pop(key, ABSENT), f"LIST at {endpoint}")
        if listed:
            raise PromiseBroken(f"LIST at {endpoint} shows keys that nobody wrote: {sorted(listed)[:5]}")

    async def _check_reads(self, endpoint: str) -> None:
        waiting = iter(list(self._locks))

        async def reader() -> None:
            for key in waiting:
                await self._patiently(functools.partial(self._must_read, endpoint, key), f"GET {key} at {endpoint}")

        async with asyncio.TaskGroup() as group:
            for _ in range(READERS):
                group.create_task(reader())

    async def _must_read(self, endpoint: str, key: str) -> None:
        if not await self.read_through(endpoint, key):
            raise NoAnswer("503")

    async def _patiently(self, attempt: Callable[[], Awaitable[T]], what: str) -> T:
        """A read that is refused for a moment is asked again; for longer, it breaks promise 4."""
        try:
            async with asyncio.timeout(READ_ATTEMPT_SECONDS):
                while True:
                    try:
                        return await attempt()
                    except NoAnswer:
                        self.counts["read again"] += 1
                        await asyncio.sleep(READ_PAUSE_SECONDS)
        except TimeoutError:
            raise PromiseBroken(f"{what}: refused for {READ_ATTEMPT_SECONDS:.0f} s with every pod up") from None

    async def _ask(self, method: str, key: str, query: str, body: bytes = b"", keep: bool = False) -> Answer:
        """A request of an upload that changes no key; may be repeated.  Raises NoAnswer."""
        for attempt in range(self.retries.attempts):
            if attempt:
                self.retried += 1
                await asyncio.sleep(self.retries.pause_seconds(attempt - 1, self.random))
            last = attempt == self.retries.attempts - 1
            try:
                answer = await self.session.exchange(self._endpoint(), method, self.bucket, key, query, body, keep=keep)
                self.bytes_written += len(body) if answer.ok else 0
                self.counts[f"{'upload' if method == 'POST' else 'part' if body else 'abort'} {answer.status}"] += 1
                if answer.status < 500 or last:
                    return answer
            except NoAnswer:
                if last:
                    raise
        raise AssertionError("no attempt")

    def _next_seed(self) -> int:
        self._body_seed += 1
        return self._body_seed
