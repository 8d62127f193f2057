"""What this pod remembers of every drive slot of the tenant: the newest incarnation it has heard of.  Pure.

The memory is what tells a replacement from a new drive, so it is kept on every usable drive of every pod; the
keeping is `local_drives`' business.
"""

from __future__ import annotations

from collections.abc import Iterable

from holdfast_server.drives.slot import Place, SlotMemory


class SlotBook:
    def __init__(self) -> None:
        self._slots: dict[Place, SlotMemory] = {}

    def learn(self, slots: Iterable[SlotMemory]) -> list[SlotMemory]:
        """Take over what is newer; returns just that."""
        news = []
        for slot in slots:
            known = self._slots.get(place_of(slot))
            if slot.drive_id and (known is None or known.incarnation < slot.incarnation):
                self._slots[place_of(slot)] = slot
                news.append(slot)
        return news

    def get(self, place: Place) -> SlotMemory | None:
        return self._slots.get(place)

    def everything(self) -> list[SlotMemory]:
        return list(self._slots.values())


def place_of(slot: SlotMemory) -> Place:
    return slot.pool, slot.set_index, slot.position
