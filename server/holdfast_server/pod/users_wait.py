"""Whether a pod waits with being ready until it knows the tenant's users.

A pod that has just started answers 503 to everybody but root until it has read the users once.  Ready before that, it
would get its share of the requests while the others serve.  But readiness must not hang on other pods: where the users
cannot be read, for want of a quorum, pods that are not ready would leave the Service empty, and refused connections
tell clients less than 503.  So it waits `PATIENCE_SECONDS` from when it could serve otherwise, and no longer.

Not here: reading them (`api.identities`).
"""

from __future__ import annotations

PATIENCE_SECONDS = 15.0


class UsersWait:
    """Of one life of a pod.  Told now and then how it stands; loaded once is loaded for good."""

    def __init__(self) -> None:
        self._since_seconds: float | None = None
        self._over = False

    def look(self, now_seconds: float, *, serves: bool, loaded: bool) -> None:
        """`now_seconds`: monotonic; `serves`: drives of the pod are open."""
        if not serves and not self._over:
            self._since_seconds = None
            return
        if self._since_seconds is None:
            self._since_seconds = now_seconds
        self._over = self._over or loaded or now_seconds - self._since_seconds >= PATIENCE_SECONDS

    @property
    def waits(self) -> bool:
        return not self._over
