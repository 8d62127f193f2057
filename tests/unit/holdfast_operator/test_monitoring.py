"""A Tenant's ServiceMonitor and alerts: made where they are asked for and can be, and never in the store's way."""

from __future__ import annotations

from typing import Any

from holdfast_operator.kube.errors import KubeError, KubeForbidden, KubeRejected, KubeUnavailable
from holdfast_operator.kube.port import PROMETHEUS_RULE, SERVICE_MONITOR, STATEFUL_SET

METRICS = {"serviceMonitor": {"labels": {"release": "prom"}, "intervalSeconds": 15}, "prometheusRule": {}}


def absent(verb: str, kind: str, name: str) -> KubeError | None:
    """A cluster without the Prometheus operator."""
    if kind in ("ServiceMonitor", "PrometheusRule"):
        return KubeRejected(f"{kind.lower()}s are not served: 404")
    return None


async def test_both_are_made_for_this_tenant_alone(world: Any) -> None:
    await world.start(metrics=METRICS)
    monitor = world.kube.object(SERVICE_MONITOR, "logs")
    assert monitor["metadata"]["labels"]["release"] == "prom"
    assert monitor["metadata"]["ownerReferences"][0]["kind"] == "Tenant"
    (endpoint,) = monitor["spec"]["endpoints"]
    assert (endpoint["port"], endpoint["path"], endpoint["interval"]) == ("s3", "/metrics", "15s")
    selected = monitor["spec"]["selector"]["matchLabels"].items()
    services = [value for (kind, _, _), value in world.kube.objects.items() if kind == "Service"]
    chosen = [one["metadata"]["name"] for one in services if selected <= one["metadata"]["labels"].items()]
    assert chosen == ["logs-pods"], "each pod is scraped once"
    rules = world.kube.object(PROMETHEUS_RULE, "logs")["spec"]["groups"][0]["rules"]
    assert all('namespace="loki", tenant="logs"' in rule["expr"] for rule in rules)
    assert world.condition("MonitoringReady")["status"] == "True"
    world.kube.calls.clear()
    await world.run_passes(3)
    assert [call for call in world.kube.calls if call[0] != "status"] == [], "at rest it writes nothing"


async def test_a_cluster_without_the_kinds_is_told_and_nothing_waits(world: Any) -> None:
    world.kube.fail_on = absent
    await world.start(metrics=METRICS)
    told = world.condition("MonitoringReady")
    assert (told["status"], told["reason"]) == ("False", "CannotApply")
    assert "spec.metrics.serviceMonitor: servicemonitors are not served" in told["message"]
    assert "spec.metrics.prometheusRule" in told["message"]
    assert world.condition("Ready")["status"] == "True"
    assert world.kube.names(STATEFUL_SET) == ["logs-pool-main"]
    world.kube.fail_on = lambda verb, kind, name: None
    await world.run_pass()
    assert world.condition("MonitoringReady")["status"] == "True", "the kinds have come to be"


async def test_a_missing_right_is_told(world: Any) -> None:
    world.kube.fail_on = lambda verb, kind, name: KubeForbidden("not allowed") if kind == "PrometheusRule" else None
    await world.start(metrics=METRICS)
    assert "spec.metrics.prometheusRule: not allowed" in world.condition("MonitoringReady")["message"]
    assert world.kube.names(SERVICE_MONITOR) == ["logs"]
    assert world.condition("Ready")["status"] == "True"


async def test_a_webhook_that_is_away_holds_up_nothing_else(world: Any) -> None:
    """Kinds of other controllers come with admission webhooks; without those the API server answers 500."""

    def away(verb: str, kind: str, name: str) -> KubeError | None:
        if verb == "apply" and kind in ("PrometheusRule", "Ingress", "Certificate"):
            return KubeUnavailable(f'500: Internal error occurred: failed calling webhook "validate.{kind}"')
        return None

    world.kube.fail_on = away
    tls = {"mode": "CertManager", "issuerRef": {"name": "corp"}, "plaintext": "Accepted"}
    await world.start(metrics=METRICS, ingress={"hosts": ["s3.example.com"]}, tls=tls)
    for condition, reason in (
        ("MonitoringReady", "CannotApply"),
        ("NetworkReady", "CannotApply"),
        ("TLSReady", "CertificateNotApplied"),
    ):
        told = world.condition(condition)
        assert (told["status"], told["reason"]) == ("False", reason)
        assert "failed calling webhook" in told["message"]
    assert world.condition("BucketsReady")["status"] == "True"
    world.kube.fail_on = lambda verb, kind, name: None
    await world.run_pass()
    assert world.condition("MonitoringReady")["status"] == "True"
    assert world.condition("NetworkReady")["status"] == "True"


