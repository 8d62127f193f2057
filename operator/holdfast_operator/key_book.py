"""All keys of a tenant: those announced, those to come and those of before; kept in the Secret `<t>-peer`.

The operator's own record, so that no key is ever lost with the Secret that announces it: a generated Secret that was
deleted is written again with the same keys, and keys that change keep the former ones valid for a while.  It lies
beside the ledger, in a Secret that outlives the Tenant and has a copy.

* root: the storage pods read the pairs from the same Secret (`contract.keys`), each pod in its own time; `revision`
  rises with every change of what they shall accept, and pods report the one they work with;
* users: their keys are documents of the store, made and taken back by provisioning;
* peer key: a change takes three steps, each after every pod has taken the last: known, own, the old one gone.

Pure.  How keys change is `key_changes`; reading and writing Secrets happens elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from holdfast_operator.credentials import KeyPair
from holdfast_server.contract.keys import FurtherKeys, RootPair, encode_further_keys

BOOK_VERSION = 1
MAX_FORMER = 6
"""Pairs of before that stay valid at a time; a further change ends the oldest."""

PeerStage = Literal["Settled", "Known", "Taken"]
"""Of a change of the peer key: none under way; `other` is the next key, and every pod shall know it; `other` is the
former key, and every pod shall have taken up the new one."""


class KeyBookError(ValueError):
    """It cannot be read; the message shows no key."""


class FormerPair(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", kw_only=True):
    pair: KeyPair
    replaced_at: int = 0
    """Unix seconds when what took its place was valid everywhere; 0 until then."""


class KeyHistory(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", kw_only=True):
    """The keys of root, or of one user."""

    current: KeyPair
    """The pair that its Secret announces."""
    next: KeyPair | None = None
    """Announced once it is valid everywhere."""
    former: tuple[FormerPair, ...] = ()
    """Latest first."""

    @property
    def accepted(self) -> tuple[KeyPair, ...]:
        return (self.current, *([self.next] if self.next else []), *(former.pair for former in self.former))

    @property
    def in_force(self) -> KeyPair:
        """The pair that is certainly valid everywhere."""
        waiting = [former.pair for former in self.former if not former.replaced_at]
        return waiting[-1] if waiting else self.current

    @property
    def changing(self) -> bool:
        return self.next is not None or bool(self.former)


class PeerKeys(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", kw_only=True):
    own: str
    """What pods prove themselves with."""
    other: str = ""
    stage: PeerStage = "Settled"


class KeyBook(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", kw_only=True):
    version: int = BOOK_VERSION
    revision: int = 1
    tenant_uid: str = ""
    """The users' keys are those of this Tenant; one made again under its name gives its users new ones."""
    root: KeyHistory
    peer: PeerKeys
    users: Mapping[str, KeyHistory] = {}

    def __repr__(self) -> str:
        return f"KeyBook(revision={self.revision}, …)"


def decode_book(data: bytes) -> KeyBook:
    """Raises KeyBookError."""
    try:
        book = msgspec.json.decode(data, type=KeyBook)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise KeyBookError(f"the record of keys cannot be read: {error}") from error
    if book.version != BOOK_VERSION:
        raise KeyBookError(f"the record of keys has version {book.version}, this operator reads {BOOK_VERSION}")
    return book


def encode_book(book: KeyBook) -> bytes:
    return msgspec.json.encode(book, order="sorted")


def further_keys(book: KeyBook) -> bytes:
    """The file for the pods: what they accept beside the announced root pair and their own peer key."""
    return encode_further_keys(
        FurtherKeys(
            revision=book.revision,
            root=tuple(
                RootPair(access_key=pair.access_key, secret_key=pair.secret_key) for pair in book.root.accepted[1:]
            ),
            peer=(book.peer.other,) if book.peer.other else (),
        )
    )


def with_revision(before: KeyBook, after: KeyBook) -> KeyBook:
    """`after` with the next revision if pods have to take something over."""
    same = set(before.root.accepted) == set(after.root.accepted) and before.peer == after.peer
    return msgspec.structs.replace(after, revision=before.revision if same else before.revision + 1)
