"""Readiness waits for the tenant's users, and not for ever."""

from __future__ import annotations

from holdfast_server.pod.users_wait import PATIENCE_SECONDS, UsersWait


def test_it_waits_until_they_are_loaded_and_never_again() -> None:
    wait = UsersWait()
    assert wait.waits
    wait.look(100.0, serves=True, loaded=False)
    assert wait.waits
    wait.look(100.5, serves=True, loaded=True)
    assert not wait.waits
    wait.look(101.0, serves=False, loaded=True)
    wait.look(101.5, serves=True, loaded=True)
    assert not wait.waits


def test_it_waits_from_when_the_pod_could_serve_and_no_longer_than_its_patience() -> None:
    wait = UsersWait()
    wait.look(0.0, serves=False, loaded=False)
    wait.look(1000.0, serves=True, loaded=False)
    wait.look(1000.0 + PATIENCE_SECONDS - 0.1, serves=True, loaded=False)
    assert wait.waits
    wait.look(1001.0, serves=False, loaded=False)
    wait.look(1002.0, serves=True, loaded=False)
    wait.look(1001.0 + PATIENCE_SECONDS, serves=True, loaded=False)
    assert wait.waits, "the drives were away in between"
    wait.look(1002.0 + PATIENCE_SECONDS, serves=True, loaded=False)
    assert not wait.waits, "no quorum is told by 503, not by refused connections"
