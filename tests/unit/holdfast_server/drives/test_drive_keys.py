"""Row keys keep the order of the registers they stand for, whatever bytes are in them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from holdfast_server.drives import keys
from holdfast_server.drives.port import Register

texts = st.text(st.characters(codec="utf-8"), max_size=6) | st.text("\0\x01a\u00ff\U0001f431", max_size=6)
versions = st.binary(max_size=6) | st.lists(st.sampled_from([0, 1, 254, 255]), max_size=4).map(bytes)
registers = st.builds(
    Register, st.sampled_from([b"o" + bytes(16), b"o" + b"\xff" * 16, b"p" + bytes(16)]), texts, versions
)


def order(register: Register) -> tuple[bytes, bytes, bytes]:
    return register.space, register.key.encode(), register.version


@given(registers)
def test_a_row_key_decodes_to_its_register(register):
    assert keys.decode_row_key(keys.row_key(register)) == register


@given(registers, registers)
def test_row_keys_sort_as_their_registers_do(one, other):
    assert (keys.row_key(one) < keys.row_key(other)) == (order(one) < order(other))


@given(registers, registers)
def test_no_row_key_starts_with_another(one, other):
    assert one == other or not keys.row_key(one).startswith(keys.row_key(other))


@given(registers, st.binary(max_size=6))
def test_a_seek_key_parts_the_keys_below_from_the_others(register, start):
    seek = keys.seek_key(register.space, start)
    assert (keys.row_key(register) >= seek) == (register.key.encode() >= start)


@given(registers, texts, versions)
def test_a_seek_key_with_a_version_parts_the_registers(register, key, version):
    seek = keys.seek_key(register.space, key.encode(), version)
    assert (keys.row_key(register) >= seek) == ((register.key.encode(), register.version) >= (key.encode(), version))


@given(st.binary(max_size=4), st.binary(max_size=4))
def test_the_successor_is_above_everything_with_the_prefix_and_nothing_else(prefix, other):
    behind = keys.successor(prefix)
    if behind is None:
        assert not prefix.strip(b"\xff")
    elif other >= prefix:
        assert (other < behind) == other.startswith(prefix)
