"""The operator's settings, parsed once from the command line and the environment by `main`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

DEFAULT_IMAGE = "holdfast/server:dev"
"""What `make images` makes; no image is published yet."""
DEFAULT_CLUSTER_DOMAIN = "cluster.local"


@dataclass(frozen=True, slots=True)
class OperatorSettings:
    """Everything the process is told from outside."""

    namespaces: tuple[str, ...]
    """Namespaces whose Tenants are looked after; empty for all of them, which needs cluster-wide rights."""
    kubeconfig: str | None
    """Path of the kubeconfig; None for the pod's service account."""
    default_image: str
    """Image of storage pods whose Tenant names none."""
    cluster_domain: str
    """The cluster's DNS domain, the last part of Service names."""
    own_namespace: str
    """Where the operator's own pod runs, for NetworkPolicies that let it in; empty if not told: any namespace."""
    lease: tuple[str, str] | None
    """Namespace and name of the Lease that says which of several operators works; None: this one does, always."""
    liveness_port: int | None
    """Port of `GET /healthz`; None for no such endpoint."""
    metrics_port: int | None
    """Port of `GET /metrics`; None for no such endpoint."""
    log_format: str
    """`json`, a line per record for collectors, or `text` for people."""
    verbose: bool
    """Debug records too."""


def parse_settings(arguments: Sequence[str], environment: Mapping[str, str]) -> OperatorSettings:
    """Exits with 2 and a message naming the flag if the arguments are wrong."""
    parser = argparse.ArgumentParser(
        prog="holdfast-operator",
        description="Turns Tenants into erasure-coded S3 stores.",
        epilog="holdfast-operator convert-minio-tenant FILE turns a MinIO Tenant into one for Holdfast, and ends.",
    )
    scope = parser.add_mutually_exclusive_group(required=True)
    scope.add_argument(
        "-n", "--namespace", action="append", metavar="NAME", help="look after this namespace; may be repeated"
    )
    scope.add_argument("-A", "--all-namespaces", action="store_true", help="look after all namespaces")
    parser.add_argument(
        "--kubeconfig",
        default=environment.get("KUBECONFIG") or None,
        metavar="FILE",
        help="default: $KUBECONFIG, else the pod's service account",
    )
    parser.add_argument(
        "--image",
        default=environment.get("HOLDFAST_IMAGE") or DEFAULT_IMAGE,
        help="image of storage pods whose Tenant names none (default: %(default)s)",
    )
    parser.add_argument(
        "--cluster-domain",
        default=DEFAULT_CLUSTER_DOMAIN,
        metavar="DOMAIN",
        help="the cluster's DNS domain (default: %(default)s)",
    )
    parser.add_argument(
        "--own-namespace",
        default="",
        metavar="NAME",
        help="where the operator's own pod runs, for network policies that let it in (default: any namespace)",
    )
    parser.add_argument(
        "--lease",
        type=_namespaced_name,
        default=None,
        metavar="NAMESPACE/NAME",
        help="work only while holding this Lease, and stand by otherwise (default: work always, as the only one)",
    )
    parser.add_argument("--liveness", type=_port, default=None, metavar="PORT", help="serve GET /healthz on this port")
    parser.add_argument("--metrics", type=_port, default=None, metavar="PORT", help="serve GET /metrics on this port")
    parser.add_argument("--log-format", choices=("json", "text"), default="json")
    parser.add_argument("-v", "--verbose", action="store_true", help="log debug records too")
    parsed = parser.parse_args(arguments)
    return OperatorSettings(
        namespaces=() if parsed.all_namespaces else tuple(dict.fromkeys(parsed.namespace)),
        kubeconfig=parsed.kubeconfig,
        default_image=parsed.image,
        cluster_domain=parsed.cluster_domain,
        own_namespace=parsed.own_namespace,
        lease=parsed.lease,
        liveness_port=parsed.liveness,
        metrics_port=parsed.metrics,
        log_format=parsed.log_format,
        verbose=parsed.verbose,
    )


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port")
    return int(text)


def _namespaced_name(text: str) -> tuple[str, str]:
    namespace, separator, name = text.partition("/")
    if not separator or not namespace or not name or "/" in name:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAMESPACE/NAME")
    return namespace, name
