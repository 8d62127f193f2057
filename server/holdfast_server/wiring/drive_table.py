"""Which drive serves which place of which set: this pod's own and its peers', one type to their callers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from holdfast_server.contract import geometry
from holdfast_server.contract.config import ServerConfig
from holdfast_server.drives.port import Drive
from holdfast_server.objects.port import Unavailable
from holdfast_server.peers.remote import RemotePeer
from holdfast_server.pod.health import PlacedStatus


class DriveTable:
    """Filled anew with every configuration."""

    def __init__(
        self,
        own: Sequence[Drive],
        own_place: tuple[str, int],
        newest_epoch: Callable[[], int],
        own_newest_epoch: Callable[[], int],
    ) -> None:
        """`own_place`: this pod's pool and ordinal.  `newest_epoch`: the newest any peer has reported;
        `own_newest_epoch`: the newest this pod ever has."""
        self._own, self._own_place = own, own_place
        self._newest_epoch, self._own_newest_epoch = newest_epoch, own_newest_epoch
        self._epoch = 0
        self._sets: dict[tuple[str, int], list[Drive]] = {}
        self._placed: list[tuple[str, int, int, int, int, Drive]] = []

    def configure(self, config: ServerConfig, peers: Iterable[RemotePeer]) -> None:
        by_pod: dict[tuple[str, int], Sequence[Drive]] = {(peer.pool, peer.ordinal): peer.drives() for peer in peers}
        by_pod[self._own_place] = self._own
        sets: dict[tuple[str, int], list[Drive]] = {}
        placed = []
        for pool in config.pools:
            groups = geometry.erasure_sets(pool.servers, pool.volumes_per_server, pool.erasure.set_size)
            for index, group in enumerate(groups):
                sets[pool.name, index] = [by_pod[pool.name, slot.ordinal][slot.volume] for slot in group]
                placed += [
                    (pool.name, index, position, slot.ordinal, slot.volume, sets[pool.name, index][position])
                    for position, slot in enumerate(group)
                ]
        self._epoch, self._sets, self._placed = config.epoch, sets, placed

    def behind(self) -> str:
        """Why this pod may coordinate nothing; empty if it may.  A pod that does not know the newest pools would
        look for keys where they no longer are written, and answer with old versions.

        One epoch behind is as good as none: every epoch's pools are read one epoch before any of them is written
        otherwise.  What this pod itself has reported is another matter: others rely on it.
        """
        newest, own = self._newest_epoch(), self._own_newest_epoch()
        if own > self._epoch:
            return f"this pod's configuration is of epoch {self._epoch}, and it has been at {own} before"
        if newest > self._epoch + 1:
            return f"this pod's configuration is of epoch {self._epoch}, others are at {newest}"
        return ""

    def lagging(self) -> str:
        """That this pod is to take up another epoch, for people; empty if not, or if it is `behind`."""
        newest = self._newest_epoch()
        if newest != self._epoch + 1:
            return ""
        return f"others are at epoch {newest}, this pod is about to follow from {self._epoch}"

    def drives_of(self, pool: str, set_index: int) -> list[Drive]:
        """The N drives of a set in position order.  Raises Unavailable while this pod is behind."""
        behind = self.behind()
        if behind:
            raise Unavailable(behind)
        return self._sets[pool, set_index]

    def statuses(self) -> list[PlacedStatus]:
        """Of every drive of the tenant."""
        return [
            PlacedStatus(pool, index, position, ordinal, volume, drive.status())
            for pool, index, position, ordinal, volume, drive in self._placed
        ]
