"""A Tenant's TLS over passes of the reconcile: stages, Secrets, conditions."""

from __future__ import annotations

import base64
import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from prometheus_client.parser import text_string_to_metric_families

from holdfast_operator.kube.errors import KubeForbidden
from holdfast_operator.kube.port import CERTIFICATE, CONFIG_MAP, DISRUPTION_BUDGET, SECRET, SERVICE_MONITOR
from holdfast_operator.metrics import OperatorMetrics
from holdfast_operator.testing.handshakes import greets
from holdfast_operator.tls.minting import mint_authority, mint_leaf
from holdfast_operator.tls.reading import check_pair, read_certificate
from holdfast_operator.tls.values import KeyCertificate, SubjectNames
from holdfast_operator.tls_step import LAG

HOST = "logs.loki.svc.cluster.local"
NOW = datetime(2026, 11, 20, tzinfo=UTC)
DAY = timedelta(days=1)


def has_secret(world: Any, name: str) -> bool:
    return (SECRET.kind, "loki", name) in world.kube.objects


def told(world: Any) -> dict[str, Any] | None:
    """What the pods are told of TLS."""
    document = world.kube.object(CONFIG_MAP, "logs-config", "loki")["data"]["config.yaml"]
    return yaml.safe_load(document).get("tls")  # type: ignore[no-any-return]


def stage(world: Any) -> str:
    found = told(world)
    return "Off" if found is None else found["stage"]


def bring(world: Any, pair: KeyCertificate, authority: str, name: str = "mine") -> None:
    values = {"tls.crt": pair.certificate, "tls.key": pair.key, "ca.crt": authority}
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    metadata = {"name": name, "namespace": "loki"}
    world.kube.put({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})


def a_pair(*names: str, days: int = 90) -> tuple[KeyCertificate, str]:
    authority = mint_authority("theirs", NOW, 1000 * DAY)
    return mint_leaf(authority, SubjectNames(names or (HOST,)), NOW, days * DAY), authority.certificate


def mint_for(now: datetime) -> tuple[KeyCertificate, str]:
    authority = mint_authority("theirs", now, 1000 * DAY)
    return mint_leaf(authority, SubjectNames((HOST,)), now, 90 * DAY), authority.certificate


def now(world: Any) -> datetime:
    return NOW + timedelta(seconds=world.seconds)


def encrypted(key: str) -> str:
    """The same with a password."""
    private = serialization.load_pem_private_key(key.encode(), password=None)
    return private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    ).decode()


def value(metrics: OperatorMetrics, sample: str, **labels: str) -> float | None:
    families = text_string_to_metric_families(metrics.render().decode())
    found = [one.value for family in families for one in family.samples if (one.name, one.labels) == (sample, labels)]
    return found[0] if found else None


async def test_a_new_tenant_begins_with_tls(world: Any) -> None:
    await world.start(tls={"mode": "SelfSigned"})
    assert told(world)["stage"] == "Required"  # type: ignore[index]
    assert told(world)["plaintext"] == "Refused"  # type: ignore[index]
    assert world.condition("TLSReady")["reason"] == "Serving"
    assert world.condition("Ready")["status"] == "True"
    assert world.kube.tenant_status()["endpoint"] == f"https://{HOST}:9000"
    served, user = world.secret_values("logs-tls"), world.secret_values("logs-user-loki")
    check_pair(KeyCertificate(served["tls.crt"], served["tls.key"]), [HOST], user["ca.crt"], NOW + timedelta(seconds=9))
    assert user["AWS_ENDPOINT_URL_S3"] == f"https://{HOST}:9000"
    assert user["insecure"] == "false"
    assert world.secret_values("logs-root")["ca.crt"] == user["ca.crt"]
    assert "ownerReferences" not in world.kube.objects[SECRET.kind, "loki", "logs-ca"]["metadata"]
    assert world.pods.reach.scheme == "https"
    assert world.pods.reach.server_name == HOST


async def test_at_rest_nothing_is_written(world: Any) -> None:
    await world.start(tls={"mode": "SelfSigned"})
    before = len(world.kube.calls)
    await world.run_passes(3)
    written = [call for call in world.kube.calls[before:] if call[0] in ("create", "apply", "delete")]
    assert written == []


