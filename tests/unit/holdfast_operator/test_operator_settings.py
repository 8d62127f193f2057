"""The command line."""

from __future__ import annotations

import json
import logging

import pytest

from holdfast_operator.logs import JsonFormatter, TextFormatter
from holdfast_operator.migration import command as convert_minio_tenant
from holdfast_operator.settings import parse_settings


def test_namespaces_and_environment() -> None:
    settings = parse_settings(["-n", "a", "--namespace", "b", "-n", "a"], {"KUBECONFIG": "/k", "HOLDFAST_IMAGE": "i:1"})
    assert settings.namespaces == ("a", "b")
    assert settings.kubeconfig == "/k"
    assert settings.default_image == "i:1"
    assert settings.liveness_port is None
    assert settings.metrics_port is None


def test_all_namespaces_in_the_cluster() -> None:
    settings = parse_settings(["-A", "--liveness", "8080", "--metrics", "8081"], {})
    assert settings.namespaces == ()
    assert settings.kubeconfig is None
    assert settings.liveness_port == 8080
    assert settings.metrics_port == 8081


@pytest.mark.parametrize("arguments", [[], ["-A", "-n", "a"], ["-A", "--liveness", "99999"], ["-A", "--what"]])
def test_wrong_arguments_end_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_settings(arguments, {})
    assert ended.value.code == 2
    assert "holdfast-operator" in capsys.readouterr().err


def test_the_help_names_what_else_the_command_does(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_settings(["--help"], {})
    assert convert_minio_tenant.NAME in capsys.readouterr().out


def test_log_lines_carry_their_fields() -> None:
    record = logging.LogRecord("x", logging.INFO, "f", 1, "applied %s", ("it",), None)
    record.fields = {"tenant": "logs"}
    line = json.loads(JsonFormatter().format(record))
    assert (line["message"], line["tenant"], line["level"]) == ("applied it", "logs", "info")
    assert TextFormatter().format(record).endswith("applied it tenant=logs")
