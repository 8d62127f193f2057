"""Rounds of `kill -9` under traffic on real pods, each followed by a full check.  One seed decides the schedule.

A round: traffic begins; after a random moment some pods are killed; perhaps traffic goes on without them, or they
return and are killed again while they heal; then every pod is started and everything the ledger knows is listed and
read through every pod.  `KINDS` names what happens; with a seed and a number each round is the same again, as far as
real processes can be: the same operations in the same order at the same delays, but not the same instructions.

A power supply may be given: it is cut when all pods are dead, and what was not durable is gone (`power_loss`).

Not here: judging what is seen (`ledger`), making operations (`traffic`).
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from holdfast_server.contract import geometry
from holdfast_server.drives.folder_layout import DAMAGED_FOLDER, RETIRED_FILE, damage_note
from holdfast_server.drives.shard_files import staged_names
from holdfast_server.testing.faults.inspection import Findings, inspect_set
from holdfast_server.testing.faults.ledger import PromiseBroken
from holdfast_server.testing.faults.power_loss import PowerSupply
from holdfast_server.testing.faults.s3_session import NoAnswer, S3Session
from holdfast_server.testing.faults.scanning import scan_everything
from holdfast_server.testing.faults.traffic import Mix, Traffic
from holdfast_server.testing.pods import PodProcesses

BUCKET = "crash"
KEYS = 40
WORKERS = 12
MAX_TRAFFIC_SECONDS = 0.5
STAGING_EMPTY_SECONDS = 180.0
WHOLE_TIMEOUT_SECONDS = 300.0
"""After the last fault: an undecided write is left alone for 30 s before healing may decide it."""
START_TIMEOUT_SECONDS = 300.0
PROGRESS_ROUNDS = 20
FIRST_OPERATIONS = 80
"""Before the first round, so that there are versions."""
VERSIONED_MIX = Mix(delete_version=10, file_sizes_bytes=(65_537, 200_000), multipart=3)
"""Nothing that is replaced goes away, so large objects are few."""
VERSIONING = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Tally:
    """What was done so far."""

    rounds: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    kills: int = 0
    cuts: int = 0
    longest_start_seconds: float = 0.0
    """From starting what was down until every pod saw the write quorum."""


class CrashRounds:
    """See the module.  The pods are running and have no bucket yet."""

    def __init__(
        self,
        pods: PodProcesses,
        session: S3Session,
        seed: int,
        power: PowerSupply | None = None,
        versioned: bool = False,
    ) -> None:
        """`versioned`: the bucket keeps versions, and each that was acknowledged is looked for."""
        self.pods, self.seed, self.power, self.versioned = pods, seed, power, versioned
        endpoints = [pods.endpoint(pod) for pod in range(pods.servers)]
        keys = [f"k/{index:03d}" for index in range(KEYS)]
        self.traffic = Traffic(session, endpoints, BUCKET, keys, seed, VERSIONED_MIX if versioned else None)
        self.tally = Tally()
        self.story: list[str] = []
        self.least_acknowledged = 0
        """Before all pods or one are killed in the middle of traffic: where rounds are few, each has to have something
        to lose, and a busy machine acknowledges nothing in a moment."""

    async def run(self, rounds: int, kinds: tuple[str, ...] = ()) -> None:
        """Raises PromiseBroken, with seed, round and story."""
        await self.make_bucket()
        if self.versioned:
            await self.traffic.run(WORKERS, operations=FIRST_OPERATIONS)
        for number in range(rounds):
            chance = random.Random(f"{self.seed}/{number}")
            kind = self._kind_of(number, kinds, chance)
            self.story = [f"seed {self.seed}, round {number}: {kind}"]
            started = time.monotonic()
            try:
                await self.round(kind, chance)
            except BaseExceptionGroup as group:
                broken = group.subgroup(PromiseBroken)
                raise self._told(broken.exceptions[0] if broken is not None else group) from group
            except (PromiseBroken, TimeoutError, RuntimeError) as error:
                raise self._told(error) from error
            self.tally.rounds += 1
            self.tally.kinds[kind] += 1
            self.tally.seconds += time.monotonic() - started
            if self.tally.rounds % PROGRESS_ROUNDS == 0:
                log.info("%s", self.summary())

    def _kind_of(self, number: int, kinds: tuple[str, ...], chance: random.Random) -> str:
        """Each kind once, so that the seldom ones are there in any long run; then drawn by their weights."""
        once = sorted(kinds or KINDS)
        random.Random(self.seed).shuffle(once)
        if number < len(once):
            return once[number]
        return chance.choices(once, [KINDS[kind][1] for kind in once])[0]

    async def round(self, kind: str, chance: random.Random) -> None:
        """One round: break, start everything, check everything."""
        self.traffic.random = random.Random(chance.random())
        await KINDS[kind][0](self, chance)
        await self._come_up()
        await self.traffic.check()

    def summary(self) -> str:
        """For people: rounds, operations, speed."""
        tally, ledger = self.tally, self.traffic.ledger
        kinds = ", ".join(f"{count} {kind}" for kind, count in tally.kinds.most_common())
        return (
            f"seed {self.seed}: {tally.rounds} rounds in {tally.seconds:.0f} s "
            f"({60 * tally.rounds / max(tally.seconds, 0.001):.0f} per minute): {kinds}; {tally.kills} kills, "
            f"{tally.cuts} power cuts, at most {tally.longest_start_seconds:.1f} s to the write quorum; "
            f"{ledger.acknowledged} writes acknowledged, {ledger.left_undecided} undecided "
            f"({ledger.took_effect_late} of them seen later), {ledger.observed} observations; "
            f"{len(self.traffic.versions.kept)} versions kept, {len(self.traffic.versions.gone)} deleted; "
            f"{dict(self.traffic.counts.most_common())}"
        )

    def _told(self, error: BaseException) -> PromiseBroken:
        return PromiseBroken("\n".join([*self.story, f"{type(error).__name__}: {error}"]))

    # --- the kinds of round
    async def kill_all(self, chance: random.Random) -> None:
        """Every pod at once, in the middle of traffic."""
        async with self._traffic() as traffic:
            await self._some_traffic(traffic, chance)
            self._kill(range(self.pods.servers))
        self._power_cut(chance)
        await self._come_up()
        await self._staging_empties()

    async def kill_one(self, chance: random.Random) -> None:
        """One pod; traffic goes on without it."""
        async with self._traffic() as traffic:
            await self._some_traffic(traffic, chance)
            self._kill([chance.randrange(self.pods.servers)])
            await self._wait(chance, MAX_TRAFFIC_SECONDS)

    async def kill_some(self, chance: random.Random) -> None:
        """One after another, moments apart, until any number is down."""
        async with self._traffic():
            for pod in chance.sample(range(self.pods.servers), chance.randint(2, self.pods.servers)):
                await self._wait(chance, MAX_TRAFFIC_SECONDS / 3)
                self._kill([pod])
            await self._wait(chance, MAX_TRAFFIC_SECONDS / 3)
        if not self.pods.processes:
            self._power_cut(chance)

    async def kill_while_healing(self, chance: random.Random) -> None:
        """One misses writes, comes back, and some or all are killed while it is brought up to date."""
        missing = chance.randrange(self.pods.servers)
        self._kill([missing])
        await self.traffic.run(WORKERS, operations=40)
        self.pods.start(missing)
        await self.pods.wait_ready(missing)
        async with self._traffic():
            await self._wait(chance, 2.0)
            self._kill(chance.sample(range(self.pods.servers), chance.choice((1, 2, self.pods.servers))))
        if not self.pods.processes:
            self._power_cut(chance)

    async def kill_starting(self, chance: random.Random) -> None:
        """All at once, and again while they start."""
        async with self._traffic() as traffic:
            await self._some_traffic(traffic, chance)
            self._kill(range(self.pods.servers))
        await self._start_missing()
        await self._wait(chance, 1.2)
        self._kill(range(self.pods.servers))
        self._power_cut(chance)

    async def kill_while_filling(self, chance: random.Random) -> None:
        """A drive is replaced by an empty one, and everything is killed while it is filled."""
        await self._start_missing()
        await self.wait_whole()
        emptied = chance.randrange(self.pods.servers)
        self._kill([emptied])
        self.pods.empty(emptied)
        if self.power is not None:
            self.power.settle(emptied)
        self.pods.start(emptied)
        await self.pods.wait_ready(emptied)
        self.story.append(f"drive of pod {emptied} emptied")
        async with self._traffic(workers=4):
            await self._wait(chance, 6.0)
            self._kill(range(self.pods.servers))
        self._power_cut(chance)
        await self._start_missing()
        await self.wait_whole()

    # --- the end
    async def wait_whole(self) -> None:
        """Full redundancy, as the pods say."""
        await self.pods.wait_healthy()
        try:
            await self.pods.wait_whole(WHOLE_TIMEOUT_SECONDS)
        except TimeoutError:
            health = self.pods.health(0)
            raise PromiseBroken(f"not whole after {WHOLE_TIMEOUT_SECONDS:.0f} s: {health}") from None

    async def finish(self) -> Findings:
        """Whole again, checked twice, stopped, and the drives themselves inspected.  Raises PromiseBroken."""
        self.story = [f"seed {self.seed}, after {self.tally.rounds} rounds"]
        try:
            await self.traffic.check()
            await self.wait_whole()
            # A write whose coordinator died before it noted who missed it is found by reading or by scanning.
            await scan_everything(self.traffic.session, self.pods)
            await self.wait_whole()
            # With every drive answering and none of the writers alive, what was decided stays.
            self.traffic.ledger.close_undecided()
            await self.traffic.check()
            return await self.inspect()
        except BaseExceptionGroup as group:
            raise self._told(group.exceptions[0]) from group

    async def inspect(self) -> Findings:
        """Stops the pods; raises PromiseBroken for anything less than full redundancy."""
        self.pods.stop()
        quorums = geometry.resolve(self.pods.servers, self.pods.volumes, self.pods.set_size, self.pods.parity)
        folders = {pod: self.pods.drive_path(pod) for pod in range(self.pods.servers)}
        findings = await asyncio.to_thread(inspect_set, folders, quorums)
        if findings.missing:
            raise self._told(PromiseBroken("redundancy is not full:\n  " + "\n  ".join(findings.missing[:20])))
        return findings

    # --- pieces
    def _traffic(self, workers: int = WORKERS) -> _Running:
        return _Running(self.traffic, workers)

    async def _some_traffic(self, traffic: _Running, chance: random.Random) -> None:
        """While every pod is up."""
        wanted = self.traffic.ledger.acknowledged + self.least_acknowledged
        await self._wait(chance, MAX_TRAFFIC_SECONDS)
        while self.traffic.ledger.acknowledged < wanted and not traffic.is_over:
            await asyncio.sleep(0.01)

    async def _wait(self, chance: random.Random, most_seconds: float) -> None:
        seconds = chance.uniform(0, most_seconds)
        self.story.append(f"after {seconds * 1000:.0f} ms")
        await asyncio.sleep(seconds)

    def _kill(self, pods: range | list[int]) -> None:
        running = [pod for pod in pods if pod in self.pods.processes]
        self.pods.kill_together(running)
        self.tally.kills += len(running)
        self.story.append(f"killed {running}")

    def _power_cut(self, chance: random.Random) -> None:
        if self.power is not None:
            assert not self.pods.processes
            self.tally.cuts += 1
            self.story.append(f"power cut: {self.power.cut(random.Random(chance.random()))}")

    async def _start_missing(self) -> None:
        for pod in range(self.pods.servers):
            if pod not in self.pods.processes:
                self.pods.start(pod)
        self.story.append("all started")

    async def _come_up(self) -> None:
        began = time.monotonic()
        await self._start_missing()
        try:
            await self.pods.wait_healthy()
            self.tally.longest_start_seconds = max(self.tally.longest_start_seconds, time.monotonic() - began)
        except TimeoutError:
            seen = [f"pod {pod}: {self.pods.health(pod)}\n{self.pods.log_tail(pod)}" for pod in self.pods.processes]
            raise PromiseBroken("no write quorum after a restart:\n" + "\n".join(seen)) from None
        self.check_tables()

    def check_tables(self) -> None:
        """A drive whose table was given up is filled from the others, which would hide that a crash had damaged it.
        Raises PromiseBroken."""
        for pod in range(self.pods.servers):
            for volume in range(self.pods.volumes):
                folder = self.pods.drive_path(pod, volume)
                if (folder / DAMAGED_FOLDER).exists() or (folder / RETIRED_FILE).exists():
                    raise PromiseBroken(f"the table of pod {pod} did not survive: {damage_note(folder)}")

    async def _staging_empties(self) -> None:
        """Nothing of writes that died may stay in staging; what is being healed passes through it."""
        folders = [self.pods.drive_path(pod, v) for pod in range(self.pods.servers) for v in range(self.pods.volumes)]
        try:
            async with asyncio.timeout(STAGING_EMPTY_SECONDS):
                while left := [f"{folder}/{name}" for folder in folders for name in staged_names(folder)]:
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise PromiseBroken(f"left in staging after a restart: {left}") from None

    async def make_bucket(self) -> None:
        endpoint = self.pods.endpoint(0)
        async with asyncio.timeout(START_TIMEOUT_SECONDS):
            while True:
                try:
                    answer = await self.traffic.session.exchange(endpoint, "PUT", BUCKET)
                    if answer.ok or answer.code == "BucketAlreadyOwnedByYou":
                        if not self.versioned:
                            return
                        answer = await self.traffic.session.exchange(
                            endpoint, "PUT", BUCKET, query="versioning=", body=VERSIONING
                        )
                        if answer.ok:
                            return
                except NoAnswer:
                    pass
                await asyncio.sleep(0.2)


class _Running:
    """Traffic for as long as the block lasts; its operations are over when the block is left."""

    def __init__(self, traffic: Traffic, workers: int) -> None:
        self._traffic, self._workers = traffic, workers

    async def __aenter__(self) -> _Running:
        self._task = asyncio.create_task(self._traffic.run(self._workers))
        return self

    @property
    def is_over(self) -> bool:
        """By itself: a promise was broken."""
        return self._task.done()

    async def __aexit__(self, *_: object) -> None:
        self._traffic.stop()
        await self._task


KINDS: dict[str, tuple[Callable[[CrashRounds, random.Random], Awaitable[None]], int]] = {
    "kill all": (CrashRounds.kill_all, 34),
    "kill one": (CrashRounds.kill_one, 22),
    "kill some": (CrashRounds.kill_some, 16),
    "kill while healing": (CrashRounds.kill_while_healing, 14),
    "kill while starting": (CrashRounds.kill_starting, 12),
    "kill while filling": (CrashRounds.kill_while_filling, 2),
}
"""Each kind of round with its weight."""
