"""What an overview says about redundancy, and what it means for people.  Pure.

A tenant is *whole* when every pod answers, every drive serves and has room, no register waits for repair and none is
stuck.
Drives that keep the same repair entries are not added up: a set's queue is its longest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from holdfast_server.admin.overview import Overview, PodAnswer
from holdfast_server.contract import geometry
from holdfast_server.contract.admin import HealDrive, HealSet, HealStatus, PodState, StuckObject
from holdfast_server.contract.healing import DriveHealing, SetHealing
from holdfast_server.contract.health import DriveHealth, SetHealth
from holdfast_server.contract.wording import about, count_of, how_far

MAX_STUCK_TOLD = 100
_PROSPECTS = {
    "healing": "it is being filled from the others",
    "offline": "what it misses is written to it when its pod is back",
    "blank": "it waits for permission to join",
    "faulty": "it comes back once what is wrong has passed, or is filled anew if its folder is emptied",
}


def derive_heal_status(overview: Overview, bucket_names: Mapping[str, str]) -> HealStatus:
    """`bucket_names`: by the hexadecimal id."""
    states = [answer.state for answer in overview.answers if answer.state is not None]
    drives = _drives(overview, states)
    sets = [_set(health, states) for health in overview.cluster.sets]
    progress = [state.healing for state in states]
    findings = _findings(overview.silent, sets, drives)
    return HealStatus(
        whole=not findings,
        findings=findings,
        silent_pods=[answer.pod for answer in overview.silent],
        sets=sets,
        drives=drives,
        stuck=stuck_objects(states, bucket_names),
        registers_repaired=sum(one.registers_repaired for one in progress),
        copies_made=sum(one.copies_made for one in progress),
        failed=sum(one.failed for one in progress),
        drives_filled=sum(one.drives_filled for one in progress),
        read_repairs=sum(one.read_repairs for one in progress),
    )


def stuck_objects(states: Sequence[PodState], bucket_names: Mapping[str, str]) -> list[StuckObject]:
    """Each once, oldest first, at most `MAX_STUCK_TOLD`."""
    found = {}
    for state in states:
        for held in state.healing.sets:
            for one in held.stuck_samples:
                found[held.pool, held.index, one.kind, one.bucket_id, one.key, one.version] = StuckObject(
                    pool=held.pool,
                    set_index=held.index,
                    kind=one.kind,
                    bucket=bucket_names.get(one.bucket_id, one.bucket_id),
                    key=one.key,
                    version=one.version,
                    copies=one.copies,
                    copies_needed=one.copies_needed,
                    since_ms=one.since_ms,
                )
    return sorted(found.values(), key=lambda one: (one.since_ms, one.bucket, one.key))[:MAX_STUCK_TOLD]


def _drives(overview: Overview, states: Sequence[PodState]) -> list[HealDrive]:
    healing = {
        (drive.pool, drive.set_index, drive.position): drive for state in states for drive in state.healing.drives
    }
    names = {(answer.pool, answer.ordinal): answer.pod for answer in overview.answers}
    return [
        _drive(drive, names.get((drive.pool, drive.ordinal), ""), healing.get(_place(drive)))
        for drive in overview.drives
    ]


def _place(drive: DriveHealth) -> tuple[str, int, int]:
    return drive.pool, drive.set_index, drive.position


def _drive(drive: DriveHealth, pod: str, healing: DriveHealing | None) -> HealDrive:
    known = HealDrive(
        pool=drive.pool,
        set_index=drive.set_index,
        position=drive.position,
        pod=pod,
        volume=drive.volume,
        state=drive.state,
        message=drive.message,
        full=drive.full,
    )
    if healing is None:
        return known
    return msgspec.structs.replace(
        known,
        queue_length=healing.queue_length,
        oldest_entry_seconds=healing.oldest_entry_seconds,
        filling=healing.filling,
        scanner=healing.scanner,
    )


def _set(health: SetHealth, states: Sequence[PodState]) -> HealSet:
    quorums = geometry.quorums(health.set_size, health.parity)
    place = (health.pool, health.index)
    told = [one for state in states for one in state.healing.sets if (one.pool, one.index) == place]
    queues = [one for state in states for one in state.healing.drives if (one.pool, one.set_index) == place]
    return HealSet(
        pool=health.pool,
        index=health.index,
        set_size=health.set_size,
        online=health.online,
        healing=health.healing,
        writable=health.writable,
        readable=health.readable,
        losses_left=geometry.losses_left(quorums, health.online - health.healing, health.healing),
        queue_length=max((one.queue_length for one in queues), default=0),
        oldest_entry_seconds=max((one.oldest_entry_seconds for one in queues), default=0.0),
        stuck=_stuck(told),
    )


def _stuck(told: Sequence[SetHealing]) -> int:
    """Pods of a set meet the same stuck registers."""
    return max((one.stuck for one in told), default=0)


def _findings(silent: Sequence[PodAnswer], sets: Sequence[HealSet], drives: Sequence[HealDrive]) -> list[str]:
    found = []
    for one in sets:
        if not one.writable:
            served = "reads are served, writes are refused" if one.readable else "neither reads nor writes are served"
            found.append(f"pool {one.pool} set {one.index}: {served}: {one.online} of {one.set_size} drives answer")
    found += [_pod_finding(pod, drives) for pod in silent]
    told = {pod.pod for pod in silent}
    found += [_drive_finding(drive) for drive in drives if drive.state != "ok" and drive.pod not in told]
    found += [
        f"drive {drive.pod}/data{drive.volume} takes no new data for want of room: delete, or let the volumes grow"
        for drive in drives
        if drive.full
    ]
    for one in sets:
        where = f"pool {one.pool} set {one.index}"
        if one.stuck:
            stuck = count_of(one.stuck, "register is stuck and needs", "registers are stuck and need")
            found.append(f"{where}: {stuck} a person: `holdfast admin heal list-stuck`")
        if one.queue_length:
            waiting = count_of(one.queue_length, "register waits", "registers wait")
            found.append(f"{where}: {waiting} for repair, the oldest since {about(one.oldest_entry_seconds)}")
    return found


def _pod_finding(pod: PodAnswer, drives: Sequence[HealDrive]) -> str:
    volumes = [f"data{drive.volume}" for drive in drives if drive.pod == pod.pod]
    verb = "catches" if len(volumes) == 1 else "catch"
    return f"pod {pod.pod} does not answer: {pod.message}; its {', '.join(volumes)} {verb} up when it is back"


def _drive_finding(drive: HealDrive) -> str:
    text = f"drive {drive.pod}/data{drive.volume} is {drive.state}"
    if drive.message:
        text += f" ({drive.message})"
    prospect = f"filled from the others, {how_far(drive.filling)}" if drive.filling else _PROSPECTS.get(drive.state, "")
    return f"{text}: {prospect}" if prospect else text
