"""Rings of keys: how entries are named, which generation is taken, what is said of a bad one."""

from __future__ import annotations

import base64

import pytest

from holdfast_server.contract.encryption_keys import EncryptionKeyError, decode_key, decode_ring, fingerprint
from holdfast_server.sealing.ring import KeyRing, MasterKey, UnknownKey

ONE, TWO, TEN = bytes([1] * 32), bytes([2] * 32), bytes([10] * 32)


def test_keys_are_read_in_each_of_their_forms() -> None:
    for text in (
        ONE,
        base64.b64encode(ONE),
        base64.b64encode(ONE) + b"\n",
        ONE.hex().encode(),
        ONE.hex().encode() + b"\r\n",
    ):
        assert decode_key(text) == ONE


@pytest.mark.parametrize("text", [b"", b"short", ONE[:31], base64.b64encode(ONE[:31]), b"z" * 64, b"\xff" * 33])
def test_what_is_no_key_is_refused_without_showing_it(text: bytes) -> None:
    with pytest.raises(EncryptionKeyError) as caught:
        decode_ring({"default.1": text})
    assert "default.1" in str(caught.value)
    assert not text or text.decode("latin-1") not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["", ".1", "default.", "default.0", "default.01", "a b", "a/b", "x" * 64, "default.1.2"]
)
def test_bad_names_are_named(name: str) -> None:
    with pytest.raises(EncryptionKeyError, match="no name of a key"):
        decode_ring({name: ONE})


def test_every_fault_is_told() -> None:
    with pytest.raises(EncryptionKeyError) as caught:
        decode_ring({"a b": ONE, "default.1": b"", "good": ONE})
    assert len(str(caught.value).splitlines()) == 2


def test_writes_take_the_highest_generation_by_number() -> None:
    ring = KeyRing({"default.2": TWO, "default.10": TEN, "default": ONE, "billing": ONE})
    assert ring.newest("default") == MasterKey("default.10", TEN)
    assert ring.newest("billing") == MasterKey("billing", ONE)


def test_writes_take_only_what_every_pod_has() -> None:
    ring = KeyRing({"default.1": ONE, "default.2": TWO})
    known = {fingerprint("default.1", ONE)}
    assert ring.newest("default", known.__contains__) == MasterKey("default.1", ONE)
    assert ring.newest("default", set().__contains__) is None  # type: ignore[arg-type]


def test_another_key_under_the_same_name_is_another() -> None:
    assert fingerprint("default.1", ONE) != fingerprint("default.1", TWO)
    assert fingerprint("default.1", ONE) != fingerprint("default.2", ONE)


def test_unknown_keys_are_said_to_be_unknown() -> None:
    ring = KeyRing({"default.1": ONE})
    with pytest.raises(UnknownKey, match="billing"):
        ring.newest("billing")
    with pytest.raises(UnknownKey):
        ring.get("default.2")


def test_no_key_is_shown() -> None:
    ring = KeyRing({"default.1": b"k" * 32})
    assert "kkk" not in repr(ring) + repr(ring.newest("default"))