async def test_a_tenant_changes_over_and_back_only_as_fast_as_its_slowest_pod(world: Any) -> None:
    await world.start()
    assert (stage(world), has_secret(world, "logs-tls")) == ("Off", False)
    assert world.condition("TLSReady")["reason"] == "Disabled"
    template = world.kube.objects["StatefulSet", "loki", "logs-pool-main"]["spec"]["template"]
    slow = "logs-pool-main-2"
    for target, path in [
        ("SelfSigned", ["Off", "Offered", "Used", "Required"]),
        ("Disabled", ["Required", "Used", "Offered", "Off"]),
    ]:
        world.change_spec(tls={"mode": target})
        for before, after in itertools.pairwise(path):
            if before != "Off":
                world.pods.stuck_tls[slow] = path[max(0, path.index(before) - 1)]
                if path.index(before):
                    await world.run_passes(3)
                    assert stage(world) == before
                    condition = world.condition("TLSReady")
                    assert (condition["status"], condition["reason"]) == ("False", "Switching")
                    assert slow in condition["message"]
                    assert world.condition("Ready")["status"] == "True"
                    world.pods.down.add(slow)
                    await world.run_passes(2)
                    assert stage(world) == before, "a silent pod holds the change up, and does not turn it back"
                    world.pods.down.clear()
            world.pods.stuck_tls.clear()
            await world.run_pass()
            assert stage(world) == after
            scheme = "https" if after in ("Used", "Required") else "http"
            assert world.kube.tenant_status()["endpoint"].startswith(f"{scheme}://")
            assert world.secret_values("logs-user-loki")["AWS_ENDPOINT_URL_S3"].startswith(f"{scheme}://")
    await world.run_passes(2)
    assert not has_secret(world, "logs-tls")
    assert has_secret(world, "logs-ca")
    assert "ca.crt" not in world.secret_values("logs-user-loki")
    assert world.kube.objects["StatefulSet", "loki", "logs-pool-main"]["spec"]["template"] == template


async def test_a_certificate_is_renewed_before_its_end_and_after_its_loss(world: Any) -> None:
    await world.start(tls={"mode": "SelfSigned"})
    first = world.secret_values("logs-tls")
    world.seconds += 59 * 86400
    await world.run_pass()
    assert world.secret_values("logs-tls") == first
    world.seconds += 2 * 86400
    await world.run_pass()
    second = world.secret_values("logs-tls")
    assert second["tls.crt"] != first["tls.crt"]
    assert second["peer.crt"] != first["peer.crt"]
    assert second["ca.crt"] == first["ca.crt"]
    del world.kube.objects[SECRET.kind, "loki", "logs-tls"]
    await world.run_pass()
    assert world.secret_values("logs-tls")["ca.crt"] == first["ca.crt"]
    world.change_spec(tls={"mode": "SelfSigned", "additionalNames": ["s3.example.com"]})
    await world.run_pass()
    assert "s3.example.com" in read_certificate(world.secret_values("logs-tls")["tls.crt"]).names.dns


async def test_the_authority_s_loss_is_made_good_without_breaking_what_it_signed(world: Any) -> None:
    await world.start(tls={"mode": "SelfSigned"})
    first = world.secret_values("logs-tls")
    del world.kube.objects[SECRET.kind, "loki", "logs-ca"]
    await world.run_pass()
    now = world.secret_values("logs-tls")
    assert now["tls.crt"] == first["tls.crt"]
    assert first["ca.crt"] in now["ca.crt"]
    assert now["ca.crt"] == world.secret_values("logs-user-loki")["ca.crt"] != first["ca.crt"]
    world.seconds += 3600
    await world.run_pass()
    assert world.secret_values("logs-tls")["tls.crt"] != first["tls.crt"]


