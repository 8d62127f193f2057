"""Tenant YAML → every manifest, compared with what is written down; and every manifest against Kubernetes' schemas.

To write them down anew after a wanted change, and then to read the difference:
`HOLDFAST_WRITE_GOLDEN=1 pytest tests/golden/operator`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from holdfast_operator.apply import with_manifest_hash
from holdfast_operator.credentials import KeyPair
from holdfast_operator.desired.render import render_tenant
from holdfast_operator.desired.request import RenderRequest
from holdfast_operator.key_book import KeyBook, KeyHistory, PeerKeys
from holdfast_operator.ledger import Ledger, advance_pools
from holdfast_operator.provision.plan import note_intentions
from holdfast_operator.tenant.parse import parse_tenant
from holdfast_operator.tenant_keys import TenantCredentials
from holdfast_operator.tls.stages import advance_tls
from holdfast_operator.tls.values import Authority, KeyCertificate, TenantTls
from holdfast_server.contract import config

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
TENANTS = {
    "loki": ROOT / "examples" / "loki" / "tenant.yaml",
    "smallest": ROOT / "examples" / "smallest.yaml",
    "tls": ROOT / "examples" / "tls.yaml",
    **{path.stem: path for path in sorted((HERE / "tenants").glob("*.yaml"))},
}
AUTHORITY = Authority(KeyCertificate("AUTHORITY\n", "AUTHORITY'S KEY\n"))
TLS = TenantTls(
    clients=KeyCertificate("CERTIFICATE\n", "KEY\n"),
    clients_authority=AUTHORITY.bundle,
    peers=KeyCertificate("PEERS\n", "PEERS' KEY\n"),
    peers_authority=AUTHORITY.bundle,
    authority=AUTHORITY,
)
VERSIONS = ("1.29", "1.37")


def tenant_in(path: Path) -> dict[str, Any]:
    documents = yaml.safe_load_all(path.read_text())
    (body,) = (document for document in documents if document["kind"] == "Tenant")
    body["metadata"].update(uid="3b1f4a52-0000-4000-8000-000000000001", generation=1)
    return dict(body)


def rendered(name: str) -> list[dict[str, Any]]:
    parsed = parse_tenant(tenant_in(TENANTS[name]))
    assert parsed.spec is not None, parsed.faults
    tenant = parsed.spec
    book = KeyBook(
        tenant_uid=tenant.uid,
        root=KeyHistory(current=KeyPair("ROOTACCESSKEY0000000", "root-secret-key")),
        peer=PeerKeys(own="peer-key"),
        users={
            user.name: KeyHistory(current=KeyPair(f"KEY-OF-{user.name}", f"secret-of-{user.name}"))
            for user in tenant.users
        },
    )
    credentials = TenantCredentials("7c9e6679-7425-40de-944b-e07fc1f90ae7", Ledger(), book)
    ledger = note_intentions(advance_pools(Ledger(), tenant.pools, {}, ()), tenant, credentials)
    has_tls = tenant.tls.mode != "Disabled"
    ledger = advance_tls(Ledger(), ledger, wanted=has_tls, usable=has_tls, reports={})
    request = RenderRequest(
        tenant=tenant,
        credentials=credentials,
        ledger=ledger,
        default_image="holdfast/server:test",
        cluster_domain="cluster.local",
        disruptable_pools=frozenset(pool.name for pool in tenant.pools if pool.tolerated_servers > 0),
        tls=TLS if has_tls else None,
    )
    return render_tenant(request)


@pytest.mark.parametrize("name", TENANTS)
def test_the_manifests_of_a_tenant_are_those_written_down(name: str) -> None:
    text = yaml.safe_dump_all(rendered(name), sort_keys=False, width=110)
    path = HERE / "manifests" / f"{name}.yaml"
    if os.environ.get("HOLDFAST_WRITE_GOLDEN"):
        path.write_text(text)
    assert list(yaml.safe_load_all(text)) == list(yaml.safe_load_all(path.read_text()))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", TENANTS)
def test_every_manifest_is_valid_for_kubernetes(name: str, version: str) -> None:
    for manifest in rendered(name):
        kubernetes_validate.validate(with_manifest_hash(manifest), version, strict=True)


@pytest.mark.parametrize("name", TENANTS)
def test_the_pods_configuration_is_accepted_by_the_contract(name: str) -> None:
    (config_map,) = (manifest for manifest in rendered(name) if manifest["kind"] == "ConfigMap")
    served = config.from_builtins(yaml.safe_load(config_map["data"]["config.yaml"]))
    assert all(pool.formatting for pool in served.pools)


@pytest.mark.parametrize("name", TENANTS)
def test_no_key_is_outside_a_secret(name: str) -> None:
    for manifest in rendered(name):
        if manifest["kind"] != "Secret":
            text = yaml.safe_dump(manifest)
            assert "secret-of-" not in text
            assert "root-secret-key" not in text
            assert "peer-key" not in text


@pytest.mark.parametrize("name", TENANTS)
def test_names_and_labels_stay_within_kubernetes_limits(name: str) -> None:
    for manifest in rendered(name):
        assert len(manifest["metadata"]["name"]) <= 63
        assert all(len(value) <= 63 for value in manifest["metadata"]["labels"].values())
