"""The example values for Loki agree with the example Tenant, with Loki's chart and with Loki itself.

A binary that HOLDFAST_LOKI names is asked whether it accepts each configuration.  With HOLDFAST_LOKI_CHART, a folder
that has the chart of grafana-community, the values are rendered by it, and what our own translation makes of them is
compared with the chart's.  Without these two, names and shapes are checked.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from holdfast_operator import labels
from holdfast_server.contract import names
from holdfast_server.testing.loki.chart_values import (
    Values,
    loki_configuration,
    merged,
    read_values,
    with_bundled_store,
)
from holdfast_server.testing.loki.program import verify

EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "loki"
LOKI = os.environ.get("HOLDFAST_LOKI")
CHART = os.environ.get("HOLDFAST_LOKI_CHART")
COMBINATIONS = {
    "classic": ("values.yaml",),
    "classic over https": ("values.yaml", "values-https.yaml"),
    "thanos": ("values.yaml", "values-thanos.yaml"),
    "thanos over https": ("values.yaml", "values-thanos.yaml", "values-https.yaml"),
    "leaving the chart's MinIO": ("values.yaml", "values-leaving-minio.yaml"),
}
LEAVING = "leaving the chart's MinIO"
BUNDLED = {"minio": {"rootUser": "root-user", "rootPassword": "password", "service": {"port": 9000}}}
"""What the chart of MinIO, below Loki's, would bring."""

every_combination = pytest.mark.parametrize("files", COMBINATIONS.values(), ids=COMBINATIONS)


def given(files: tuple[str, ...]) -> Values:
    return merged(BUNDLED, read_values(EXAMPLES / file for file in files))


def configuration(files: tuple[str, ...]) -> Values:
    if files == COMBINATIONS[LEAVING]:
        return with_bundled_store(given(files), "loki-minio.loki.svc:9000")
    return loki_configuration(given(files))


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for one in value.values() for leaf in leaves(one)]
    return [leaf for one in value for leaf in leaves(one)] if isinstance(value, list) else [value]


@pytest.fixture(scope="module")
def tenant() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((EXAMPLES / "tenant.yaml").read_text())
    return found


@every_combination
def test_the_values_name_what_the_tenant_makes(files: tuple[str, ...], tenant: dict[str, Any]) -> None:
    name, namespace = tenant["metadata"]["name"], tenant["metadata"]["namespace"]
    address = f"{name}.{namespace}.svc.cluster.local:{names.S3_PORT}"
    buckets = {bucket["name"] for bucket in tenant["spec"]["buckets"]}
    values = given(files)
    assert set(values["loki"]["storage"]["bucketNames"].values()) == buckets
    (user,) = tenant["spec"]["users"]
    secret = labels.user_secret_name(name, user["name"])
    for variable in values["defaults"]["extraEnv"]:
        assert variable["valueFrom"]["secretKeyRef"] == {"name": secret, "key": variable["name"]}
    assert {one["name"] for one in values["defaults"]["extraEnv"]} == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    text = json.dumps(configuration(files))
    assert set(re.findall(r"\$\{(\w+)\}", text)) == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    assert address in text
    for volume in values["defaults"].get("extraVolumes", []):
        assert volume["secret"] == {"secretName": secret, "items": [{"key": "ca.crt", "path": "ca.crt"}]}


@every_combination
def test_the_scheme_and_the_authority_belong_together(files: tuple[str, ...]) -> None:
    secure = "values-https.yaml" in files
    store = main_store(configuration(files))
    assert store["insecure"] is not secure
    if "bucket_lookup_type" in store:
        assert "://" not in store["endpoint"], "host and port, without a scheme"
    elif "values-leaving-minio.yaml" not in files:
        assert store["endpoint"].startswith("https://" if secure else "http://")
    if secure:
        (mount,) = given(files)["defaults"]["extraVolumeMounts"]
        assert f"{mount['mountPath']}/ca.crt" in leaves(store)


def test_the_commands_of_the_readme_name_what_there_is(tenant: dict[str, Any]) -> None:
    text = (EXAMPLES / "README.md").read_text()
    used = {name for name in re.findall(r" -f ([\w.-]+\.yaml)", text) if not name.startswith("your-values")}
    there = {path.name for path in EXAMPLES.glob("*.yaml")}
    assert used == there - {"alerts.yaml"}
    assert set(re.findall(r"^\| `(\S+)` \|", text, re.MULTILINE)) == there
    patches = re.findall(r"patch tenant logs --type merge -p '(.*)'", text)
    assert len(patches) == 2
    schema = yaml.safe_load((EXAMPLES.parents[1] / "crds" / "tenant.yaml").read_text())
    properties = schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    for patch in patches:
        for name, values in json.loads(patch)["spec"].items():
            assert values.keys() <= properties[name]["properties"].keys()