async def test_a_user_s_certificate_is_checked_first_and_a_broken_renewal_never_reaches_pods(world: Any) -> None:
    spec = {"mode": "Secret", "secretRef": {"name": "mine"}}
    await world.start(tls=spec)
    assert world.condition("TLSReady")["reason"] == "SecretMissing"
    assert world.condition("Ready")["reason"] == "SecretMissing"
    assert "tls.crt" not in world.secret_values("logs-tls")
    pair, authority = a_pair()
    bring(world, pair, authority)
    await world.run_passes(2)
    assert world.condition("TLSReady")["reason"] == "Serving"
    assert world.condition("Ready")["status"] == "True"
    served = world.secret_values("logs-tls")
    assert (served["tls.crt"], served["ca.crt"]) == (pair.certificate, authority)
    assert served["peer-ca.crt"] == world.secret_values("logs-ca")["ca.crt"] != authority
    assert world.secret_values("logs-user-loki")["ca.crt"] == authority
    for broken, reason in [
        (KeyCertificate(a_pair()[0].certificate, pair.key), "KeyMismatch"),
        (a_pair("elsewhere.example.com")[0], "NamesMissing"),
        (KeyCertificate("", pair.key), "SecretIncomplete"),
    ]:
        bring(world, broken, "")
        await world.run_pass()
        condition = world.condition("TLSReady")
        assert (condition["status"], condition["reason"]) == ("False", reason)
        assert "Secret mine" in condition["message"]
        assert "; pods go on with the certificate that they have, whose end is 20" in condition["message"]
        assert world.secret_values("logs-tls") == served
        assert world.condition("Ready")["status"] == "True"
    renewed, new_authority = a_pair()
    bring(world, renewed, new_authority)
    await world.run_pass()
    assert world.secret_values("logs-tls")["tls.crt"] == renewed.certificate
    world.seconds += 91 * 86400
    await world.run_pass()
    assert world.condition("TLSReady")["reason"] == "CertificateExpired"
    assert world.condition("Ready")["reason"] == "CertificateExpired"
    ended = world.secret_values("logs-tls")
    assert ended["tls.crt"] == renewed.certificate, "pods go on to show it: there is nothing better"
    assert world.pods.reach.scheme == "http", "pods are asked without what cannot be verified any more"
    fresh, fresh_authority = mint_for(now(world))
    bring(world, fresh, fresh_authority)
    await world.run_passes(2)
    assert world.condition("Ready")["status"] == "True"
    assert world.pods.reach.scheme == "https"


async def test_pods_that_still_show_the_certificate_before_are_in_sight_for_a_while(world: Any, tmp_path: Path) -> None:
    """A kubelet takes a minute or two to bring a changed Secret to them, and the Tenant would be told to be lost."""
    long_ago = datetime(2020, 1, 1, tzinfo=UTC)
    authorities = [mint_authority("theirs", long_ago, 20_000 * DAY) for _ in range(3)]
    first, second, third = (mint_leaf(one, SubjectNames((HOST,)), long_ago, 20_000 * DAY) for one in authorities)
    bring(world, first, "")
    await world.start(tls={"mode": "Secret", "secretRef": {"name": "mine"}})
    assert greets(world.pods.reach, first, tmp_path)
    bring(world, second, "")
    await world.run_passes(2)
    assert world.secret_values("logs-tls")["tls.crt"] == second.certificate
    assert greets(world.pods.reach, first, tmp_path)
    assert greets(world.pods.reach, second, tmp_path)
    assert not greets(world.pods.reach, third, tmp_path)
    world.seconds += int(LAG.total_seconds())
    await world.run_pass()
    assert not greets(world.pods.reach, first, tmp_path), "whoever has its key by then is no pod"
    assert greets(world.pods.reach, second, tmp_path)


async def test_what_is_not_valid_yet_or_was_put_together_wrongly_is_told_and_the_pods_keep_theirs(world: Any) -> None:
    await world.start(tls={"mode": "Secret", "secretRef": {"name": "mine"}})
    good, authority = a_pair()
    bring(world, good, authority)
    await world.run_passes(2)
    served = world.secret_values("logs-tls")
    pair, _ = a_pair()
    early, early_authority = mint_for(now(world) + 10 * DAY)
    for broken, trust, reason, words in [
        (early, early_authority, "CertificateNotYetValid", "the certificate begins at 20"),
        (KeyCertificate(pair.certificate, encrypted(pair.key)), "", "KeyEncrypted", "tls.key has a password"),
        (KeyCertificate(pair.certificate, "nonsense"), "", "KeyUnreadable", "no private key in PEM form"),
        (KeyCertificate("nonsense", pair.key), "", "CertificateUnreadable", "no certificate in PEM form"),
        (KeyCertificate(authority + good.certificate, good.key), "", "ChainOrder", "must begin with the certificate"),
        (good, "nonsense", "AuthorityUnreadable", "ca.crt holds no certificate"),
        (good, a_pair()[1], "AuthorityMismatch", "not signed by any certificate of ca.crt"),
    ]:
        bring(world, broken, trust)
        await world.run_pass()
        condition = world.condition("TLSReady")
        assert (condition["status"], condition["reason"]) == ("False", reason)
        assert condition["message"].startswith("Secret mine: ")
        assert words in condition["message"]
        assert world.secret_values("logs-tls") == served
        assert world.condition("Ready")["status"] == "True"


