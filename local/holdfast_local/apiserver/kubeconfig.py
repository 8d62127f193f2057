"""The kubeconfig that makes kubectl and other clients talk to the stand-in cluster."""

import base64
from pathlib import Path

import yaml

from holdfast_local.apiserver.certificates import write_private

CONTEXT = "holdfast-local"


def write_kubeconfig(path: Path, url: str, token: str, ca: bytes, namespace: str = "default") -> None:
    """Writes a kubeconfig with one context, mode 0600: it carries a token. `ca` is PEM."""
    authority = base64.b64encode(ca).decode()
    cluster = {"server": url, "certificate-authority-data": authority}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": CONTEXT, "cluster": cluster}],
        "users": [{"name": CONTEXT, "user": {"token": token}}],
        "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": CONTEXT, "namespace": namespace}}],
        "current-context": CONTEXT,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_private(path, yaml.safe_dump(content, sort_keys=False).encode())
