"""Buffers begin at pages where they should, and only what is one run of memory is taken for one."""

from __future__ import annotations

import pytest

from holdfast_server.memory.buffers import PAGE_SIZE_BYTES, address_of, as_one, uncleared, uncleared_pages


@pytest.mark.parametrize("ahead", [0, 1, 8, 100, 4095, 4096, 5000])
def test_what_comes_after_the_beginning_is_at_a_page(ahead: int) -> None:
    view = uncleared_pages(10_000, ahead)
    assert len(view) == ahead + 10_000
    assert address_of(view[ahead:]) % PAGE_SIZE_BYTES == 0


def test_consecutive_views_of_one_buffer_are_one() -> None:
    buffer = uncleared(1000)
    buffer[:] = bytes(index % 256 for index in range(1000))
    view = memoryview(buffer)
    whole = as_one([view[100:200], view[200:700], view[700:]])
    assert whole is not None
    assert whole == view[100:]
    assert address_of(whole) == address_of(buffer) + 100


def test_all_else_is_not() -> None:
    first, second = memoryview(bytearray(100)), memoryview(bytearray(100))
    assert as_one([]) is None
    assert as_one([b"bytes"]) is None
    assert as_one([memoryview(b"bytes")]) is None
    assert as_one([first[:50].toreadonly()]) is None
    assert as_one([first[:50], first[51:]]) is None
    assert as_one([first[50:], first[:50]]) is None
    assert as_one([first, second]) is None
    assert as_one([first[:50], bytes(first[50:])]) is None