async def test_a_chain_is_served_whole(world: Any) -> None:
    await world.start(tls={"mode": "Secret", "secretRef": {"name": "mine"}})
    pair, authority = a_pair()
    whole = KeyCertificate(pair.certificate + authority, pair.key)
    bring(world, whole, authority)
    await world.run_passes(2)
    assert world.secret_values("logs-tls")["tls.crt"] == whole.certificate


async def test_prometheus_asks_with_tls_once_every_pod_has_it(world: Any) -> None:
    metrics = {"serviceMonitor": {}}

    def scraped() -> tuple[str, Any]:
        (endpoint,) = world.kube.object(SERVICE_MONITOR, "logs")["spec"]["endpoints"]
        return endpoint["scheme"], endpoint.get("tlsConfig")

    await world.start(metrics=metrics)
    assert scraped() == ("http", None)
    slow = "logs-pool-main-2"
    world.pods.stuck_tls[slow] = "Off"
    world.change_spec(metrics=metrics, tls={"mode": "SelfSigned"})
    await world.run_passes(3)
    assert scraped() == ("http", None)
    world.pods.stuck_tls.clear()
    await world.run_passes(3)
    by_authority = {"serverName": HOST, "ca": {"secret": {"name": "logs-tls", "key": "ca.crt"}}}
    assert scraped() == ("https", by_authority)
    pair, _ = a_pair()
    bring(world, pair, "")
    world.change_spec(metrics=metrics, tls={"mode": "Secret", "secretRef": {"name": "mine"}})
    await world.run_passes(2)
    assert scraped() == ("https", {"serverName": HOST}), "what the public authorities vouch for"
    world.change_spec(metrics=metrics)
    await world.run_passes(5)
    assert scraped() == ("http", None)


async def test_the_operator_tells_when_the_first_certificate_ends(world: Any) -> None:
    def first(kind: str) -> float | None:
        name = "holdfast_operator_certificate_expiry_timestamp_seconds"
        return value(world.metrics, name, certificate=kind)

    await world.start()
    assert first("clients") is None
    world.change_spec(tls={"mode": "SelfSigned"})
    await world.run_passes(2)
    served = world.secret_values("logs-tls")
    for kind, file in (("clients", "tls.crt"), ("peers", "peer.crt"), ("authority", "ca.crt")):
        assert first(kind) == read_certificate(served[file]).expires.timestamp()


async def test_cert_manager_is_asked_and_its_secret_taken(world: Any) -> None:
    await world.start(tls={"mode": "CertManager", "issuerRef": {"name": "corp", "kind": "ClusterIssuer"}})
    assert world.condition("TLSReady")["reason"] == "WaitingForCertificate"
    request = world.kube.objects[CERTIFICATE.kind, "loki", "logs-certificate"]
    assert request["spec"]["issuerRef"] == {"name": "corp", "kind": "ClusterIssuer", "group": "cert-manager.io"}
    assert HOST in request["spec"]["dnsNames"]
    pair, authority = a_pair()
    bring(world, pair, authority, "logs-certificate")
    await world.run_passes(2)
    assert world.condition("TLSReady")["reason"] == "Serving"
    assert world.secret_values("logs-tls")["tls.crt"] == pair.certificate
    world.change_spec(tls={"mode": "SelfSigned"})
    await world.run_passes(2)
    assert (CERTIFICATE.kind, "loki", "logs-certificate") not in world.kube.objects
    assert world.secret_values("logs-tls")["ca.crt"] == world.secret_values("logs-ca")["ca.crt"]


async def test_a_secret_of_somebody_else_is_left_alone_and_nothing_in_use_is_taken_away(world: Any) -> None:
    await world.start(tls={"mode": "SelfSigned"})
    served = world.secret_values("logs-tls")
    world.kube.objects[SECRET.kind, "loki", "logs-ca"]["metadata"]["labels"] = {}
    await world.run_passes(2)
    assert world.condition("TLSReady")["reason"] == "SecretNotOurs"
    assert world.secret_values("logs-tls") == served


