"""Names keep the order of the registers they stand for, and every start means what it says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_server.drives import names
from holdfast_server.drives.port import Register

SPACE = b"o" + bytes(16)
texts = st.text(st.characters(codec="utf-8"), max_size=6) | st.text("\0\x01a\u00ff\U0001f431", max_size=6)
versions = st.just(b"") | st.binary(max_size=6) | st.lists(st.sampled_from([0, 1, 254, 255]), max_size=4).map(bytes)
registers = st.builds(Register, st.just(SPACE), texts, versions)


def order(register: Register) -> tuple[bytes, bytes]:
    return register.key.encode(), register.version


@given(st.lists(registers, max_size=5))
def test_names_are_taken_apart_one_by_one_and_together(several):
    made = [names.name_of(register) for register in several]
    assert [Register(SPACE, *names.parse(name)) for name in made] == several
    assert names.registers(SPACE, made) == several
    assert [name[: names.end_of_key(name)] for name in made] == [names.escape(r.key.encode()) for r in several]


@given(registers, registers)
def test_names_sort_as_their_registers_do(one, other):
    assert (names.name_of(one) < names.name_of(other)) == (order(one) < order(other))


@given(registers, registers)
def test_what_comes_after_a_name_is_behind_it_and_before_the_next(one, other):
    behind = names.after(names.name_of(one))
    if one.version:
        assert (names.name_of(other) >= behind) == (order(other) > order(one))
    else:
        assert (names.name_of(other) >= behind) == (other.key.encode() > one.key.encode())


@given(texts, registers)
def test_what_comes_after_a_group_is_behind_all_that_begins_with_it(group, register):
    behind = names.after_group(names.escape(group.encode()))
    key = register.key.encode()
    assert (names.name_of(register) >= behind) == (key >= group.encode() and not key.startswith(group.encode()))


@given(registers, registers, st.booleans())
def test_a_start_is_told_as_key_and_version(one, other, behind):
    name = names.name_of(one)
    start = names.after(name) if behind else name
    assert (order(other) >= names.position(start)) == (names.name_of(other) >= start)
    assert names.position(names.start_at(*order(one))) == order(one)


@pytest.mark.parametrize("bad", [b"", b"a", b"a\0\0", b"a\0\0b\0\0c", b"\xff\0\0\0\0", b"a\0\1\0\0"])
def test_what_is_no_name_is_refused(bad):
    with pytest.raises(names.NameCorrupt):
        names.parse(bad)
    with pytest.raises(names.NameCorrupt):
        names.registers(SPACE, [bad])
