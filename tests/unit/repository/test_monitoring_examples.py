"""Dashboards, rules and scrape configuration use metrics that exist, and Prometheus can read them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
MONITORING = ROOT / "examples" / "monitoring"
RULES = (MONITORING / "rules.yaml", ROOT / "charts" / "holdfast-operator" / "files" / "alerts.yaml")
DASHBOARD = json.loads((MONITORING / "dashboard.json").read_text())

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")


def documented() -> set[str]:
    text = (ROOT / "docs" / "operations.md").read_text()
    return set(re.findall(r"^\| `(holdfast_[a-z0-9_]+)`", text, re.MULTILINE))


def expressions(panels: list[dict[str, Any]]) -> list[str]:
    return [target["expr"] for panel in panels for target in panel.get("targets", [])]


def named(text: str) -> set[str]:
    return {re.sub(r"_(bucket|count|sum)$", "", name) for name in re.findall(r"\bholdfast_\w+", text)}


def test_rules_and_dashboard_use_documented_metrics_only() -> None:
    rules = [
        rule["expr"]
        for path in RULES
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
    ]
    panels = expressions(DASHBOARD["panels"])
    assert len(rules) > 20
    assert len(panels) > 20
    for expression in rules + panels:
        assert named(expression) or "process_" in expression, expression
        assert named(expression) <= documented(), expression


def test_every_panel_has_a_place_of_its_own_and_follows_the_variables() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) == 23
    for expression in expressions(DASHBOARD["panels"]):
        if "holdfast_operator" not in expression:
            assert expression.count("{") == expression.count('{namespace=~"$namespace", tenant=~"$tenant"')


@needs_promtool
def test_prometheus_reads_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": expression.replace("$__rate_interval", "5m")}
        for number, expression in enumerate(expressions(DASHBOARD["panels"]))
    ]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run(
        ["promtool", "check", "rules", str(tmp_path / "rules.yaml")], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_prometheus_reads_the_scrape_configuration(tmp_path: Path) -> None:
    """But for finding pods, which Debian's build of Prometheus has left out."""
    document = yaml.safe_load((MONITORING / "scrape.yaml").read_text())
    (job,) = document["scrape_configs"]
    assert job.pop("kubernetes_sd_configs")[0]["role"] == "pod"
    job["static_configs"] = [{"targets": ["127.0.0.1:9000"]}]
    document["rule_files"] = [str(MONITORING / "rules.yaml")]
    (tmp_path / "scrape.yaml").write_text(yaml.safe_dump(document))
    done = subprocess.run(
        ["promtool", "check", "config", str(tmp_path / "scrape.yaml")], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