@pytest.mark.parametrize(
    ("tls", "fault"),
    [
        ({"mode": "Secret"}, "spec.tls.secretRef: is required"),
        ({"mode": "CertManager"}, "spec.tls.issuerRef: is required"),
        ({"mode": "Magic"}, "spec.tls.mode: 'Magic' is none of"),
        ({"mode": "SelfSigned", "additionalNames": ["Not A Name"]}, "spec.tls.additionalNames[0]"),
        ({"mode": "SelfSigned", "plaintext": "Maybe"}, "spec.tls.plaintext"),
        ({"mode": "SelfSigned", "issuer": {}}, "spec.tls.issuer: is not a field"),
    ],
)
async def test_a_faulty_tls_is_refused_with_its_field(world: Any, tls: dict[str, Any], fault: str) -> None:
    await world.start(tls=tls)
    assert fault in world.condition("SpecValid")["message"]


@pytest.mark.parametrize(
    ("tls", "reason"),
    [
        ({"mode": "CertManager", "issuerRef": {"name": "x"}}, "WaitingForCertificate"),
        ({"mode": "Secret", "secretRef": {"name": "absent"}}, "SecretMissing"),
    ],
)
async def test_a_tenant_that_cannot_change_over_yet_is_ready_as_before(
    world: Any, tls: dict[str, Any], reason: str
) -> None:
    await world.start()
    world.change_spec(tls=tls)
    await world.run_passes()
    assert stage(world) == "Off"
    assert world.condition("TLSReady")["reason"] == reason
    assert world.condition("TLSReady")["message"].endswith("; until then clients are served without TLS")
    assert world.condition("Ready")["status"] == "True", "clients are served without, as they were"


@pytest.mark.parametrize("name", ["absent", "broken"])
async def test_a_new_tenant_without_a_certificate_is_not_ready(world: Any, name: str) -> None:
    bring(world, KeyCertificate("none", "none"), "", "broken")
    await world.start(tls={"mode": "Secret", "secretRef": {"name": name}})
    assert stage(world) == "Required"
    assert world.condition("Ready")["reason"] == world.condition("TLSReady")["reason"]
    assert world.condition("Ready")["status"] == "False"


async def test_a_certificate_is_not_looked_for_in_what_the_operator_writes_itself(world: Any) -> None:
    """`<tenant>-tls` is what one would call a certificate of one's own, too."""
    pair, authority = a_pair()
    bring(world, pair, authority, "logs-tls")
    brought = world.secret_values("logs-tls")
    mine = {"mode": "Secret", "secretRef": {"name": "logs-tls"}}
    await world.start(tls=mine)
    ready = world.condition("TLSReady")
    assert (ready["status"], ready["reason"]) == ("False", "SecretNotOurs")
    assert "logs-tls is what the operator itself writes" in ready["message"]
    assert "another name" in ready["message"]
    assert world.secret_values("logs-tls") == brought
    world.kube.remove((SECRET.kind, "loki", "logs-tls"))
    world.change_spec(tls={"mode": "SelfSigned"})
    await world.run_passes()
    assert world.condition("TLSReady")["reason"] == "Serving"
    world.change_spec(tls=mine)
    await world.run_passes()
    assert world.condition("TLSReady")["reason"] == "SecretNotOurs", "it would take its own, and never renew it"
    assert world.condition("Ready")["status"] == "True"


async def test_while_the_authority_cannot_be_used_clients_keep_what_they_trust_and_are_served(world: Any) -> None:
    """A Secret edited by hand must not take `ca.crt` out of the Secrets that clients start with."""
    await world.start(tls={"mode": "SelfSigned"})
    trusted, served = world.secret_values("logs-user-loki")["ca.crt"], world.secret_values("logs-tls")
    strange = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    leaf, _ = a_pair()
    for pair in (
        KeyCertificate(certified(strange, with_authority=True), in_pem(strange)),
        leaf,
        KeyCertificate("nonsense", "nonsense"),
    ):
        held = world.kube.objects[SECRET.kind, "loki", "logs-ca"]["data"]
        for entry, text in (("tls.crt", pair.certificate), ("tls.key", pair.key)):
            held[entry] = base64.b64encode(text.encode()).decode()
        await world.run_passes(2)
        condition = world.condition("TLSReady")
        assert (condition["status"], condition["reason"]) == ("False", "AuthorityUnreadable")
        assert world.secret_values("logs-user-loki")["ca.crt"] == trusted
        assert world.secret_values("logs-tls") == served
        assert world.condition("Ready")["status"] == "True"
        assert world.pods.reach.scheme == "https"
    world.kube.remove((SECRET.kind, "loki", "logs-ca"))
    await world.run_passes(2)
    assert world.condition("TLSReady")["reason"] == "Serving"


