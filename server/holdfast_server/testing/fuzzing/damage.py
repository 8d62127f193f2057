"""Valid input, made wrong here and there: pieces cut, repeated, flipped, put in.

Random bytes alone never get past the first line of a parser; damaged documents reach the rules behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

MAX_EDITS = 4
MAX_PIECE = 16
REPEATS = (1, 2, 40)
_KINDS = ("put", "cut", "repeat", "flip", "replace", "end")


@st.composite
def damaged(draw: Callable[..., Any], valid: SearchStrategy[bytes], tokens: Sequence[bytes] = (b"",)) -> bytes:
    """`tokens` are what the format gives meaning to; they are put in more often than other bytes."""
    data = bytearray(draw(valid))
    edits: int = draw(st.integers(0, MAX_EDITS))
    for _ in range(edits):
        at: int = draw(st.integers(0, len(data)))
        size: int = draw(st.integers(0, MAX_PIECE))
        kind = draw(st.sampled_from(_KINDS))
        if kind == "cut":
            del data[at : at + size]
        elif kind == "end":
            del data[at:]
        elif kind == "repeat":
            data[at:at] = data[at : at + size] * draw(st.sampled_from(REPEATS))
        elif kind == "flip" and at < len(data):
            data[at] ^= draw(st.integers(1, 255))
        else:
            piece = draw(st.sampled_from(tokens) | st.binary(max_size=6))
            data[at : at + (size if kind == "replace" else 0)] = piece
    return bytes(data)


def damaged_text(valid: SearchStrategy[str], tokens: Sequence[str] = ("",)) -> SearchStrategy[str]:
    """The same of text, as the front end decodes it: what is no UTF-8 comes as lone surrogates."""
    encoded = valid.map(lambda text: text.encode("utf-8", "surrogateescape"))
    pieces = [token.encode("utf-8", "surrogateescape") for token in tokens]
    return damaged(encoded, pieces).map(lambda data: data.decode("utf-8", "surrogateescape"))
