"""A MinIO Tenant becomes one of ours, and nothing of it is dropped without a word."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import pytest
import yaml

from holdfast_operator.migration import command
from holdfast_operator.migration.minio import ConversionError, convert

CONFIG_ENV = """
# made by the operator
export MINIO_ROOT_USER="minio"
export MINIO_ROOT_PASSWORD='minio 123'
export MINIO_STORAGE_CLASS_STANDARD="EC:2"
export MINIO_SITE_REGION=eu-central-1
export MINIO_BROWSER="on"
"""


def secret(name: str, **values: str) -> dict[str, Any]:
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "loki"}, "data": data}


def minio_tenant(**spec: Any) -> dict[str, Any]:
    pool = {
        "name": "pool-0",
        "servers": 4,
        "volumesPerServer": 2,
        "volumeClaimTemplate": {
            "metadata": {"name": "data"},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": "fast",
                "resources": {"requests": {"storage": "100Gi"}},
            },
        },
        "nodeSelector": {"disk": "ssd"},
        "resources": {"requests": {"cpu": "2"}},
        "containerSecurityContext": {"runAsUser": 1000},
    }
    return {
        "apiVersion": "minio.min.io/v2",
        "kind": "Tenant",
        "metadata": {"name": "logs", "namespace": "loki"},
        "spec": {"pools": [pool], "configuration": {"name": "logs-env"}, "requestAutoCert": False, **spec},
    }


ENV_SECRET = {**secret("logs-env"), "data": {"config.env": base64.b64encode(CONFIG_ENV.encode()).decode()}}


def test_pools_keys_region_parity_buckets_and_users_are_carried_over() -> None:
    tenant = minio_tenant(
        buckets=[{"name": "chunks"}, {"name": "ruler", "objectLock": True}],
        users=[{"name": "logs-user-0"}, {"name": "logs-user-1"}],
        features={"domains": {"minio": ["https://s3.example.com:9000/x"], "console": "https://c.example.com"}},
        priorityClassName="high",
    )
    user = secret("logs-user-0", CONSOLE_ACCESS_KEY="loki", CONSOLE_SECRET_KEY="loki-secret")
    converted = convert([{"kind": "List", "items": [tenant, ENV_SECRET, user]}])
    root, loki, ours = converted.manifests
    assert root["stringData"] == {"accessKey": "minio", "secretKey": "minio 123"}
    assert loki["stringData"] == {"accessKey": "loki", "secretKey": "loki-secret"}
    assert ours["metadata"] == {"name": "logs", "namespace": "loki"}
    assert ours["spec"] == {
        "rootCredentials": {"secretRef": {"name": "logs-minio-root"}},
        "region": "eu-central-1",
        "domains": ["s3.example.com"],
        "pools": [
            {
                "name": "pool-0",
                "servers": 4,
                "volumesPerServer": 2,
                "erasure": {"parity": 2},
                "volumeClaimTemplate": {
                    "spec": {
                        "storageClassName": "fast",
                        "accessModes": ["ReadWriteOnce"],
                        "resources": {"requests": {"storage": "100Gi"}},
                    }
                },
                "nodeSelector": {"disk": "ssd"},
                "resources": {"requests": {"cpu": "2"}},
                "priorityClassName": "high",
            }
        ],
        "buckets": [{"name": "chunks"}, {"name": "ruler", "objectLock": {"enabled": True}}],
        "users": [
            {"name": "logs-user-0", "policies": ["consoleAdmin"], "secretRef": {"name": "logs-minio-user-logs-user-0"}},
            {"name": "logs-user-1", "policies": ["consoleAdmin"]},
        ],
    }
    told = "\n".join(converted.notes)
    for field in (
        "environment MINIO_BROWSER", "spec.pools[0].containerSecurityContext",
        "spec.features.domains.console", "spec.users[1]: Secret logs-user-1 was not given",
    ):  # fmt: skip
        assert field in told
    assert "minio 123" not in told
    assert "loki-secret" not in told


@pytest.mark.parametrize(("said", "parity"), [("EC:2", 2), ("EC:1", None), ("EC:3", None), ("few", None)])
def test_reduced_redundancy_is_carried_over_where_it_outlives_a_pod(said: str, parity: int | None) -> None:
    env = f'{CONFIG_ENV}export MINIO_STORAGE_CLASS_RRS="{said}"'
    given = {**secret("logs-env"), "data": {"config.env": base64.b64encode(env.encode()).decode()}}
    converted = convert([{"kind": "List", "items": [minio_tenant(), given]}])
    erasure = converted.manifests[-1]["spec"]["pools"][0]["erasure"]
    assert erasure == {"parity": 2, **({"reducedRedundancyParity": parity} if parity else {})}
    assert ("the default" in "\n".join(converted.notes)) == (parity is None)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kes", {"replicas": 2}),
        ("externalCertSecret", [{"name": "tls"}]),
        ("sideCars", {"containers": [{}]}),
        ("mountPath", "/export"),
        ("requestAutoCert", True),
        ("somethingNew", {"a": 1}),
        ("env", [{"name": "MINIO_PROMETHEUS_AUTH_TYPE", "value": "public"}]),
        ("env", [{"name": "MINIO_ROOT_USER", "valueFrom": {"secretKeyRef": {}}}]),
    ],
)
def test_what_has_no_counterpart_is_named(field: str, value: Any) -> None:
    before = set(convert([minio_tenant(), ENV_SECRET]).notes)
    notes = set(convert([minio_tenant(**{field: value}), ENV_SECRET]).notes) - before
    assert any(field in note or "MINIO_PROMETHEUS_AUTH_TYPE" in note for note in notes), notes


def test_what_stands_beside_the_spec_or_deep_in_a_claim_is_named() -> None:
    """MinIO's operator hands the Tenant's labels and annotations on to its pods, and has a scheduler for them."""
    tenant = minio_tenant()
    tenant["scheduler"] = {"name": "my-scheduler"}
    tenant["metadata"] |= {
        "labels": {"team": "logs", "app.kubernetes.io/managed-by": "Helm"},
        "annotations": {"prometheus.io/scrape": "true", "kubectl.kubernetes.io/last-applied-configuration": "{}"},
    }
    claim = tenant["spec"]["pools"][0]["volumeClaimTemplate"]["spec"]
    claim["resources"]["limits"] = {"storage": "200Gi"}
    told = "\n".join(convert([tenant, ENV_SECRET]).notes)
    assert "scheduler: not carried over" in told
    assert "metadata.labels: not carried over to the pods: team;" in told
    assert "metadata.annotations: not carried over to the pods: prometheus.io/scrape;" in told
    assert "spec.pools[0].volumeClaimTemplate resources.limits: not carried over" in told
    quiet = "\n".join(convert([{**minio_tenant(), "scheduler": {"name": ""}}, ENV_SECRET]).notes)
    assert not any(word in quiet for word in ("scheduler", "metadata.", "volumeClaimTemplate"))


HOSTNAME = "kubernetes.io/hostname"
OWN_PODS = {"labelSelector": {"matchLabels": {"v1.min.io/tenant": "logs"}}, "topologyKey": HOSTNAME}
OWN_POOL = {
    "labelSelector": {
        "matchExpressions": [
            {"key": "v1.min.io/tenant", "operator": "In", "values": ["logs"]},
            {"key": "v1.min.io/pool", "operator": "In", "values": ["Pool_0"]},
        ]
    },
    "topologyKey": HOSTNAME,
}
ANY_OWN = {
    "labelSelector": {"matchExpressions": [{"key": "v1.min.io/tenant", "operator": "Exists"}]},
    "topologyKey": HOSTNAME,
}
OTHERS = {"labelSelector": {"matchLabels": {"v1.min.io/tenant": "metrics"}}, "topologyKey": HOSTNAME}


def required(*terms: dict[str, Any]) -> dict[str, Any]:
    return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": list(terms)}}


def converted_pool(**settings: Any) -> tuple[dict[str, Any], str]:
    tenant = minio_tenant()
    tenant["spec"]["pools"][0] |= {"name": "Pool_0", **settings}
    converted = convert([tenant, ENV_SECRET])
    pool: dict[str, Any] = converted.manifests[-1]["spec"]["pools"][0]
    return pool, "\n".join(converted.notes)


@pytest.mark.parametrize(
    ("affinity", "spread"),
    [
        (required(OWN_PODS), "Required"),
        (required(ANY_OWN), "Required"),
        ({**required(OWN_POOL), "podAffinity": {}}, "Required"),
        (
            {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 100, "podAffinityTerm": OWN_PODS}
            ]}},
            "Preferred",
        ),
    ],
)  # fmt: skip
def test_pods_that_were_kept_apart_are_kept_apart(affinity: dict[str, Any], spread: str) -> None:
    """By MinIO's labels they would not be: no pod of ours has them, and all could come to lie on one node."""
    pool, told = converted_pool(affinity=affinity)
    assert "affinity" not in pool
    assert pool["spreadOverNodes"] == spread
    assert f"spec.pools[0].affinity: is spreadOverNodes: {spread} here" in told


