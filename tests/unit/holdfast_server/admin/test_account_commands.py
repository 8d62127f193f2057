"""`holdfast admin account` and what `user add` takes beside, against a served API."""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from holdfast_server.admin import cli
from holdfast_server.contract.accounts import account_id
from holdfast_server.testing.memory_services import Endpoint, memory_services, served


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with served(memory_services()) as found:
        yield found


@pytest.fixture
def holdfast(endpoint: Endpoint) -> Callable[..., tuple[int, str]]:
    def run(*words: str) -> tuple[int, str]:
        parser = argparse.ArgumentParser()
        cli.add_parser(parser.add_subparsers())
        environment = {
            "AWS_ENDPOINT_URL_S3": endpoint.url,
            "AWS_ACCESS_KEY_ID": endpoint.access_key,
            "AWS_SECRET_ACCESS_KEY": endpoint.secret_key,
        }
        out = io.StringIO()
        code = cli.run_admin(parser.parse_args(["admin", *words]), environment, out, out)
        return code, out.getvalue()

    return run


def test_an_account_is_declared_shown_and_forgotten(holdfast: Callable[..., tuple[int, str]]) -> None:
    assert holdfast("account", "add", "main", "--display-name", "The main one")[0] == 0
    (own, main) = json.loads(holdfast("account", "list", "--json")[1])
    assert (own["id"], main["displayName"], main["id"]) == ("000000000000", "The main one", account_id("main"))
    assert "The main one" in holdfast("account", "list")[1]
    assert holdfast("account", "add", "root")[0] == 1
    assert holdfast("account", "remove", "main")[0] == 0
    assert len(json.loads(holdfast("account", "list", "--json")[1])) == 1


def test_a_key_may_end_be_limited_and_be_the_root_of_its_account(
    holdfast: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    assert holdfast("user", "add", "boss-key", "--account", "main", "--account-root")[0] == 0
    limit = tmp_path / "limit.json"
    limit.write_text('{"Statement":{"Effect":"Allow","Action":"s3:GetObject","Resource":"*"}}')
    assert holdfast("user", "add", "key", "--policy", "readwrite", "--limit", str(limit), "--expires", "90d")[0] == 0
    users = {user["accessKey"]: user for user in json.loads(holdfast("user", "list", "--json")[1])}
    assert users["boss-key"]["accountRoot"]
    assert (users["key"]["limited"], users["key"]["expiresMs"] > 0) == (True, True)
    told = holdfast("user", "list")[1]
    assert "(root of its account)" in told
    assert "readwrite, (limited), (ends)" in told
    limit.write_text('{"Statement":{"Effect":"Perhaps"}}')
    code, told = holdfast("user", "add", "key", "--limit", str(limit))
    assert (code, "Effect" in told) == (1, True)


@pytest.mark.parametrize("end", ["soon", "0d", "00h", "-1d", "d"])
def test_a_key_that_is_to_end_never_gets_no_end(
    holdfast: Callable[..., tuple[int, str]], capsys: pytest.CaptureFixture[str], end: str
) -> None:
    with pytest.raises(SystemExit):
        holdfast("user", "add", "key", f"--expires={end}")
    assert f"{end!r} is no time such as 90d" in capsys.readouterr().err
    assert json.loads(holdfast("user", "list", "--json")[1]) == []