async def test_an_authority_with_words_in_letters_of_its_own_is_taken(world: Any) -> None:
    """Bundles name those who signed; `ssl` refuses such text."""
    pair, authority = a_pair()
    bring(world, pair, f"# Főtanúsítvány\n{authority}")
    await world.start(tls={"mode": "Secret", "secretRef": {"name": "mine"}})
    await world.run_passes(2)
    assert world.condition("TLSReady")["reason"] == "Serving"
    assert world.condition("Ready")["status"] == "True"
    assert world.pods.reach.scheme == "https"


async def test_a_strange_certificate_ends_no_pass(world: Any) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    good = x509.load_pem_x509_certificate(certified(key).encode()).public_bytes(serialization.Encoding.DER)
    for there, instead in (
        (b"\x55\x1d\x13", b"\x55\x1d\x11"),  # subjectAltName, twice
        (b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x07"),  # a version that is none
        (bytes.fromhex("2a8648ce3d0201"), bytes.fromhex("2a8648ce3d0209")),  # a key of unknown kind
    ):
        assert there in good
        strange = pem_of(good.replace(there, instead))
        bring(world, KeyCertificate(strange, in_pem(key)), "")
        await world.start(tls={"mode": "Secret", "secretRef": {"name": "mine"}})
        assert world.condition("TLSReady")["reason"] == "CertificateUnreadable"
        pair, _ = a_pair()
        bring(world, pair, strange)
        await world.run_passes(2)
        assert world.condition("TLSReady")["reason"] in ("AuthorityUnreadable", "AuthorityMismatch")


async def test_a_key_of_unknown_kind_is_told(world: Any) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    der = key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).replace(bytes.fromhex("2a8648ce3d0201"), bytes.fromhex("2a8648ce3d0209"))
    bring(world, KeyCertificate(certified(key), pem_of(der, "PRIVATE KEY")), "")
    await world.start(tls={"mode": "Secret", "secretRef": {"name": "mine"}})
    assert world.condition("TLSReady")["reason"] == "KeyUnreadable"


@pytest.mark.parametrize("served", [False, True])
async def test_an_authority_that_cannot_be_made_holds_up_nothing_else(world: Any, served: bool) -> None:
    """A quota on Secrets that is used up."""
    quota = KubeForbidden("403: exceeded quota: secrets")
    await world.start(tls={"mode": "SelfSigned"} if served else None)
    before = world.secret_values("logs-tls") if served else None
    world.kube.fail_on = lambda verb, kind, name: quota if (verb, kind) == ("create", "Secret") else None
    if served:
        world.kube.remove(("Secret", "loki", "logs-ca"))
    else:
        world.change_spec(tls={"mode": "SelfSigned"})
    world.pods.down = {"logs-pool-main-1"}
    world.pods.settle()
    await world.run_passes(3)
    told = world.condition("TLSReady")
    assert (told["status"], told["reason"]) == ("False", "AuthorityNotMade")
    assert "exceeded quota" in told["message"]
    assert world.condition("Ready")["status"] == "True", "clients are served as before"
    assert world.condition("Degraded")["reason"] == "DrivesMissing"
    assert world.kube.object(DISRUPTION_BUDGET, "logs")["spec"]["maxUnavailable"] == 0
    assert before is None or world.secret_values("logs-tls") == before
    world.kube.fail_on = lambda verb, kind, name: None
    world.pods.down = set()
    world.pods.settle()
    await world.run_passes(8)
    assert world.condition("TLSReady")["reason"] == "Serving"


def certified(key: Any, *, with_authority: bool = False) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "strange")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(7).not_valid_before(NOW - DAY).not_valid_after(NOW + 90 * DAY)
    builder = builder.add_extension(x509.BasicConstraints(ca=with_authority, path_length=None), critical=False)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def in_pem(key: Any) -> str:
    return key.private_bytes(  # type: ignore[no-any-return]
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def pem_of(der: bytes, label: str = "CERTIFICATE") -> str:
    return f"-----BEGIN {label}-----\n{base64.encodebytes(der).decode()}-----END {label}-----\n"
