"""examples/web-app fits together: its deployment takes the Secret that the operator makes, which has the variables that
both back ends read, and no key stands in any file."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import yaml

from holdfast_operator import labels
from holdfast_operator.desired import secrets

APP = Path(__file__).resolve().parents[3] / "examples/web-app"
OWN_VARIABLES = {"BUCKET", "PUBLIC_S3_URL", "PORT", "PAGE"}
BACK_ENDS = ("node/server.mjs", "python/server.py")


def test_the_deployment_takes_the_secret_of_the_tenants_user() -> None:
    tenant = yaml.safe_load((APP / "tenant.yaml").read_text())
    name = labels.user_secret_name(tenant["metadata"]["name"], tenant["spec"]["users"][0]["name"])
    deployments = [
        document
        for document in yaml.safe_load_all((APP / "deployment.yaml").read_text())
        if document["kind"] == "Deployment"
    ]
    assert len(deployments) == len(BACK_ENDS)
    for deployment in deployments:
        assert deployment["metadata"]["namespace"] == tenant["metadata"]["namespace"]
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        assert container["envFrom"] == [{"secretRef": {"name": name}}]
        assert {variable["name"] for variable in container["env"]} <= OWN_VARIABLES | {"PYTHONDONTWRITEBYTECODE"}


def test_a_back_end_reads_what_the_secret_has() -> None:
    given = set(re.findall(r'"(AWS_[A-Z0-9_]+)"', inspect.getsource(secrets.client_data)))
    for back_end in BACK_ENDS:
        text = (APP / back_end).read_text()
        read = set(re.findall(r"process\.env\.(\w+)|os\.environ(?:\.get)?[\[(]\"(\w+)\"", text))
        named = {name for pair in read for name in pair if name}
        assert "AWS_ENDPOINT_URL_S3" in named
        assert named <= given | OWN_VARIABLES, named


def test_the_bucket_of_the_back_ends_is_the_tenants_and_lets_the_page_in() -> None:
    (bucket,) = yaml.safe_load((APP / "tenant.yaml").read_text())["spec"]["buckets"]
    assert all(f"'{bucket['name']}'" in text or f'"{bucket["name"]}"' in text for text in map(_text, BACK_ENDS))
    (rule,) = bucket["cors"]
    assert {"GET", "PUT"} <= set(rule["allowedMethods"])
    assert "content-type" in rule["allowedHeaders"]


def _text(back_end: str) -> str:
    return (APP / back_end).read_text()
