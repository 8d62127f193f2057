"""The last spec of a Tenant that could be honoured, kept so that one that cannot does not stop what keeps pods alive.

A spec that is refused must change nothing; but what was accepted before goes on to need care: certificates end,
disruption budgets follow the drives, Secrets get deleted.  That care needs a whole spec (names, modes, users), so the
last accepted one is written down in the Secret `<t>-accepted-spec`, before anything acts on it, and a pass over a
refused spec works with what is written there (`choose_spec`).

Invariants: it is believed only if it belongs to this very Tenant (owner reference), so that a Tenant made anew never
runs by the spec of its predecessor; and only after it was parsed and compared with the ledger like any other, so that
what was meddled with, or what this version of the operator refuses, counts as absent; but for values that are passed on
as they stand in any case, and that an earlier operator did not look at.  A Secret, since who may write
those rules the tenant anyway; compressed, because a Tenant may be larger than a Secret.  Not here: what is left undone
while a spec is refused (`reconcile`).
"""

from __future__ import annotations

import base64
import binascii
import gzip
import json
import zlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from holdfast_operator import labels
from holdfast_operator.apply import is_owned_by
from holdfast_operator.desired.secret_data import decoded, render_secret
from holdfast_operator.gather import Gathered
from holdfast_operator.kube.port import SECRET, KubeClient, Manifest
from holdfast_operator.ledger import check_against_ledger
from holdfast_operator.tenant.fields import Fault
from holdfast_operator.tenant.parse import parse_tenant
from holdfast_operator.tenant.spec import TenantSpec
from holdfast_operator.tenant_keys import CredentialsFault

KEY = "spec"
"""base64 of the compressed JSON: text, since tools and people take the values of Secrets for that."""
MAX_SIZE_BYTES = 8 << 20
"""Of the document; more cannot have been a Tenant, which an API server bounds by less."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What a pass works with."""

    tenant: TenantSpec | None
    """None where the spec is refused and none is on record that can be honoured."""
    gathered: Gathered | None = None
    """The keys for `tenant`; None without it, or where they are in trouble."""
    faults: tuple[Fault, ...] = ()
    """Why the Tenant's own spec is refused; then `tenant` is the accepted one."""
    trouble: CredentialsFault | None = None


async def choose_spec(kube: KubeClient, body: Manifest, gather: Callable[[TenantSpec], Awaitable[Gathered]]) -> Choice:
    """The Tenant's own spec where it can be honoured, else the last one that could.

    `gather` reads the keys for a spec, and with them the ledger it is compared with.  Raises KubeError."""
    parsed = parse_tenant(body)
    faults = parsed.faults
    if parsed.spec is not None:
        choice = await _with_keys(parsed.spec, (), gather)
        faults = _contradictions(choice)
        if not faults:
            return choice
    name = labels.accepted_spec_name(body["metadata"]["name"])
    accepted = read_accepted_spec(body, await kube.get(SECRET, body["metadata"]["namespace"], name))
    if accepted is not None:
        choice = await _with_keys(accepted, faults, gather)
        if not _contradictions(choice):
            return choice
    return Choice(None, faults=faults)


async def _with_keys(
    tenant: TenantSpec, faults: tuple[Fault, ...], gather: Callable[[TenantSpec], Awaitable[Gathered]]
) -> Choice:
    try:
        return Choice(tenant, await gather(tenant), faults)
    except CredentialsFault as fault:
        return Choice(tenant, None, faults, fault)


def _contradictions(choice: Choice) -> tuple[Fault, ...]:
    """Of the chosen spec with the ledger; none while that cannot be read, which is told instead."""
    if choice.tenant is None or choice.gathered is None:
        return ()
    return check_against_ledger(choice.tenant, choice.gathered.ledger)


def render_accepted_spec(tenant: TenantSpec, document: Mapping[str, Any]) -> Manifest:
    """The record of `document`, the `spec` that `tenant` was parsed from."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    packed = gzip.compress(text.encode(), mtime=0)
    name = labels.accepted_spec_name(tenant.name)
    return render_secret(tenant, name, {KEY: base64.b64encode(packed).decode()}, labels.COMPONENT_STORAGE, owned=True)


def read_accepted_spec(body: Manifest, record: Manifest | None) -> TenantSpec | None:
    """What is on record for this Tenant; None where there is nothing that can be honoured."""
    metadata = body["metadata"]
    if record is None or not labels.is_labelled_for(record, metadata["name"]):
        return None
    if not is_owned_by(record, metadata["uid"]):
        return None
    try:
        packed = base64.b64decode(decoded(record).get(KEY, ""), validate=True)
        text = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16).decompress(packed, MAX_SIZE_BYTES)
        document = json.loads(text)
    except (binascii.Error, zlib.error, ValueError, RecursionError):
        return None
    return parse_tenant({**body, "spec": document}).kept
