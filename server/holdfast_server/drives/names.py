"""The registers of one space as strings of bytes that sort as they do.  Pure.

A *name* is a register's key and version as one string whose plain comparison gives the order the port promises, (key
as UTF-8, version):

    escaped key | 00 00 | escaped version | 00 00

Escaping turns each NUL into 00 FF, so the terminator 00 00 sorts below every continuation and no name is the start of
another.  So whoever merges or compares what drives show needs to take no name apart.  UTF-8 has no FF, which makes
room for names that are no register's: `after`, and a *start*, a name or the beginning of one.

Drives keep their rows in this order (`keys`) and listings are told by it (`port.ListPage`): it is frozen.
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast_server.drives.port import Register

TERMINATOR = b"\x00\x00"
ESCAPED_NUL = b"\x00\xff"
NO_VERSION = TERMINATOR + TERMINATOR


class NameCorrupt(ValueError):
    """The bytes are not a name."""


def escape(text: bytes) -> bytes:
    return text.replace(b"\x00", ESCAPED_NUL) if b"\x00" in text else text


def unescape(text: bytes) -> bytes:
    return text.replace(ESCAPED_NUL, b"\x00")


def name_of(register: Register) -> bytes:
    key = register.key.encode()
    if not register.version and b"\x00" not in key:
        return key + NO_VERSION  # nearly all, and several times in every request
    return b"".join((escape(key), TERMINATOR, escape(register.version), TERMINATOR))


def start_at(key: bytes, version: bytes = b"") -> bytes:
    """At or before the first name whose key is at or above `key`, and after all others.

    With a version, `key` is a whole one and its versions below `version` are left out too.
    """
    return escape(key) + TERMINATOR + escape(version) if version else escape(key)


def position(start: bytes) -> tuple[bytes, bytes]:
    """The reverse of `start_at`, for any start: a name, too, means its register."""
    end = start.find(TERMINATOR)
    if end < 0:
        return unescape(start), b""
    version = start[end + len(TERMINATOR) :]
    return unescape(start[:end]), unescape(version.removesuffix(TERMINATOR))


def after(name: bytes) -> bytes:
    """Where the rest begins: behind the register, or behind all versions of its key if it has none itself."""
    return (name[: -len(NO_VERSION)] if name.endswith(NO_VERSION) else name[: -len(TERMINATOR)]) + ESCAPED_NUL


def after_group(group: bytes) -> bytes:
    """Behind all names that start with this escaped text: no key has FF in it."""
    return group + b"\xff"


def end_of_key(name: bytes) -> int:
    """Where the escaped key ends.  Raises NameCorrupt."""
    end = len(name) - len(NO_VERSION)
    if name.find(0) == end:
        return end  # no NUL in it and no version: nearly all that a listing meets
    return _terminator(name, 0)


def parse(name: bytes) -> tuple[str, bytes]:
    """Key and version.  Raises NameCorrupt."""
    try:
        if name.endswith(NO_VERSION) and name.find(0) == len(name) - len(NO_VERSION):
            return name[: -len(NO_VERSION)].decode(), b""  # as nearly all are
        end_of_key = _terminator(name, 0)
        end_of_version = _terminator(name, end_of_key + len(TERMINATOR))
        if end_of_version + len(TERMINATOR) != len(name):
            raise NameCorrupt(f"bytes after the end of name {name.hex()}")
        version = name[end_of_key + len(TERMINATOR) : end_of_version]
        return unescape(name[:end_of_key]).decode(), unescape(version)
    except (IndexError, UnicodeDecodeError) as error:
        raise NameCorrupt(f"{name.hex()} is not a name") from error


def registers(space: bytes, names: Sequence[bytes]) -> list[Register]:
    """Of many names.  Raises NameCorrupt."""
    joined = b"".join(names)
    if joined.count(0) == 4 * len(names) == 4 * joined.count(NO_VERSION):
        # No NULs but those of empty versions, so that all are taken apart at once.
        try:
            keys = joined.decode().split(NO_VERSION.decode())
        except UnicodeDecodeError as error:
            raise NameCorrupt("a key is not UTF-8") from error
        return [Register(space, key) for key in keys[:-1]]
    return [Register(space, *parse(name)) for name in names]


def _terminator(name: bytes, start: int) -> int:
    # An escaped NUL is 00 FF, so the first 00 that is not followed by FF ends the component.
    at = name.find(b"\x00", start)
    while at >= 0 and name[at + 1] == 0xFF:
        at = name.find(b"\x00", at + 2)
    if at < 0 or name[at + 1] != 0:
        raise NameCorrupt(f"{name.hex()} is not a name")
    return at
