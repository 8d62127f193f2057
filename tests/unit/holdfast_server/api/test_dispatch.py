"""The table of handlers against the table of operations; what is not there is told by name."""

from __future__ import annotations

import pytest

from holdfast_server.api.dispatch import HANDLERS, conflict_error, missing_handlers
from holdfast_server.s3.operations import OPERATIONS


def test_every_implemented_operation_has_a_handler_and_no_other_has() -> None:
    assert missing_handlers() == set()
    assert set(HANDLERS) <= {row.name for row in OPERATIONS if row.implemented}


@pytest.mark.parametrize(
    ("operation", "headers", "code"),
    [
        ("PutObject", {"if-none-match": "*"}, "ConditionalRequestConflict"),
        ("CreateBucket", {}, "OperationAborted"),
        ("CompleteMultipartUpload", {}, "SlowDown"),
    ],
)
def test_a_conflict_is_named_by_what_the_client_asked(operation: str, headers: dict[str, str], code: str) -> None:
    assert conflict_error(operation, headers).code == code


@pytest.mark.parametrize(
    ("method", "path", "query"),
    [("POST", "/b01/k", "restore"), ("PUT", "/b01", "replication"), ("GET", "/b01", "inventory")],
)
async def test_what_is_not_implemented_says_so_by_name(unserved_api, method: str, path: str, query: str) -> None:
    assert (await unserved_api.ask("PUT", "/b01")).status == 200
    answer = await unserved_api.ask(method, path, query=query)
    assert answer.status == 501
    assert b"NotImplemented" in answer.body
