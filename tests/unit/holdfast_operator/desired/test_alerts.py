"""Every alert fires when it should, after the time it should, and alone; a healthy store is silent.  With promtool."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from holdfast_operator.desired.alerts import ALERTS, EVERY_TENANT, alert_groups

ROOT = Path(__file__).parents[4]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
OPERATOR_RULES = ROOT / "charts" / "holdfast-operator" / "files" / "alerts.yaml"
RULE_FILES = {"tenant": ROOT / "examples" / "monitoring" / "rules.yaml", "operator": OPERATOR_RULES}

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
"""promtool calculates for ten seconds, which on a busy machine have taken two minutes."""

POD = 'namespace="loki",tenant="logs",instance="a"'
SET = f'{POD},pool="main",set="0"'
DRIVE = f'{SET},position="0",volume="0"'
CERTIFICATE = f'{POD},certificate="clients"'
BEGINS, ENDS = (f"holdfast_tls_certificate_{end}_timestamp_seconds" for end in ("start", "expiry"))
DAY = 86400
"""Stories begin at the time 0."""
MINUTES = 3000
"""How long each story goes on: two days."""


def steady(value: float) -> str:
    return f"{value}x{MINUTES}"


def rising(step: float) -> str:
    return f"0+{step}x{MINUTES}"


HEALTHY = {
    f'holdfast_build_info{{{POD},version="1"}}': steady(1),
    f"holdfast_start_time_seconds{{{POD}}}": steady(5),
    f'holdfast_peer_connected{{{POD},server="logs-pool-main-1"}}': steady(1),
    f"holdfast_pool_map_epoch{{{POD}}}": steady(1),
    f"holdfast_pool_map_newest_epoch{{{POD}}}": steady(1),
    f"holdfast_erasure_set_drives{{{SET}}}": steady(4),
    f"holdfast_erasure_set_drives_online{{{SET}}}": steady(4),
    f"holdfast_erasure_set_drives_healing{{{SET}}}": steady(0),
    f"holdfast_erasure_set_readable{{{SET}}}": steady(1),
    f"holdfast_erasure_set_writable{{{SET}}}": steady(1),
    f"holdfast_erasure_set_losses_left{{{SET}}}": steady(1),
    f"holdfast_heal_stuck_registers{{{SET}}}": steady(0),
    f"holdfast_heal_failures_total{{{POD}}}": steady(7),
    f'holdfast_drive_state{{{DRIVE},state="ok"}}': steady(1),
    f'holdfast_drive_state{{{DRIVE},state="faulty"}}': steady(0),
    f"holdfast_drive_full{{{DRIVE}}}": steady(0),
    f"holdfast_drive_size_bytes{{{DRIVE}}}": steady(100),
    f"holdfast_drive_used_bytes{{{DRIVE}}}": steady(50),
    f"holdfast_drive_io_errors_total{{{DRIVE}}}": steady(3),
    f"holdfast_scanner_rotten_total{{{DRIVE}}}": steady(3),
    f"holdfast_repair_queue_oldest_seconds{{{DRIVE}}}": steady(2),
    f'holdfast_s3_requests_total{{{POD},operation="GetObject",status="2xx"}}': rising(6000),
    f'holdfast_s3_requests_total{{{POD},operation="GetObject",status="5xx"}}': rising(6),
    f'holdfast_s3_requests_total{{{POD},operation="PutObject",status="2xx"}}': rising(6000),
    f'holdfast_budget_refused_total{{{POD},budget="requests"}}': steady(9),
    f'holdfast_audit_dropped_total{{{POD},sink="webhook"}}': steady(9),
    f"{ENDS}{{{CERTIFICATE}}}": steady(60 * DAY),
    f"{BEGINS}{{{CERTIFICATE}}}": steady(-30 * DAY),
    'holdfast_operator_build_info{version="1"}': steady(1),
    'holdfast_operator_working{namespace="holdfast-system",job="one",pod="a"}': steady(0),
    'holdfast_operator_working{namespace="holdfast-system",job="one",pod="b"}': steady(1),
    'holdfast_operator_working{namespace="other",job="two",pod="c"}': steady(1),
    'holdfast_operator_certificate_expiry_timestamp_seconds{certificate="peers"}': steady(60 * DAY),
    "holdfast_operator_failing_tenants": steady(0),
    "holdfast_operator_queue_length": steady(0),
    'holdfast_operator_passes_total{outcome="done"}': rising(6),
    'holdfast_operator_passes_total{outcome="broken"}': steady(1),
    'holdfast_operator_tenant_conditions{condition="SpecValid",status="False"}': steady(0),
    'holdfast_operator_tenant_conditions{condition="EncryptionReady",status="False"}': steady(0),
    f"holdfast_encryption_keys_refused{{{POD}}}": steady(0),
}

Story = tuple[dict[str, str | None], int, set[str]]
"""What is otherwise than in a healthy store, after how many minutes the alert fires, and which others fire then."""

STORIES: dict[str, Story] = {
    "HoldfastSilent": ({name: None for name in HEALTHY if "operator" not in name}, 11, set()),
    "HoldfastPodUnreachable": (
        {f'holdfast_peer_connected{{{POD},server="logs-pool-main-1"}}': steady(0)}, 6, set()
    ),
    "HoldfastPodRestarts": ({f"holdfast_start_time_seconds{{{POD}}}": "5 6 7 8 9 9x100"}, 6, set()),
    "HoldfastSetNotReadable": ({f"holdfast_erasure_set_readable{{{SET}}}": steady(0)}, 2, set()),
    "HoldfastSetNotWritable": ({f"holdfast_erasure_set_writable{{{SET}}}": steady(0)}, 2, set()),
    "HoldfastNoLossTolerated": (
        {
            f"holdfast_erasure_set_losses_left{{{SET}}}": steady(0),
            f"holdfast_erasure_set_drives_healing{{{SET}}}": steady(1),
        },
        11,
        set(),
    ),
    "HoldfastDriveMissing": ({f"holdfast_erasure_set_drives_online{{{SET}}}": steady(3)}, 11, set()),
    "HoldfastDriveFaulty": ({f'holdfast_drive_state{{{DRIVE},state="faulty"}}': steady(1)}, 6, set()),
    "HoldfastDriveErrors": ({f"holdfast_drive_io_errors_total{{{DRIVE}}}": rising(1)}, 2, set()),
    "HoldfastRot": ({f"holdfast_scanner_rotten_total{{{DRIVE}}}": rising(1)}, 2, set()),
    "HoldfastDriveNearlyFull": ({f"holdfast_drive_used_bytes{{{DRIVE}}}": steady(81)}, 16, set()),
    "HoldfastDriveFull": ({f"holdfast_drive_full{{{DRIVE}}}": steady(1)}, 2, set()),
    "HoldfastVersionsStuck": ({f"holdfast_heal_stuck_registers{{{SET}}}": steady(2)}, 16, set()),
    "HoldfastHealingStuck": (
        {
            f"holdfast_drive_filling_ratio{{{DRIVE}}}": steady(0.4),
            f"holdfast_drive_filling_registers{{{DRIVE}}}": steady(400),
        },
        61,
        set(),
    ),
    "HoldfastHealingFails": ({f"holdfast_heal_failures_total{{{POD}}}": rising(1)}, 63, set()),
    "HoldfastRepairQueueOld": ({f"holdfast_repair_queue_oldest_seconds{{{DRIVE}}}": steady(3601)}, 6, set()),
    "HoldfastReadsFail": (
        {f'holdfast_s3_requests_total{{{POD},operation="GetObject",status="5xx"}}': rising(70)}, 8, set()
    ),
    "HoldfastWritesFail": (
        {f'holdfast_s3_requests_total{{{POD},operation="UploadPart",status="5xx"}}': rising(70)}, 8, set()
    ),
    "HoldfastOverloaded": ({f'holdfast_budget_refused_total{{{POD},budget="requests"}}': rising(1)}, 8, set()),
    "HoldfastEpochBehind": ({f"holdfast_pool_map_newest_epoch{{{POD}}}": steady(2)}, 6, set()),
    "HoldfastVersionsDiffer": (
        {'holdfast_build_info{namespace="loki",tenant="logs",instance="b",version="2"}': steady(1)}, 1441, set()
    ),
    "HoldfastAuditLost": ({f'holdfast_audit_dropped_total{{{POD},sink="webhook"}}': rising(1)}, 2, set()),
    "HoldfastCertificateExpires": (
        {f"{ENDS}{{{CERTIFICATE}}}": steady(6 * DAY), f"{BEGINS}{{{CERTIFICATE}}}": steady(-7 * DAY)}, 6, set()
    ),
    "HoldfastCertificateNotRenewed": ({f"{ENDS}{{{CERTIFICATE}}}": steady(7.4 * DAY)}, 62, set()),
    "HoldfastTenantCertificateExpires": (
        {'holdfast_operator_certificate_expiry_timestamp_seconds{certificate="peers"}': steady(6 * DAY)}, 16, set()
    ),
    "HoldfastOperatorSilent": ({'holdfast_operator_build_info{version="1"}': None}, 16, set()),
    "HoldfastOperatorNotWorking": (
        {'holdfast_operator_working{namespace="holdfast-system",job="one",pod="b"}': steady(0)}, 6, set()
    ),
    "HoldfastOperatorFailing": ({"holdfast_operator_failing_tenants": steady(1)}, 16, set()),
    "HoldfastOperatorBroken": ({'holdfast_operator_passes_total{outcome="broken"}': rising(1)}, 2, set()),
    "HoldfastOperatorStuck": (
        {
            "holdfast_operator_queue_length": steady(3),
            'holdfast_operator_passes_total{outcome="done"}': steady(9),
        },
        16,
        set(),
    ),
    "HoldfastTenantInvalid": (
        {'holdfast_operator_tenant_conditions{condition="SpecValid",status="False"}': steady(1)}, 16, set()
    ),
    "HoldfastTenantKeysMissing": (
        {'holdfast_operator_tenant_conditions{condition="EncryptionReady",status="False"}': steady(1)}, 16, set()
    ),
    "HoldfastEncryptionKeysRefused": ({f"holdfast_encryption_keys_refused{{{POD}}}": steady(1)}, 6, set()),
}  # fmt: skip

ACCOMPANIED = {
    # A queue of failed repairs beside a drive that is away is no news.
    "HoldfastDriveMissing": {
        f"holdfast_heal_failures_total{{{POD}}}": rising(1),
        f"holdfast_repair_queue_oldest_seconds{{{DRIVE}}}": steady(9000),
    }
}


def test_of_story(name: str, changes: dict[str, str | None], minute: int, others: set[str]) -> dict[str, Any]:
    series = {**HEALTHY, **changes}
    firing = 'count by (alertname) (ALERTS{alertstate="firing"})'
    expected = [{"labels": f'{{alertname="{one}"}}', "value": 1} for one in sorted({name, *others} - {""})]
    checks = [{"expr": firing, "eval_time": f"{minute}m", "exp_samples": expected}]
    if minute > 3 and name:
        mine = f'count(ALERTS{{alertstate="firing", alertname="{name}"}})'
        checks.append({"expr": mine, "eval_time": f"{minute - 3}m", "exp_samples": []})
    return {
        "name": name or "a healthy store",
        "interval": "1m",
        "input_series": [{"series": one, "values": values} for one, values in series.items() if values is not None],
        "promql_expr_test": checks,
    }


test_of_story.__test__ = False  # type: ignore[attr-defined]


def run_promtool(tmp_path: Path, tests: list[dict[str, Any]]) -> subprocess.CompletedProcess[str]:
    document = {
        "rule_files": [str(path) for path in RULE_FILES.values()],
        "evaluation_interval": "1m",
        "tests": tests,
    }
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(document))
    return subprocess.run(
        ["promtool", "test", "rules", str(tmp_path / "tests.yaml")], check=False, capture_output=True, text=True
    )


def every_rule() -> list[dict[str, Any]]:
    documents = [yaml.safe_load(path.read_text()) for path in RULE_FILES.values()]
    return [rule for document in documents for group in document["groups"] for rule in group["rules"]]


def test_every_alert_has_a_story() -> None:
    assert sorted(STORIES) == sorted(rule["alert"] for rule in every_rule())


@needs_promtool
def test_prometheus_takes_the_rules() -> None:
    for path in RULE_FILES.values():
        subprocess.run(["promtool", "check", "rules", "--lint-fatal", str(path)], check=True, capture_output=True)


@needs_promtool
def test_each_alert_fires_in_its_story_and_no_other(tmp_path: Path) -> None:
    tests = [
        test_of_story(name, {**changes, **ACCOMPANIED.get(name, {})}, minute, others)
        for name, (changes, minute, others) in STORIES.items()
    ]
    done = run_promtool(tmp_path, tests)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_a_healthy_store_is_silent(tmp_path: Path) -> None:
    told = [test_of_story("", {}, minute, set()) for minute in (2, 90, MINUTES - 1)]
    checks = [check for test in told for check in test["promql_expr_test"]]
    done = run_promtool(tmp_path, [{**told[-1], "promql_expr_test": checks}])
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_one_cut_off_pod_sees_is_no_outage() -> None:
    """It is the best view that counts."""
    for name in ("HoldfastSetNotReadable", "HoldfastSetNotWritable", "HoldfastDriveMissing"):
        (alert,) = (alert for alert in ALERTS if alert.name == name)
        best = re.compile(r"max by \(namespace, tenant, pool, set\) \(holdfast_\w+\{\$tenant\}\)")
        assert best.search(alert.expression)
        assert "holdfast_" not in best.sub("", alert.expression), "each of its metrics"


def test_each_alert_says_what_to_do_and_where_to_read_on() -> None:
    headings = {heading.lower() for heading in re.findall(r"^### (\w+)$", OPERATIONS, re.MULTILINE)}
    for rule in every_rule():
        assert set(rule["annotations"]) == {"summary", "description", "runbook"}, rule["alert"]
        assert all(len(text) >= 10 for text in rule["annotations"].values()), rule["alert"]
        assert rule["labels"]["severity"] in ("critical", "warning")
        path, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert path == "docs/operations.md"
        assert anchor == rule["alert"].lower()
        assert anchor in headings, f"{rule['alert']} has no section"
    assert {one.lower() for one in STORIES} == {one for one in headings if one.startswith("holdfast")}


def test_every_selector_is_of_one_tenant() -> None:
    for rule in alert_groups('namespace="a", tenant="b"')[0]["rules"]:
        for metric, matchers in re.findall(r"(holdfast_\w+)(\{[^}]*\})?", rule["expr"]):
            assert matchers.startswith('{namespace="a", tenant="b"'), (rule["alert"], metric)


def test_the_example_for_a_prometheus_without_its_operator_is_made_of_the_same_list() -> None:
    assert yaml.safe_load(RULE_FILES["tenant"].read_text()) == {"groups": alert_groups(EVERY_TENANT)}
