"""Healing, dropping of tombstones and replacing of drives, broken: rules 8, 10 and 11."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any
from unittest import mock

from holdfast_server.contract.geometry import Quorums
from holdfast_server.drives import rules
from holdfast_server.drives.port import Register, Tombstone, TombstoneReply, TombstoneState
from holdfast_server.heal import filling, tombstones
from holdfast_server.objects import quorum
from holdfast_server.objects.asking import ask
from holdfast_server.objects.erasure_set import ErasureSet
from holdfast_server.objects.healing import Healer
from holdfast_server.pod import adoption
from holdfast_server.testing.memory_drive import MemoryDrive
from holdfast_server.testing.sim import cluster
from holdfast_server.testing.sim.broken import both


def no_fence_before_taking_back() -> AbstractContextManager[Any]:
    """R drives that lack it have said so, and are not asked to promise anything."""

    async def take_back(
        self: Healer, erasure_set: ErasureSet, register: Register, stamp: int, replies: quorum.Replies
    ) -> bool:
        have, drives = quorum.holders(replies, stamp), erasure_set.awake()
        removed = await ask({p: drives[p] for p in have if p in drives}, lambda _, drive: drive.remove(register, stamp))
        return len(removed) == len(have)

    return mock.patch.object(Healer, "_take_back", take_back)


def fences_that_fail_are_ignored() -> AbstractContextManager[Any]:
    """They are asked for, and what is answered does not matter."""
    return mock.patch.object(quorum, "fence_holds", return_value=True)


def no_deadline_before_taking_back() -> AbstractContextManager[Any]:
    return mock.patch.object(Healer, "may_be_in_flight", return_value=False)


def taken_back_by_count() -> AbstractContextManager[Any]:
    """ "I counted fewer than K copies, so I delete": no fence, no deadline, no R denials."""
    honest = quorum.decide_heal

    def decide(quorums: Quorums, replies: Any, stamp: int) -> quorum.HealStep:
        step = honest(quorums, replies, stamp)
        return quorum.HealStep.TAKE_BACK if step is quorum.HealStep.STUCK else step

    return both(
        mock.patch.object(quorum, "decide_heal", decide),
        no_fence_before_taking_back(),
        no_deadline_before_taking_back(),
    )


def dropped_before_all_agree() -> AbstractContextManager[Any]:
    """A tombstone goes as soon as one drive holds nothing else."""

    def judge(found: Any, states: Any, now_ms: int, age_seconds: float) -> Any:
        return honest(found, {0: [TombstoneState.SETTLED] * len(found)}, now_ms, 0.0)

    honest = tombstones.judge
    return mock.patch.object(tombstones, "judge", judge)


def dropped_at_once() -> AbstractContextManager[Any]:
    """A tombstone goes as soon as all drives hold nothing else, however young that is."""
    hasty = replace(cluster.SETTINGS, settled_seconds=0.0, age_seconds=0.0)
    return mock.patch.object(cluster, "SETTINGS", hasty)


def drops_leave_high_watermarks() -> AbstractContextManager[Any]:
    """A watermark that is above a tombstone stays what it is when that is dropped."""
    return mock.patch.object(rules, "raised", max)


def what_is_gone_leaves_high_watermarks() -> AbstractContextManager[Any]:
    """The same, only on drives that never had the tombstone."""

    def weigh(self: MemoryDrive, row: bytes, stamp: int, settled_seconds: float) -> TombstoneState:
        watermarks = list(self._watermarks)
        weighed = honest(self, row, stamp, settled_seconds)
        self._watermarks = watermarks
        return weighed

    honest = MemoryDrive._weigh
    return mock.patch.object(MemoryDrive, "_weigh", weigh)


def drops_rest_on_unsynced_words() -> AbstractContextManager[Any]:
    """What a drive says of its tombstones can be taken back by a loss of power."""
    honest = MemoryDrive.weigh_tombstones

    async def weigh(self: MemoryDrive, found: Sequence[Tombstone], settled_seconds: float) -> TombstoneReply:
        unsynced = list(self._unsynced)
        reply = await honest(self, found, settled_seconds)
        self._unsynced[:] = unsynced
        return reply

    return mock.patch.object(MemoryDrive, "weigh_tombstones", weigh)


def full_although_something_is_left() -> AbstractContextManager[Any]:
    """A replacement is taken for full though its pass left registers out."""
    return mock.patch.object(filling, "_leave", return_value=None)


def replacements_join_at_once() -> AbstractContextManager[Any]:
    """While messages meant for their predecessors may be under way."""
    honest = adoption.decide

    def decide(facts: adoption.BlankDrive) -> adoption.Decision:
        return honest(replace(facts, seconds_left=0.0))

    return mock.patch.object(adoption, "decide", decide)


def replacements_have_no_watermark() -> AbstractContextManager[Any]:
    """They take what was stamped before they came."""
    honest = MemoryDrive.adopt

    def adopt(self: MemoryDrive, drive_id: bytes, incarnation: int, _: int) -> None:
        honest(self, drive_id, incarnation, 0)

    return mock.patch.object(MemoryDrive, "adopt", adopt)


def replacements_know_no_before() -> AbstractContextManager[Any]:
    """Neither of the two."""
    return both(replacements_join_at_once(), replacements_have_no_watermark())
