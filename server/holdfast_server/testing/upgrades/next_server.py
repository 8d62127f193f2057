"""`holdfast server` as a next release might be: everything grown in the ways a minor release may grow.

    python -m holdfast_server.testing.upgrades.next_server server …

It speaks a newer version of the peer protocol too; appends a field to every message, record, row and document that it
writes; tells its peers something by a verb that today's servers do not know; and calls itself `next`.  Today's servers
must pass over all of it, and it must do with what they write, which has none of it.

Made by altering today's code at its few points of encoding, so that what is tested is today's reading.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import msgspec
import xxhash

from holdfast_server import main as server
from holdfast_server.api import bucket_record
from holdfast_server.drives import rows
from holdfast_server.objects import record
from holdfast_server.objects.record import Record
from holdfast_server.peers import handshake, link, messages
from holdfast_server.peers.port import PeerError

MODULE = "holdfast_server.testing.upgrades.next_server"
ENTRY = ("-m", MODULE)
NEWS = "of the next release"
NEXT_VERB = 250
"""A number that today's servers do not know."""


def main() -> None:
    handshake.NEWEST_PROTOCOL_VERSION += 1
    _grow_messages()
    _grow_what_rests()
    _say_something_new()
    sys.exit(server.run(sys.argv[1:], os.environ))


def _grown(value: Any) -> Any:
    """The same as builtins, with a field appended to every struct that is an array."""
    if isinstance(value, msgspec.Struct) and value.__struct_config__.array_like:
        fields = [_grown(getattr(value, name)) for name in value.__struct_fields__]
        tag = value.__struct_config__.tag
        return [*([tag] if tag is not None else []), *fields, NEWS]
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return [_grown(one) for one in value]
    return value


def _grow_messages() -> None:
    plain = messages.encode

    def encode(value: Any) -> bytes:
        return plain(_grown(value))

    messages.encode = encode
    report = handshake._encode
    handshake._encode = lambda value: report(_grown(value) if isinstance(value, messages.Report) else value)


def _grow_what_rests() -> None:
    pack = msgspec.msgpack.encode

    magic = record.MAGIC

    def encode_record(record: Record) -> bytes:
        body = pack(_grown(record))
        return b"".join((magic, xxhash.xxh3_64_digest(body), body))

    def encode_row(row: rows.RegisterRow) -> bytes:
        body = pack(_grown(row))
        return b"".join((rows.MAGIC, xxhash.xxh3_64_digest(body), body))

    def encode_bucket(record: bucket_record.BucketRecord) -> bytes:
        return msgspec.json.encode({**msgspec.to_builtins(record), "news": NEWS})

    record.encode = encode_record
    rows.encode = encode_row
    bucket_record.encode = encode_bucket


def _say_something_new() -> None:
    """Each ping is followed by a question that only the next release can answer; a refusal is an answer, too."""
    known = messages.VERBS[messages.Verb.PING]
    messages.VERBS[NEXT_VERB] = known._replace(
        arguments=msgspec.msgpack.Decoder(tuple[str]), result=msgspec.msgpack.Decoder(str)
    )
    ping = link.Link._ping

    async def ping_and_ask(self: link.Link) -> bool:
        answered = await ping(self)
        try:
            await self.call_pod(NEXT_VERB, (NEWS,))  # type: ignore[arg-type]
        except PeerError:
            pass
        return answered

    link.Link._ping = ping_and_ask  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
