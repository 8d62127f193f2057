"""What healing tells of itself: one value out of the states of its parts.  Waits for nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from holdfast_server.clock.port import Clock
from holdfast_server.contract.healing import BucketWalkProgress, DriveHealing, HealProgress, SetHealing
from holdfast_server.drives.port import DriveState
from holdfast_server.heal.own_drive import OwnDrive
from holdfast_server.objects.port import Unavailable
from holdfast_server.objects.store import ObjectStore
from holdfast_server.placement.map import SetId

if TYPE_CHECKING:
    from holdfast_server.heal.service import HealService


def report(
    service: HealService, store: ObjectStore, drives: Iterable[tuple[int, OwnDrive]], clock: Clock
) -> HealProgress:
    told = [_drive(service, volume, drive, clock) for volume, drive in drives]
    works = [service.work_of(one.volume) for one in told]
    return HealProgress(
        drives=told,
        sets=_sets(service, told),
        registers_repaired=sum(work.queue.repaired for work in works),
        copies_made=service.registers.copied,
        failed=service.registers.failed,
        drives_filled=service.filling.drives_filled,
        tombstones_dropped=sum(work.drop.dropped_ever for work in works),
        tombstones_waiting=sum(work.drop.seen - work.drop.dropped for work in works),
        read_repairs=store.read_repair.done,
        read_repairs_dropped=store.read_repair.dropped,
        work_share=service.pacer.share,
        foreground_latency_seconds=service.pacer.latency_seconds,
    )


def _drive(service: HealService, volume: int, drive: OwnDrive, clock: Clock) -> DriveHealing:
    work = service.work_of(volume)
    total = _registers_total(service, drive, volume)
    walk = service.walk
    usage, counted_ms = walk.usage(work.walk) if walk is not None else ([], 0)
    length = drive.repair_queue_length
    waited = (clock.now_ms() - work.queue.oldest_ms) / 1000 if length and work.queue.oldest_ms else 0.0
    return DriveHealing(
        pool=drive.pool,
        set_index=drive.set_index,
        position=drive.position,
        volume=volume,
        state=drive.status().state.told,
        queue_length=length,
        oldest_entry_seconds=max(0.0, waited),
        filling=service.filling.progress(work.filling, total),
        scanner=service.scanner.progress(work.scan, total),
        usage=usage,
        usage_counted_ms=counted_ms,
        buckets=walk.progress(work.walk, total) if walk is not None else BucketWalkProgress(),
    )


def _registers_total(service: HealService, drive: OwnDrive, volume: int) -> int:
    """About how many the set has: what the fullest of its full drives has; 0 while this pod may look at none."""
    try:
        others = service.set_of(drive).drives().values()
    except Unavailable:
        return 0  # it is behind the others' configuration, which must not keep it from telling how it is
    counts = [other.status().registers for other in others if other.status().state is DriveState.FULL]
    return max(counts, default=0)


def _sets(service: HealService, told: list[DriveHealing]) -> list[SetHealing]:
    by_set: dict[SetId, list[DriveHealing]] = {}
    for one in told:
        by_set.setdefault(SetId(one.pool, one.set_index), []).append(one)
    found = []
    for set_id, drives in by_set.items():
        count, samples = service.registers.stuck(set_id)
        found.append(
            SetHealing(
                pool=set_id.pool,
                index=set_id.index,
                queue_length=max(one.queue_length for one in drives),
                oldest_entry_seconds=max(one.oldest_entry_seconds for one in drives),
                stuck=count,
                stuck_samples=samples,
            )
        )
    return found
