"""The file of further keys: what a pod accepts beside its root keys and its peer key, so that keys can be changed.

JSON at `keys.furtherKeysFile` of the configuration.  While keys change, those of before and those to come stand in
it; the pod reports the `revision` it works with (`/health/ready`, `/health/cluster`), and whoever changes keys takes
the next step only once every pod reports the last.

Rules for peer keys: a pod proves itself with its own peer key and believes those who prove themselves with any
that it knows.  So a new one is first made known everywhere, then taken as everybody's own, and only then is the old
one taken away.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

MIN_ACCESS_KEY_LENGTH, MAX_ACCESS_KEY_LENGTH = 3, 128
MIN_SECRET_KEY_LENGTH, MAX_SECRET_KEY_LENGTH = 8, 256
MIN_PEER_KEY_SIZE_BYTES = 16
"""Of all keys, wherever they come from."""
MAX_FURTHER_ROOTS = 8
MAX_FURTHER_PEER_KEYS = 4


class FurtherKeysError(ValueError):
    """The file cannot be used; the message shows no key."""


class RootPair(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", kw_only=True):
    access_key: str
    secret_key: str

    def __repr__(self) -> str:
        return f"RootPair({self.access_key!r}, …)"


class FurtherKeys(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", kw_only=True):
    revision: int = 0
    """Rises whenever what is accepted changes."""
    root: Annotated[tuple[RootPair, ...], msgspec.Meta(max_length=MAX_FURTHER_ROOTS)] = ()
    peer: Annotated[tuple[str, ...], msgspec.Meta(max_length=MAX_FURTHER_PEER_KEYS)] = ()

    def __repr__(self) -> str:
        return f"FurtherKeys(revision={self.revision}, …)"


def decode_further_keys(data: bytes) -> FurtherKeys:
    """Raises FurtherKeysError."""
    try:
        return msgspec.json.decode(data, type=FurtherKeys)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        # What does not fit is told by its path; msgspec shows no values.
        raise FurtherKeysError(str(error)) from error


def encode_further_keys(keys: FurtherKeys) -> bytes:
    return msgspec.json.encode(keys, order="sorted")
