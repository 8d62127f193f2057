"""What is told once a Tenant is Ready: endpoint, keys, next steps; and the file to source.

`connection_of` reads from the API, `look_around` from this machine; rendering is pure.
"""

from __future__ import annotations

import base64
import importlib.util
import shlex
import shutil
import sys
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
        # One by one: AWS_ENDPOINT_URL alone would send every other service's requests here, too.
        **{f"AWS_ENDPOINT_URL_{service}": connection.endpoint_url for service in ("S3", "IAM", "STS")},
        "AWS_ACCESS_KEY_ID": connection.access_key,
        "AWS_SECRET_ACCESS_KEY": connection.secret_key,
        "AWS_REGION": connection.region,
        "AWS_DEFAULT_REGION": connection.region,  # what botocore reads, and with it awscli 1
    }
    if certificate_path is not None:
        variables["AWS_CA_BUNDLE"] = str(certificate_path)
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
    # Left over from work with AWS: a token of other keys is refused, and some SDKs prefer a profile to keys.
    return f"unset AWS_SESSION_TOKEN AWS_PROFILE\n{exports}"


@dataclass(frozen=True)
class Surroundings:
    """What this machine and cluster offer beside the Tenants that were asked for."""

    has_kubectl: bool
    aws: str
    """The AWS command line, as one would type it."""
    install_aws: str
    """What installs it; empty where it is there."""
    others: tuple[str, ...] = ()
    """Tenants kept from earlier runs, as namespace/name: they run, too."""


def look_around(others: Sequence[str]) -> Surroundings:
    """Which programs are on PATH, or beside the one that runs."""
    has_kubectl = shutil.which("kubectl") is not None
    if shutil.which("aws"):
        # Before 1.29 and 2.13 it passes over the variable, says nothing, and sends what is typed to AWS.
        return Surroundings(has_kubectl, 'aws --endpoint-url "$AWS_ENDPOINT_URL_S3"', "", tuple(others))
    python = shlex.quote(shown(Path(sys.prefix) / "bin" / "python"))
    there = importlib.util.find_spec("awscli") is not None
    constraints = " -c constraints.txt" if Path("constraints.txt").exists() else ""
    install = "" if there else f"{python} -m pip install -q{constraints} awscli"
    # As a module: the script `aws` does not start from a folder with a blank in its name.
    return Surroundings(has_kubectl, f"{python} -m awscli", install, tuple(others))


def render_next_steps(connections: Sequence[Connection], state: StateDirectory, here: Surroundings) -> list[str]:
    """Lines for people."""
    environment_file = shlex.quote(shown(state.environment_file))
    lines = []
    for connection in connections:
        in_file = f"{shown(state.environment_file)}, and " if connection is connections[0] else ""
        lines += [
            "",
            f"Tenant {connection.namespace}/{connection.name} is ready.",
            f"  S3 endpoint   {connection.endpoint_url}   (region {connection.region}, path style)",
            f"  root keys     {in_file}Secret {connection.root_secret}",
        ]
        if connection.user_secrets:
            lines.append(f"  user keys     Secret {', '.join(connection.user_secrets)}")
        if connection.buckets:
            lines.append(f"  buckets       {', '.join(connection.buckets)}")
    if here.others:
        lines += ["", f"Kept from earlier runs, and running too: {', '.join(here.others)}"]
    first = connections[0]
    lines += ["", "Next, in another terminal:", f"  source {environment_file}"]
    if here.install_aws:
        lines.append(f"  {here.install_aws}      # or use any other S3 client")
    lines.append(f"  {here.aws} s3 ls")
    if first.buckets:
        lines.append(f"  {here.aws} s3 cp README.md s3://{first.buckets[0]}/")
    if here.has_kubectl:
        kubectl = f"kubectl --kubeconfig {shlex.quote(shown(state.kubeconfig))} -n {first.namespace}"
        lines += [f"  {kubectl} get tenant,pod", f"  {kubectl} logs {first.first_pod}"]
    stop, remove = state.stop_command(), state.remove_command()
    lines += ["", f"Ctrl-C here, or `{stop}` elsewhere, ends it. The data stay; `{remove}` removes them."]
    return [line.rstrip() for line in lines]
