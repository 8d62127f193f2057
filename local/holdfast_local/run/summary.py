"""What is told once a Tenant is Ready: endpoint, keys, next steps; and the file to source.

`connection_of` reads from the API; rendering is pure.
"""

from __future__ import annotations

import base64
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast_local.kubelet.client import SECRETS, ApiClient
from holdfast_local.kubelet.manifests import Manifest, key_of
from holdfast_local.run.failure import RunFailed
from holdfast_local.run.serving import service_address
from holdfast_local.run.state_directory import StateDirectory, shown

DEFAULT_REGION = "us-east-1"


@dataclass(frozen=True)
class Connection:
    """How to reach a Tenant from this machine."""

    namespace: str
    name: str
    endpoint_url: str
    region: str
    root_secret: str
    access_key: str
    secret_key: str
    certificate_authority: str
    """PEM; empty without TLS."""
    buckets: tuple[str, ...]
    user_secrets: tuple[str, ...]
    first_pod: str


async def connection_of(client: ApiClient, tenant: Manifest) -> Connection:
    """Read a Ready Tenant's Service and keys; raises RunFailed if they are not there."""
    namespace, name = key_of(tenant)
    spec, status = tenant["spec"], tenant.get("status") or {}
    reference = (spec.get("rootCredentials") or {}).get("secretRef") or {}
    root_secret = reference.get("name") or f"{name}-root"
    address = await service_address(client, (namespace, name))
    secret = await client.get(SECRETS, namespace, root_secret)
    keys = {field: base64.b64decode(value).decode() for field, value in ((secret or {}).get("data") or {}).items()}
    if address is None or not keys.get("accessKey") or not keys.get("secretKey"):
        raise RunFailed(f"Tenant {namespace}/{name} is Ready, but its Service or Secret {root_secret} is incomplete")
    scheme = "https" if str(status.get("endpoint", "")).startswith("https:") else "http"
    return Connection(
        namespace=namespace,
        name=name,
        endpoint_url=f"{scheme}://{address[0]}:{address[1]}",
        region=spec.get("region") or DEFAULT_REGION,
        root_secret=root_secret,
        access_key=keys["accessKey"],
        secret_key=keys["secretKey"],
        certificate_authority=keys.get("ca.crt", "") if scheme == "https" else "",
        buckets=tuple(str(bucket["name"]) for bucket in spec.get("buckets") or []),
        user_secrets=tuple(_user_secret(name, user) for user in spec.get("users") or []),
        first_pod=f"{name}-pool-{spec['pools'][0]['name']}-0",
    )


def _user_secret(tenant_name: str, user: Mapping[str, Any]) -> str:
    return str((user.get("secretRef") or {}).get("name") or f"{tenant_name}-user-{user['name']}")


def render_environment(connection: Connection, certificate_path: Path | None) -> str:
    """The text of `.holdfast/env`."""
    variables = {
        "AWS_ENDPOINT_URL_S3": connection.endpoint_url,
        "AWS_ACCESS_KEY_ID": connection.access_key,
        "AWS_SECRET_ACCESS_KEY": connection.secret_key,
        "AWS_REGION": connection.region,
    }
    if certificate_path is not None:
        variables["AWS_CA_BUNDLE"] = str(certificate_path)
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())


def render_next_steps(connections: Sequence[Connection], state: StateDirectory, has_kubectl: bool) -> list[str]:
    """Lines for people."""
    lines = []
    for connection in connections:
        lines += [
            "",
            f"Tenant {connection.namespace}/{connection.name} is ready.",
            f"  S3 endpoint   {connection.endpoint_url}   (region {connection.region}, path style)",
            f"  root keys     {shown(state.environment_file)}, and Secret {connection.root_secret}",
        ]
        if connection.user_secrets:
            lines.append(f"  user keys     Secret {', '.join(connection.user_secrets)}")
        if connection.buckets:
            lines.append(f"  buckets       {', '.join(connection.buckets)}")
    first = connections[0]
    lines += [
        "",
        "Next, in another terminal:",
        f"  source {shown(state.environment_file)}",
        "  aws s3 ls",
    ]
    if first.buckets:
        lines.append(f"  aws s3 cp README.md s3://{first.buckets[0]}/")
    if has_kubectl:
        kubectl = f"kubectl --kubeconfig {shown(state.kubeconfig)} -n {first.namespace}"
        lines += [f"  {kubectl} get tenant,pod", f"  {kubectl} logs {first.first_pod}"]
    lines += ["", "Ctrl-C here, or `make stop` elsewhere, ends it. The data stay; `make clean` removes them."]
    return [line.rstrip() for line in lines]