def test_a_field_that_nobody_has_tried_is_refused() -> None:
    values = given(("values.yaml",))
    with pytest.raises(ValueError, match=r"loki\.storage\.s3: disable_dualstack not known"):
        loki_configuration(merged(values, {"loki": {"storage": {"s3": {"disable_dualstack": True}}}}))


@pytest.mark.skipif(LOKI is None, reason="HOLDFAST_LOKI does not name a Loki binary")
@every_combination
def test_loki_accepts_the_configuration(files: tuple[str, ...], tmp_path: Path) -> None:
    assert LOKI is not None
    one = merged(configuration(files), {"common": {"path_prefix": str(tmp_path)}})
    assert verify(Path(LOKI), one, tmp_path) == ""
    wrong = merged(one, {"storage_config": {"nonsense": True}})
    assert "nonsense" in verify(Path(LOKI), wrong, tmp_path)


@pytest.mark.skipif(CHART is None, reason="HOLDFAST_LOKI_CHART does not name the folder of Loki's chart")
@every_combination
def test_the_chart_makes_of_the_values_what_we_take_it_to_make(files: tuple[str, ...]) -> None:
    helm = pytest.importorskip("helm_python")
    with helm.Chart.load(CHART) as chart:
        texts = chart.render(given(files), name="loki", namespace="loki")
    (text,) = (text for name, text in texts.items() if name.endswith("loki/templates/config.yaml"))
    theirs = yaml.safe_load(yaml.safe_load(text)["data"]["config.yaml"])
    ours = configuration(files)
    for section in ("schema_config", "compactor"):
        assert theirs[section] == ours[section]
    for section in ("limits_config", "storage_config"):
        assert merged(theirs[section], ours[section]) == theirs[section]
    assert {name: value for name, value in main_store(theirs).items() if value not in ({}, None)} == main_store(ours)


def main_store(loki: Values) -> Values:
    storage = loki["common"]["storage"]
    found: Values = storage["object_store"]["s3"] if "object_store" in storage else storage["s3"]
    return found


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_the_alerts_fire_when_chunks_cannot_be_read(tmp_path: Path) -> None:
    """One hour of one Loki in each namespace; the metrics are those that a Loki 3.7.6 was seen to have."""
    gets = 'loki_s3_request_duration_seconds_count{namespace="%s", operation="S3.GetObject", status_code="%s"}'
    series = {
        gets % ("well", "200"): "0+600x60",
        gets % ("well", "500"): "0 5x59",
        gets % ("classic", "200"): "0+600x60",
        gets % ("classic", "500"): "0+300x60",
        gets % ("doubtful", "200"): "0+600x60",
        gets % ("doubtful", "500"): "0+12x60",
        'loki_objstore_bucket_operation_failures_total{namespace="well", operation="get"}': "0 1x59",
        'loki_objstore_bucket_operation_failures_total{namespace="thanos", operation="get"}': "0+10x60",
        'loki_ingester_chunks_flush_failures_total{namespace="well"}': "0 2x59",
        'loki_ingester_chunks_flush_failures_total{namespace="thanos"}': "0+1x60",
    }
    expected = {
        "LokiStoreReadErrors": [("classic", "warning"), ("doubtful", "warning")],
        "LokiLinesMissing": [("classic", "critical"), ("thanos", "critical")],
        "LokiFlushesFail": [("thanos", "warning")],
    }
    rules = yaml.safe_load((EXAMPLES / "alerts.yaml").read_text())
    assert {rule["alert"] for group in rules["groups"] for rule in group["rules"]} == set(expected)
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule.pop("annotations")
    (tmp_path / "alerts.yaml").write_text(yaml.safe_dump(rules))
    tests = {
        "rule_files": ["alerts.yaml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "alert_rule_test": [
                    {
                        "eval_time": "40m",
                        "alertname": alert,
                        "exp_alerts": [
                            {"exp_labels": {"namespace": namespace, "severity": severity}}
                            for namespace, severity in firing
                        ],
                    }
                    for alert, firing in expected.items()
                ],
            }
        ],
    }
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(tests))
    command = ["promtool", "test", "rules", "tests.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
