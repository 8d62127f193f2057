"""When free memory goes back."""

from holdfast_server.memory.at_rest import REST_FRACTION, Rest, give_back

QUIET, BUSY = REST_FRACTION * 5, REST_FRACTION * 20
"""CPU seconds in ten seconds."""


def told(*taken: float) -> list[bool]:
    rest, total, answers = Rest(100.0), 100.0, []
    for seconds in taken:
        total += seconds
        answers.append(rest.begins(total, 10.0))
    return answers


def test_once_after_the_start_and_once_after_each_time_of_work() -> None:
    assert told(QUIET, QUIET, BUSY, BUSY, QUIET, QUIET, QUIET, BUSY, QUIET) == [
        True, False, False, False, True, False, False, False, True,
    ]  # fmt: skip


def test_not_while_there_is_work() -> None:
    assert told(BUSY, BUSY, BUSY) == [False] * 3


def test_what_is_given_back_is_not_in_use() -> None:
    kept = [bytes([number % 256]) * 5000 for number in range(10_000)]
    freed = kept[::2]
    del freed
    assert isinstance(give_back(), bool)
    assert all(block == bytes([number % 256]) * 5000 for number, block in enumerate(kept))
