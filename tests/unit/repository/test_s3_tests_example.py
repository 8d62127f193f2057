"""examples/s3-tests: a valid Tenant, and a configuration of the suite that fits it."""

from __future__ import annotations

import configparser
from pathlib import Path

import pytest
import yaml

from holdfast_operator.tenant.parse import parse_tenant
from holdfast_operator.tenant.spec import TenantSpec
from holdfast_server.auth.principal import account_id, canonical_id

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "s3-tests"
SECTIONS = {"s3 main": "main", "s3 alt": "alt", "s3 tenant": "tenant", "iam": "alt", "iam root": "iam"}
"""Section → the user whose keys it has."""


@pytest.fixture(scope="module")
def documents() -> list[dict]:
    return list(yaml.safe_load_all((EXAMPLE / "tenant.yaml").read_text()))


@pytest.fixture(scope="module")
def tenant(documents: list[dict]) -> TenantSpec:
    body = documents[0]
    parsed = parse_tenant({**body, "metadata": {**body["metadata"], "uid": "u"}})
    assert parsed.spec is not None, parsed.faults
    return parsed.spec


def keys_of(documents: list[dict], secret: str) -> dict[str, str]:
    (found,) = (one for one in documents[1:] if one["metadata"]["name"] == secret)
    return found["stringData"]


@pytest.mark.parametrize("name", ["s3tests.conf", "s3tests-iam.conf"])
def test_keys_and_ids_are_those_of_the_tenants_users(name: str, tenant: TenantSpec, documents: list[dict]) -> None:
    config = configparser.RawConfigParser()
    config.read(EXAMPLE / name)
    users = {user.name: user for user in tenant.users}
    sections = {**SECTIONS, "iam alt root": "iam-alt"}
    if name == "s3tests-iam.conf":
        sections["s3 alt"] = "alt-user"
    for section, user_name in sections.items():
        user = users[user_name]
        keys = keys_of(documents, str(user.secret_name))
        assert (config[section]["access_key"], config[section]["secret_key"]) == (keys["accessKey"], keys["secretKey"])
        ids = {canonical_id(user.account), account_id(user.account), user.name}
        assert config[section]["user_id"] in ids
    assert config["s3 main"]["user_id"] == canonical_id("main")


def test_the_keys_of_the_suites_kms_are_there(documents: list[dict]) -> None:
    assert {"default.1", "testkey-1.1", "testkey-2.1"} <= keys_of(documents, "s3tests-encryption").keys()