def test_rules_that_say_more_name_our_pods() -> None:
    node = {"requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{"matchExpressions": [{"key": "disk", "operator": "In", "values": ["logs"]}]}]
    }}  # fmt: skip
    pool, told = converted_pool(
        affinity={**required(OWN_POOL, OTHERS, ANY_OWN), "nodeAffinity": node},
        topologySpreadConstraints=[{**OWN_PODS, "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}],
    )
    own, others, any_own = pool["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert any_own["labelSelector"]["matchExpressions"] == [{"key": "holdfast.dev/tenant", "operator": "Exists"}]
    assert own["labelSelector"]["matchExpressions"] == [
        {"key": "holdfast.dev/tenant", "operator": "In", "values": ["logs"]},
        {"key": "holdfast.dev/pool", "operator": "In", "values": ["pool-0"]},
    ]
    assert (others, pool["affinity"]["nodeAffinity"]) == (OTHERS, node)
    (constraint,) = pool["topologySpreadConstraints"]
    assert constraint["labelSelector"] == {"matchLabels": {"holdfast.dev/tenant": "logs"}}
    assert "spec.pools[0].affinity: names pods by holdfast.dev/tenant: logs" in told
    assert "spec.pools[0].topologySpreadConstraints: names pods" in told


@pytest.mark.parametrize(
    "affinity",
    [
        required(OTHERS),
        required({**OWN_PODS, "topologyKey": "topology.kubernetes.io/zone", "labelSelector": {}}),
        {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}},
    ],
)
def test_rules_about_anything_else_stay_as_they_are(affinity: dict[str, Any]) -> None:
    pool, told = converted_pool(affinity=affinity)
    assert pool["affinity"] == affinity
    assert "affinity" not in told


def test_without_its_secrets_new_keys_are_announced() -> None:
    converted = convert([minio_tenant()])
    assert [manifest["kind"] for manifest in converted.manifests] == ["Tenant"]
    assert any(note.startswith("root keys: not found") for note in converted.notes)
    assert any(note.startswith("spec.configuration: Secret logs-env was not given") for note in converted.notes)


def test_the_old_credentials_secret_is_understood() -> None:
    tenant = minio_tenant(credsSecret={"name": "old"})
    del tenant["spec"]["configuration"]
    converted = convert([tenant, secret("old", accesskey="a-key", secretkey="a-secret")])
    assert converted.manifests[0]["stringData"] == {"accessKey": "a-key", "secretKey": "a-secret"}


def test_a_tenant_that_cannot_be_run_is_refused_with_the_field() -> None:
    tenant = minio_tenant()
    tenant["spec"]["pools"][0]["volumeClaimTemplate"] = {}
    with pytest.raises(ConversionError, match=r"spec\.pools\[0\]\.volumeClaimTemplate\.spec\.resources"):
        convert([tenant])
    with pytest.raises(ConversionError, match="one Tenant"):
        convert([{"kind": "Tenant", "apiVersion": "other/v1", "metadata": {"name": "x"}}])


def test_pool_names_become_ours() -> None:
    tenant = minio_tenant()
    tenant["spec"]["pools"][0]["name"] = "0_Fast"
    converted = convert([tenant])
    assert converted.manifests[-1]["spec"]["pools"][0]["name"] == "pool-0-fast"
    assert "spec.pools[0].name: is 'pool-0-fast' here" in converted.notes


def test_how_clients_got_in_is_carried_over() -> None:
    converted = convert(
        [
            minio_tenant(
                exposeServices={"minio": True, "console": True},
                serviceMetadata={
                    "minioServiceLabels": {"team": "logs"},
                    "minioServiceAnnotations": {"lb.example.com/class": "internal"},
                    "consoleServiceLabels": {"team": "none"},
                },
            )
        ]
    )
    assert converted.manifests[-1]["spec"]["service"] == {
        "type": "LoadBalancer",
        "labels": {"team": "logs"},
        "annotations": {"lb.example.com/class": "internal"},
    }
    told = "\n".join(converted.notes)
    assert "spec.exposeServices.console" in told
    assert "spec.serviceMetadata.consoleServiceLabels" in told
    assert "spec.exposeServices:" not in told
    hidden = convert([minio_tenant(exposeServices={"minio": False})])
    assert "service" not in hidden.manifests[-1]["spec"]


@pytest.mark.parametrize(
    ("field", "value", "ours"),
    [
        ("kes", {"replicas": 2}, "spec.encryption"),
        ("externalCertSecret", [{"name": "tls"}], "spec.tls"),
        ("requestAutoCert", True, "spec.tls.mode: SelfSigned"),
        ("prometheusOperator", True, "spec.metrics"),
        ("serviceAccountName", "minio-sa", "spec.serviceAccount.name"),
    ],
)
def test_what_is_done_otherwise_here_is_named(field: str, value: Any, ours: str) -> None:
    (note,) = [note for note in convert([minio_tenant(**{field: value}), ENV_SECRET]).notes if f"spec.{field}" in note]
    assert ours in note


def test_certificates_that_minio_makes_unasked_are_named() -> None:
    """Its Tenant serves https where `requestAutoCert` is left out; ours, converted, does not."""
    tenant = minio_tenant()
    del tenant["spec"]["requestAutoCert"]
    assert any(note.startswith("spec.requestAutoCert: not carried over") for note in convert([tenant]).notes)
    assert not any("requestAutoCert" in note for note in convert([minio_tenant()]).notes)


def test_secrets_that_are_no_text_are_passed_over() -> None:
    """`kubectl get secrets` prints all of the namespace: a keystore among them must not end the conversion."""
    keystore = {**secret("keystore"), "data": {"p12": base64.b64encode(b"\x30\x82\xff").decode(), "broken": "%"}}
    converted = convert([minio_tenant(), keystore, {**secret("empty"), "data": None}, ENV_SECRET])
    assert converted.manifests[0]["stringData"] == {"accessKey": "minio", "secretKey": "minio 123"}


def test_keys_that_are_not_taken_here_are_told() -> None:
    """The Tenant would say so (CredentialsReady); better now, while clients are being moved."""
    env = "export MINIO_ROOT_USER='mi nio'\nexport MINIO_ROOT_PASSWORD=short"
    given = {**secret("logs-env"), "data": {"config.env": base64.b64encode(env.encode()).decode()}}
    converted = convert([minio_tenant(), given])
    (told,) = [note for note in converted.notes if note.startswith("root keys: ") and "before you apply" in note]
    assert "accessKey" in told
    assert "secretKey" in told
    assert "short" not in told


def test_a_config_that_no_shell_reads_is_refused_by_its_line() -> None:
    given = {**secret("logs-env"), "data": {"config.env": base64.b64encode(b'export A="b').decode()}}
    with pytest.raises(ConversionError, match=r"config\.env.*line 1"):
        convert([minio_tenant(), given])


def test_the_command_writes_what_can_be_applied(tmp_path: Path) -> None:
    path = tmp_path / "minio.yaml"
    path.write_text(yaml.safe_dump_all([minio_tenant(), ENV_SECRET]))
    output, notes = io.StringIO(), io.StringIO()
    assert command.run([str(path)], io.StringIO(), output, notes) == 0
    assert [document["kind"] for document in yaml.safe_load_all(output.getvalue())] == ["Secret", "Tenant"]
    assert "minio 123" not in notes.getvalue()
    assert command.run(["-"], io.StringIO("kind: [nothing"), output, notes) == 1
    assert command.run([str(tmp_path / "absent")], io.StringIO(), output, notes) == 1
