"""Deadlines of one length for many, by a loop whose time the test makes."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

from holdfast_server.api.http.overdue import Overdue


class Timer:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """Time, and what is to happen when."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, int, Callable[[], None], Timer]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, call: Callable[[], None]) -> Timer:
        timer = Timer()
        heapq.heappush(self.timers, (when, len(self.timers), call, timer))
        return timer

    def call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        return self.call_at(self.now + seconds, call)

    def go_to(self, when: float) -> None:
        while self.timers and self.timers[0][0] <= when:
            self.now, _, call, timer = heapq.heappop(self.timers)
            if not timer.cancelled:
                call()
        self.now = when


def made() -> tuple[Any, Overdue[str], list[tuple[str, float]]]:
    loop: Any = Loop()
    due: list[tuple[str, float]] = []
    return loop, Overdue(loop, 10, lambda what: due.append((what, loop.now))), due


def test_who_began_and_did_not_end_is_due_in_its_time() -> None:
    loop, overdue, due = made()
    for at, what in ((0, "a"), (1, "b"), (1, "c"), (4, "d")):
        loop.go_to(at)
        overdue.begin(what)
    overdue.end("b")
    overdue.end("nobody")
    loop.go_to(100)
    assert due == [("a", 10), ("c", 11), ("d", 14)]
    assert not loop.timers


def test_who_begins_again_has_all_of_its_time() -> None:
    loop, overdue, due = made()
    for at in (0, 7):
        loop.go_to(at)
        overdue.begin("a")
        overdue.begin("b")
    overdue.begin("a")
    assert list(overdue) == ["b", "a"]
    loop.go_to(16.9)
    assert due == []
    loop.go_to(17)
    assert due == [("b", 17), ("a", 17)]


def test_one_timer_serves_all() -> None:
    loop, overdue, _ = made()
    for number in range(100):
        overdue.begin(str(number))
        overdue.end(str(number))
    assert len(loop.timers) == 1
    loop.go_to(10)
    assert not loop.timers


def test_what_is_due_may_end_others_and_begin_anew() -> None:
    loop: Any = Loop()
    due: list[str] = []

    def on_due(what: str) -> None:
        due.append(what)
        overdue.end("b")
        if len(due) < 3:
            overdue.begin("a")

    overdue: Overdue[str] = Overdue(loop, 10, on_due)
    overdue.begin("a")
    overdue.begin("b")
    loop.go_to(100)
    assert due == ["a", "a", "a"]


def test_after_the_end_nothing_is_due() -> None:
    loop, overdue, due = made()
    overdue.begin("a")
    overdue.stop()
    loop.go_to(100)
    assert due == []
