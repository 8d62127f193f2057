"""`holdfast server` as the release before encryption, object lock, the IAM API and buckets' ETag forms was: to see
today's beside it.

    python -m holdfast_server.testing.upgrades.former_server server …

It reads bucket documents up to the format of versions, records without what says how they are sealed, and keys in the
first format; it judges every version by its set's quorums, announces no feature that came later, and knows neither
entities of the IAM API nor a key ring.  What it must do with today's data is refuse it; what it must not do is serve
sealed bytes, let in who is denied, or lose anything that it heals.

Made by taking away from today's code at the few points where that release was blind.  Requests that only today's API
knows it answers as today's does: they are no test.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import msgspec

from holdfast_server import main as server
from holdfast_server.admin.handler import AdminApi, ReadBody
from holdfast_server.api import bucket_record, user_documents
from holdfast_server.api.directory import Directory
from holdfast_server.auth.verified import Identity
from holdfast_server.objects import quorum, record
from holdfast_server.peers import messages
from holdfast_server.s3.request import Request, Response
from holdfast_server.wiring import storage_pod

ENTRY = ("-m", "holdfast_server.testing.upgrades.former_server")


class BlindRecord(record.Record, frozen=True, array_like=True):
    """What is not known of a record is passed over when it is read."""

    def __post_init__(self) -> None:
        if self.sealing is not None:
            msgspec.structs.force_setattr(self, "sealing", None)


def main() -> None:
    bucket_record.NEWEST_FORMAT = bucket_record.VERSIONED_FORMAT
    user_documents.USER_FORMAT = 1
    features: Any = (messages.VERSIONS_FEATURE, messages.STAGE_LAST_FEATURE)
    messages.FEATURES = storage_pod.FEATURES = features
    record._decoder = msgspec.msgpack.Decoder(BlindRecord)
    quorum.of_version = lambda quorums, held: quorums
    _know_no_entities()
    _know_no_etag_forms()
    sys.exit(server.run(sys.argv[1:], os.environ))


def _know_no_entities() -> None:
    def forget(self: Directory, *_: Any) -> None:
        """Whatever is read of them."""

    Directory.replace = Directory.put = forget  # type: ignore[method-assign, assignment]


def _know_no_etag_forms() -> None:
    route = AdminApi._route

    async def route_of_the_former(
        self: AdminApi, identity: Identity, request: Request, segments: list[str], read: ReadBody
    ) -> Response:
        is_unknown = segments[:1] == ["buckets"] and segments[2:] == ["etag"]
        return await route(self, identity, request, ["unknown"] if is_unknown else segments, read)

    AdminApi._route = route_of_the_former  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
