"""Protobuf bodies: what is understood, and that nonsense is refused without harm."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_local.apiserver.errors import StatusError
from holdfast_local.apiserver.http.protobuf import decode_object


def varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def text(number: int, value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def integer(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value % (1 << 64))


def envelope(api_version: str, kind: str, raw: bytes) -> bytes:
    return b"k8s\x00" + text(1, text(1, api_version) + text(2, kind)) + text(2, raw) + text(3, "") + text(4, "")


def test_a_config_map_is_decoded_without_its_unset_fields() -> None:
    metadata = text(1, "c") + text(2, "") + text(3, "default") + integer(7, 0) + text(8, b"")
    metadata += text(11, text(1, "app") + text(2, "x"))
    raw = text(1, metadata) + text(2, text(1, "key") + text(2, "wörd")) + text(3, text(1, "bin") + text(2, b"\x00\xff"))
    assert decode_object(envelope("v1", "ConfigMap", raw)) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "c", "namespace": "default", "labels": {"app": "x"}},
        "data": {"key": "wörd"},
        "binaryData": {"bin": "AP8="},
    }


def test_a_grace_period_of_zero_is_not_lost() -> None:
    options = integer(1, 0) + text(2, text(1, "uid-1"))
    raw = text(1, text(1, "p")) + text(2, options)
    decoded = decode_object(envelope("policy/v1", "Eviction", raw))
    assert decoded["deleteOptions"] == {"gracePeriodSeconds": 0, "preconditions": {"uid": "uid-1"}}


def test_ports_are_numbers_or_names() -> None:
    port = integer(3, 80) + text(4, integer(1, 0) + integer(2, 8080) + text(3, ""))
    named = integer(3, 81) + text(4, integer(1, 1) + integer(2, 0) + text(3, "http"))
    decoded = decode_object(envelope("v1", "Service", text(1, b"") + text(2, text(1, port) + text(1, named))))
    assert [entry["targetPort"] for entry in decoded["spec"]["ports"]] == [8080, "http"]


def test_an_unknown_kind_is_not_supported() -> None:
    with pytest.raises(StatusError) as refused:
        decode_object(envelope("apps/v1", "Deployment", b""))
    assert refused.value.code == 415


@given(st.binary(max_size=200))
def test_random_bytes_are_a_bad_request_or_an_object(data: bytes) -> None:
    for raw in (data, b"k8s\x00" + data, envelope("v1", "Secret", data)):
        code = 200
        try:
            decoded = decode_object(raw)
        except StatusError as error:
            code = error.code
        assert code in (400, 415) or decoded["kind"]


def test_a_truncated_body_is_a_bad_request() -> None:
    whole = envelope("v1", "ConfigMap", text(1, text(1, "name-of-it")))
    for length in range(len(whole) - 4):
        with pytest.raises(StatusError) as refused:
            decode_object(whole[:length])
        assert refused.value.code == 400
