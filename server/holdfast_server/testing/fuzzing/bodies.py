"""Targets: bodies that are read while they come, the aws-chunked framing and the multipart form.

The chunked decoder is compared with a model that has the whole body at once; both readers must come to the same end
however their input is cut.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from hypothesis import strategies as st

from holdfast_server.s3.chunked import (
    MAX_BLANK_LINES,
    MAX_LINE_SIZE_BYTES,
    MAX_TRAILERS,
    STREAMING_SIGNED,
    canonical_trailers,
)
from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.post_form import (
    FormReader,
    check_form,
    check_form_signature,
    parse_form_claim,
    parse_form_policy,
)
from holdfast_server.s3.sigv4 import ALGORITHM
from holdfast_server.testing.chunked_bodies import MODES, SIGNATURE_TRAILER, decode, encode, signer_of
from holdfast_server.testing.fuzzing.damage import damaged
from holdfast_server.testing.fuzzing.target import Target, pure

_BY_THE_BYTE = 300
"""Shorter inputs are fed byte by byte, too."""


class Sent(NamedTuple):
    """A body as somebody sends it."""

    mode: str
    wire: bytes
    size_bytes: int
    """As its head declares it."""
    cuts: tuple[int, ...]


_TOKENS = [
    b"\r\n", b"\n", b"\r", b"0\r\n", b";chunk-signature=" + b"a" * 64, b" ; chunk-signature=", b"x-amz-checksum-crc32:",
    b"a:b\r\n", b"x-amz-trailer-signature:", b"ffffffffffffffff\r\n", b"-1\r\n", b"0x1\r\n", b"\t", b" ", b":",
    b" " * MAX_LINE_SIZE_BYTES, b"\xff",
]  # fmt: skip


@st.composite
def _sent(draw: Callable[..., Any]) -> Sent:
    mode = draw(st.sampled_from(MODES))
    chunks = draw(st.lists(st.binary(min_size=1, max_size=40), max_size=4))
    names = st.sampled_from(["x-amz-checksum-crc32", "x-amz-checksum-sha256", "b"])
    trailers = draw(st.dictionaries(names, st.text("aZ+/=09", max_size=12), max_size=3))
    wire = draw(damaged(st.just(encode(mode, chunks, trailers)), _TOKENS))
    size = len(b"".join(chunks)) + draw(st.sampled_from([0, 0, 0, 0, 1, -1, 100]))
    cuts = draw(st.lists(st.integers(0, len(wire)), max_size=8))
    return Sent(mode, wire, max(0, size), tuple(sorted(cuts)))


Outcome = tuple[bytes, dict[str, str]] | str


def _decoded(sent: Sent, cuts: tuple[int, ...]) -> Outcome:
    """Payload and trailers, or the error's code."""
    try:
        return decode(sent.mode, sent.wire, sent.size_bytes, cuts)
    except S3Error as error:
        return error.code


class _Refused(Exception):
    """By the model."""


_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[ \t]*chunk-signature=([0-9a-f]{64})[ \t]*)?")


class _Model:
    """The framing as one would read it from a file: no states, no pieces."""

    def __init__(self, sent: Sent) -> None:
        self._sent = sent
        self._rest = sent.wire
        self._signer = signer_of(sent.mode)

    def _line(self) -> bytes | None:
        """Up to a newline; None where there is none any more."""
        head, newline, _ = self._rest[: MAX_LINE_SIZE_BYTES + 2].partition(b"\n")
        if not newline:
            if len(self._rest) >= MAX_LINE_SIZE_BYTES + 2:
                raise _Refused
            return None
        self._rest = self._rest[len(head) + 1 :]
        return head

    def read(self) -> tuple[bytes, dict[str, str]]:
        payload = b""
        while (chunk := self._chunk()) != b"":
            payload += chunk
            if len(payload) > self._sent.size_bytes:
                raise _Refused
        trailers, signature = self._trailers()
        if len(payload) != self._sent.size_bytes:
            raise _Refused
        if self._signer is not None and self._sent.mode != STREAMING_SIGNED:
            wanted = self._signer.trailer(canonical_trailers(trailers))
            if signature != wanted:
                raise _Refused
        return payload, trailers

    def _chunk(self) -> bytes:
        line = self._line()
        match = _CHUNK.fullmatch((line or b"").removesuffix(b"\r"))
        if line is None or not line.endswith(b"\r") or match is None:
            raise _Refused
        size = int(match[1], 16)
        chunk = self._rest[:size]
        if len(chunk) != size or (size and self._rest[size : size + 2] != b"\r\n"):
            raise _Refused
        if self._signer is not None:
            wanted = self._signer.chunk(hashlib.sha256(chunk).hexdigest())
            if (match[2] or b"").decode() != wanted:
                raise _Refused
        self._rest = self._rest[size + 2 if size else 0 :]
        return chunk

    def _trailers(self) -> tuple[dict[str, str], str]:
        trailers: dict[str, str] = {}
        signature, blank_lines = "", 0
        while True:
            line = self._line()
            text = (self._rest.rstrip(b"\r") if line is None else line.removesuffix(b"\r"))  # fmt: skip
            if text:
                signature = self._trailer(text, trailers, signature)
            if line is None:
                return trailers, signature
            blank_lines += not text
            whole = self._sent.mode == STREAMING_SIGNED or bool(trailers if self._signer is None else signature)
            if not text and (whole or blank_lines == MAX_BLANK_LINES):
                if not b"\r\n".startswith(self._rest):
                    raise _Refused
                return trailers, signature

    def _trailer(self, line: bytes, trailers: dict[str, str], signature: str) -> str:
        name, colon, value = line.decode("latin-1").partition(":")
        name = name.strip().lower()
        full = len(trailers) >= MAX_TRAILERS
        if self._sent.mode == STREAMING_SIGNED or not line.isascii() or not colon or not name or signature:
            raise _Refused
        if name in trailers or full:
            raise _Refused
        if name == SIGNATURE_TRAILER:
            return value.strip()
        trailers[name] = value.strip()
        return ""


