"""Failed authentications are bounded for each source, and good clients behind the same address go on."""

from __future__ import annotations

import pytest

from holdfast_server.auth.failure_limits import (
    KEY_BURST,
    KEY_PER_SECOND,
    MAX_KNOWN_KEYS,
    MAX_SOURCES,
    SOURCE_BURST,
    SOURCE_PER_SECOND,
    FailureLimits,
    source_of,
)

PROXY = "192.0.2.1"


def guess(limits: FailureLimits, key: str, times: int, now: float, remote: str = PROXY) -> int:
    """How many of so many wrong claims were looked at."""
    looked_at = 0
    for _ in range(times):
        if limits.admits(remote, key, now):
            limits.failed(remote, key, now)
            looked_at += 1
    return looked_at


def test_guesses_from_one_source_are_bounded_and_come_back_with_time() -> None:
    limits = FailureLimits()
    assert guess(limits, "unknown", 1000, 0.0) == SOURCE_BURST
    assert guess(limits, "another", 1000, 0.0) == 0
    assert guess(limits, "unknown", 1000, 3.0) == 3 * SOURCE_PER_SECOND
    assert guess(limits, "unknown", 1000, 0.0, "192.0.2.2") == SOURCE_BURST, "another source has its own"
    assert guess(limits, "unknown", 5000, 1000.0) == SOURCE_BURST, "no more than a burst is saved up"


def test_a_good_client_behind_the_same_proxy_goes_on() -> None:
    limits = FailureLimits()
    limits.succeeded(PROXY, "good")
    guess(limits, "bad", 1000, 0.0)
    assert not limits.admits(PROXY, "new", 0.0)
    assert limits.admits(PROXY, "good", 0.0)
    assert limits.admits(PROXY, "new", 1 / SOURCE_PER_SECOND), "and a new one soon after the guesses end"


def test_who_guesses_the_secret_of_a_key_in_use_harms_that_key_alone_and_not_for_long() -> None:
    limits = FailureLimits()
    limits.succeeded(PROXY, "good")
    limits.succeeded(PROXY, "neighbour")
    assert guess(limits, "good", 1000, 0.0) == KEY_BURST
    assert not limits.admits(PROXY, "good", 0.0)
    assert limits.admits(PROXY, "neighbour", 0.0)
    assert limits.admits(PROXY, "new", 0.0)
    assert limits.admits("192.0.2.2", "good", 0.0), "from elsewhere the key works"
    assert limits.admits(PROXY, "good", 1 / KEY_PER_SECOND)


def test_what_is_remembered_is_bounded() -> None:
    limits = FailureLimits()
    for number in range(MAX_SOURCES + 10):
        limits.failed(f"host-{number}", "key", 0.0)
    for number in range(MAX_KNOWN_KEYS + 10):
        limits.succeeded(PROXY, f"key-{number}")
    limits.succeeded(PROXY, "x" * 100_000)
    assert len(limits._sources) == MAX_SOURCES
    assert len(limits._keys) == MAX_KNOWN_KEYS


@pytest.mark.parametrize(
    ("remote", "source"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::"),
        ("", ""),
        ("a:b", "a:b"),
    ],
)
def test_a_source_is_an_address_or_the_network_of_a_host(remote: str, source: str) -> None:
    assert source_of(remote) == source