async def test_what_could_not_be_looked_for_is_looked_for_again(world: Any) -> None:
    await world.start(metrics=METRICS)
    world.change_spec()
    world.kube.fail_on = lambda verb, kind, name: KubeUnavailable("503") if kind == "PrometheusRule" else None
    await world.run_passes(2)
    world.kube.fail_on = lambda verb, kind, name: None
    await world.run_pass()
    assert world.kube.names(PROMETHEUS_RULE) == []


async def test_who_asks_for_nothing_causes_no_calls(world: Any) -> None:
    asked: list[str] = []
    world.kube.fail_on = lambda verb, kind, name: asked.append(kind)
    await world.start()
    asked.clear()
    await world.run_passes(3)
    assert not {"ServiceMonitor", "PrometheusRule"} & set(asked)
    conditions = world.kube.tenant_status("logs")["conditions"]
    assert "MonitoringReady" not in {condition["type"] for condition in conditions}


async def test_what_is_asked_for_no_longer_goes_also_after_a_restart_of_the_operator(world: Any) -> None:
    await world.start(metrics=METRICS)
    world.change_spec(metrics={"serviceMonitor": {}})
    await world.run_pass()
    assert world.kube.names(PROMETHEUS_RULE) == []
    assert world.kube.names(SERVICE_MONITOR) == ["logs"]
    world.restart_operator()
    world.change_spec()
    await world.run_pass()
    assert world.kube.names(SERVICE_MONITOR) == []
    assert world.kube.names(STATEFUL_SET) == ["logs-pool-main"]


async def test_an_object_of_somebody_else_is_left_alone(world: Any) -> None:
    foreign = {"apiVersion": SERVICE_MONITOR.api_version, "kind": "ServiceMonitor", "spec": {}}
    world.kube.put({**foreign, "metadata": {"name": "logs", "namespace": "loki"}})
    await world.start(metrics=METRICS)
    assert world.kube.object(SERVICE_MONITOR, "logs")["spec"] == {}
    assert "does not belong to tenant logs" in world.condition("MonitoringReady")["message"]


async def test_the_audit_log_reaches_the_pods_configuration(world: Any) -> None:
    webhook = {"url": "https://collector.example/in", "tokenSecretRef": {"name": "audit-token"}}
    await world.start(audit={"stdout": True, "webhook": webhook})
    text = world.kube.objects["ConfigMap", "loki", "logs-config"]["data"]["config.yaml"]
    assert "tokenFile: /etc/holdfast/audit/token" in text
    pod = world.kube.object(STATEFUL_SET, "logs-pool-main")["spec"]["template"]["spec"]
    (volume,) = (volume for volume in pod["volumes"] if volume["name"] == "audit")
    assert volume["secret"]["secretName"] == "audit-token"
    assert volume["secret"]["optional"], "a store must start without its audit token"
    assert "/etc/holdfast/audit" in [mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]]


async def test_what_new_buckets_get_reaches_the_pods_configuration(world: Any) -> None:
    await world.start(objectOwnership="ObjectWriter")
    text = world.kube.objects["ConfigMap", "loki", "logs-config"]["data"]["config.yaml"]
    assert "objectOwnership: ObjectWriter" in text


async def test_a_bad_audit_url_is_named(world: Any) -> None:
    await world.start(audit={"webhook": {"url": "ftp://x"}}, metrics={"serviceMonitor": {"intervalSeconds": 1}})
    message = world.condition("SpecValid")["message"]
    assert "spec.audit.webhook.url" in message
    assert "spec.metrics.serviceMonitor.intervalSeconds: 1 is not within 5 to 3600" in message