def check_chunked(sent: Sent) -> None:
    whole = _decoded(sent, ())
    assert _decoded(sent, sent.cuts) == whole
    if len(sent.wire) <= _BY_THE_BYTE:
        assert _decoded(sent, tuple(range(1, len(sent.wire)))) == whole
    try:
        modelled: Outcome | None = _Model(sent).read()
    except _Refused:
        modelled = None
    assert modelled == (None if isinstance(whole, str) else whole), (modelled, whole)


# --- forms


class Form(NamedTuple):
    fields: dict[str, str]
    file: bytes
    wire: bytes
    cuts: tuple[int, ...]
    content_type: str
    damaged: bool


_BOUNDARY = "----b0undary"
_POLICY = {
    "expiration": "2030-01-01T00:00:00.000Z",
    "conditions": [
        {"bucket": "bucket"}, ["starts-with", "$key", "u"], ["content-length-range", 0, 99], ["eq", "$acl", "private"],
        {"x-amz-credential": "key/20251120/us-east-1/s3/aws4_request"},
    ],
}  # fmt: skip
_FORM_TOKENS = [
    b"\r\n--" + _BOUNDARY.encode(), b"\r\n--" + _BOUNDARY.encode() + b"--\r\n", b"\r\n\r\n", b"Content-Disposition: ",
    b'; filename="a"', b'name="file"', b"--", b"\r\n", b"name*=utf-8''%ff", b"name*0=a", b'"', b";", b"\\",
]  # fmt: skip
_FIELD_VALUES = {
    "key": ["uploads/${filename}", "", "u"],
    "policy": [base64.b64encode(json.dumps(_POLICY).encode()).decode(), "", "AAAA", base64.b64encode(b"[1]").decode()],
    "x-amz-algorithm": [ALGORITHM, "AWS4"],
    "x-amz-credential": ["key/20251120/us-east-1/s3/aws4_request", "key", "/////"],
    "x-amz-date": ["20251120T220000Z", ""],
    "x-amz-signature": ["ab" * 32, "é"],
    "signature": ["c2ln", ""],
    "AWSAccessKeyId": ["key"],
    "acl": ["private", "x"],
    "success_action_status": ["201", "²"],
    "tagging": ["<Tagging/>"],
}


@st.composite
def _form(draw: Callable[..., Any]) -> Form:
    names = draw(st.lists(st.sampled_from(sorted(_FIELD_VALUES)), unique=True, max_size=8))
    fields = {name: draw(st.sampled_from(_FIELD_VALUES[name]) | st.text(max_size=8)) for name in names}
    file = draw(st.binary(max_size=60))
    delimiter = f"--{_BOUNDARY}\r\n".encode()
    wire = b"".join(
        delimiter + f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    )
    wire += delimiter + b'Content-Disposition: form-data; name="file"; filename="f"\r\nContent-Type: a/b\r\n\r\n'
    wire += file + f"\r\n--{_BOUNDARY}--\r\n".encode()
    sent = draw(damaged(st.just(wire), _FORM_TOKENS))
    kind = draw(st.sampled_from([f"multipart/form-data; boundary={_BOUNDARY}"] * 9 + ["multipart/form-data", "text/x"]))
    cuts = tuple(sorted(draw(st.lists(st.integers(0, len(sent)), max_size=6))))
    return Form(fields, file, sent, cuts, kind, sent != wire)


def _read_form(form: Form, cuts: tuple[int, ...]) -> tuple[dict[str, str], bytes, bool] | str:
    try:
        reader = FormReader(form.content_type)
        file = b""
        for start, stop in itertools.pairwise([0, *cuts, len(form.wire)]):
            file += reader.feed(form.wire[start:stop])
    except S3Error as error:
        return error.code
    return reader.fields, file, reader.ended


def check_form_reader(form: Form) -> None:
    whole = _read_form(form, ())
    assert _read_form(form, form.cuts) == whole
    if len(form.wire) <= _BY_THE_BYTE:
        assert _read_form(form, tuple(range(1, len(form.wire)))) == whole
    if isinstance(whole, str):
        return
    fields, file, ended = whole
    if not form.damaged:
        assert (fields, file, ended) == ({name.lower(): value for name, value in form.fields.items()}, form.file, True)
    _check_policy_of(fields)


def _check_policy_of(fields: dict[str, str]) -> None:
    """Whatever the fields are, only S3's errors."""
    for step in (
        lambda: (
            check_form_signature(claim, fields["policy"], "secret")
            if (claim := parse_form_claim(fields)) is not None
            else None
        ),
        lambda: check_form(parse_form_policy(fields.get("policy", "")), fields, "bucket", 1_800_000_000_000),
    ):
        try:
            step()
        except S3Error:
            continue


_POLICY_TOKENS = [b"[", b"{", b'"', b":", b",", b"null", b"1e999", b"NaN", b"-1", b'"$', b"9" * 5000, b"[" * 3000]


def check_form_policy(document: bytes) -> None:
    policy = base64.b64encode(document).decode()
    _check_policy_of({"policy": policy, "key": "uploads/a", "acl": "private"})


TARGETS = [
    Target("chunked bodies", _sent(), pure(check_chunked)),
    Target("forms", _form(), pure(check_form_reader)),
    Target(
        "policies of forms",
        damaged(st.just(json.dumps(_POLICY).encode()), _POLICY_TOKENS),
        pure(check_form_policy),
    ),
]
