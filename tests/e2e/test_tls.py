"""A Tenant changes over to TLS, has its certificate renewed and changes back, and no client notices that need not."""

import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError

from holdfast_operator.testing.cluster import Cluster, wait_for
from holdfast_operator.testing.traffic import Traffic, s3, traffic
from holdfast_operator.tls.reading import read_certificate

pytestmark = [pytest.mark.timeout(1200)]

CONNECTIONS_THAT_MEET_EVERY_POD = 40


def is_settled(cluster: Cluster, namespace: str, reason: str) -> bool:
    tenant = cluster.tenant(namespace, "store")
    current = tenant["status"]["observedGeneration"] == tenant["metadata"]["generation"]
    return current and cluster.condition(namespace, "store", "TLSReady").get("reason") == reason


def switch(cluster: Cluster, namespace: str, tls: dict[str, Any]) -> None:
    cluster.patch_tenant(namespace, "store", {"spec": {"tls": tls}})


def pods(cluster: Cluster, namespace: str) -> dict[str, Any]:
    """Names, uids and restarts: the same while nothing was restarted."""
    found = cluster.core.list_namespaced_pod(namespace).items
    return {pod.metadata.name: (pod.metadata.uid, pod.status.container_statuses[0].restart_count) for pod in found}


def is_refused(endpoint: str, keys: dict[str, str]) -> bool:
    try:
        s3(endpoint, keys).list_objects_v2(Bucket="first")
    except ClientError as error:
        return "over https only" in str(error)
    return False


def is_refused_by_any(endpoint: str, keys: dict[str, str]) -> bool:
    """Connections go to one pod after another, and the pods follow their configuration one after another."""
    return any(is_refused(endpoint, keys) for _ in range(CONNECTIONS_THAT_MEET_EVERY_POD))


def go_on(*clients: Traffic) -> None:
    """Until each of them has done something since: on a busy machine a change may be quicker than a request."""
    before = [one.done for one in clients]
    wait_for("traffic after it", lambda: all(one.done > at + 1 for one, at in zip(clients, before, strict=True)))


@pytest.mark.cluster
def test_a_tenant_changes_over_is_renewed_and_changes_back_under_traffic(
    cluster: Cluster, tenant: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    namespace = cluster.make_tenant(tenant)
    keys, before = cluster.secret(namespace, "store-user-app"), pods(cluster, namespace)
    assert keys["AWS_ENDPOINT_URL_S3"].startswith("http://")
    with cluster.endpoint(namespace, "store") as plain:
        secure = plain.replace("http:", "https:")
        with traffic(plain, keys) as told:
            switch(cluster, namespace, {"mode": "SelfSigned", "plaintext": "Accepted"})
            wait_for("every pod to use TLS", lambda: is_settled(cluster, namespace, "Serving"), 600)
            go_on(told)
        assert told.failures == []

        given = cluster.secret(namespace, "store-user-app")
        assert given["AWS_ENDPOINT_URL_S3"] == f"https://store.{namespace}.svc.cluster.local:9000"
        assert given["insecure"] == "false"
        bundle = tmp_path / "ca.crt"
        bundle.write_text(given["ca.crt"])
        monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
        served = cluster.secret(namespace, "store-tls")
        with traffic(plain, keys, prefix="plain") as plain_told, traffic(secure, given, prefix="secure") as told:
            cluster.core.delete_namespaced_secret("store-tls", namespace)
            wait_for("another certificate", lambda: certificate(cluster, namespace) not in ("", served["tls.crt"]))
            number = read_certificate(certificate(cluster, namespace)).certificate.serial_number
            wait_for("it to be shown", lambda: shown(plain) == number, 600)
            go_on(plain_told, told)
        assert (plain_told.failures, told.failures) == ([], [])

        client = s3(secure, given)
        upload = {"Bucket": "first", "Key": "parts", "UploadId": ""}
        upload["UploadId"] = client.create_multipart_upload(Bucket="first", Key="parts")["UploadId"]
        part = {"PartNumber": 1, "ETag": client.upload_part(**upload, PartNumber=1, Body=b"x")["ETag"]}
        completed = client.complete_multipart_upload(**upload, MultipartUpload={"Parts": [part]})
        assert completed["Location"] == f"{secure}/first/parts"

        with traffic(secure, given) as told:
            switch(cluster, namespace, {"mode": "SelfSigned", "plaintext": "Refused"})
            wait_for("http to be refused", lambda: is_refused(plain, keys), 600)
            switch(cluster, namespace, {"mode": "SelfSigned", "plaintext": "Accepted"})
            wait_for("http to be taken again by every pod", lambda: not is_refused_by_any(plain, keys), 600)
            go_on(told)
        assert told.failures == []

        with traffic(plain, keys) as told:
            switch(cluster, namespace, {"mode": "Disabled", "plaintext": "Accepted"})
            wait_for("TLS to be off", lambda: is_settled(cluster, namespace, "Disabled"), 600)
            go_on(told)
        assert told.failures == []
    # What nobody needs any more goes with the pass after the one that tells it.
    wait_for("its Secret to go", lambda: "store-tls" not in cluster.names("secret", namespace))
    assert pods(cluster, namespace) == before


def certificate(cluster: Cluster, namespace: str) -> str:
    return cluster.secret(namespace, "store-tls").get("tls.crt", "")


def shown(endpoint: str) -> int:
    """The serial number of the certificate that a new connection is shown."""
    url = urlsplit(endpoint)
    assert url.hostname is not None
    return read_certificate(ssl.get_server_certificate((url.hostname, url.port or 443))).certificate.serial_number
