"""The content of Secrets: text by key here, base64 in the API.  Pure.

Not here: which Secrets a tenant has and what is in them (`secrets`, `tls`), whose a Secret is (`labels`).
"""

from __future__ import annotations

import base64
import binascii

from holdfast_operator.desired.metadata import render_metadata
from holdfast_operator.kube.port import Manifest
from holdfast_operator.tenant.spec import TenantSpec


def render_secret(tenant: TenantSpec, name: str, data: dict[str, str], component: str, *, owned: bool) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": render_metadata(tenant, name, component=component, owned=owned),
        "type": "Opaque",
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in sorted(data.items())},
    }


def decoded(secret: Manifest) -> dict[str, str]:
    """What is not text is left out: it is told as missing, if it is one of the keys that are needed."""
    values = {}
    for key, text in (secret.get("data") or {}).items():
        try:
            values[key] = base64.b64decode(text or "").decode()
        except (binascii.Error, UnicodeDecodeError):
            continue
    return values
