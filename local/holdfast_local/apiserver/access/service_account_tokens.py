"""The token subresource of service accounts: `kubectl create token`, and what a kubelet mounts into pods.

Tokens are random and live until the server stops; they are not JSON web tokens, so nobody can read claims from them.
"""

from datetime import timedelta
from typing import Any

from holdfast_local.apiserver.access.identity import Authenticator
from holdfast_local.apiserver.http.targets import Target
from holdfast_local.apiserver.resources import Object, Resource
from holdfast_local.apiserver.writing import Writer, timestamp

DEFAULT_LIFETIME_SECONDS = 3600


def request_token(
    writer: Writer, resource: Resource, authenticator: Authenticator, target: Target, body: Any
) -> Object:
    """A `TokenRequest` with its status. Raises StatusError 404 if there is no such service account."""
    writer.get(resource, target.namespace, target.name)
    spec = dict((body.get("spec") if isinstance(body, dict) else None) or {})
    lifetime_seconds = int(spec.get("expirationSeconds") or DEFAULT_LIFETIME_SECONDS)
    expires = timestamp(writer.time() + timedelta(seconds=lifetime_seconds))
    token = authenticator.issue(target.namespace, target.name)
    return {
        "kind": "TokenRequest",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {"name": target.name, "namespace": target.namespace, "creationTimestamp": None},
        "spec": {"audiences": ["holdfast-local"], **spec, "expirationSeconds": lifetime_seconds},
        "status": {"token": token, "expirationTimestamp": expires},
    }
