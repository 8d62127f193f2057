"""The tenant's encryption keys in one pass: read, the first one made, compared with what there has ever been.

The Secret is `<t>-encryption`, or one that the Tenant names; every entry is a key (`contract.encryption_keys`), and the
pods have it mounted.  The operator makes the first key, once, and adds none: keys are added by people.  It writes down
in the ledger which keys there have been, as fingerprints; so it knows when one is gone or has become another.  Then
nothing is made anew, which could not decrypt anything; the condition `EncryptionReady` says what is missing, and no pod
is replaced, nor may a drain take one: those that run may have the keys still.

A key that is needed no more is named in `spec.encryption.retiredKeys` and may go.

Not here: what the pods do with keys (`holdfast_server.api.encryption`), backups of the Secret, which are people's.
"""

from __future__ import annotations

import base64
import binascii
import errno
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from holdfast_operator import labels
from holdfast_operator.desired.secret_data import render_secret
from holdfast_operator.kube.errors import REFUSALS
from holdfast_operator.kube.port import SECRET, KubeClient, Manifest
from holdfast_operator.ledger import Ledger
from holdfast_operator.observe.health import PodView
from holdfast_operator.status.conditions import Finding
from holdfast_operator.tenant.spec import EncryptionSpec, TenantSpec
from holdfast_server.contract.encryption_keys import (
    DEFAULT_KEY,
    EncryptionKeyError,
    decode_ring,
    fingerprint,
    parse_entry,
)
from holdfast_server.contract.wording import first_of

FIRST_KEY = f"{DEFAULT_KEY}.1"
LOST, EXCHANGED = "KeysLost", "KeysExchanged"
NAMED_AT_MOST = 4
_NO_SUCH_FOLDER = os.strerror(errno.ENOENT)

MintKey = Callable[[], str]
"""Thirty-two random bytes, base64."""


@dataclass(frozen=True, slots=True)
class EncryptionStep:
    """What a pass found."""

    tenant: TenantSpec
    keys: Mapping[str, str] = field(default_factory=dict)
    """Entry → fingerprint, of what is in the Secret now."""
    trouble: tuple[str, str] | None = None
    secret: Manifest | None = None
    """That of the keys, where there is one that may be used."""
    had: bool = False
    """Whether there have been keys that objects may be encrypted under."""

    @property
    def lost(self) -> bool:
        """Whether keys are gone that objects may be encrypted under."""
        return self.trouble is not None and self.trouble[0] in (LOST, EXCHANGED)

    @property
    def spares_pods(self) -> bool:
        """Whether pods that were replaced now could not decrypt what those that run can: they would find no keys, or
        others."""
        return self.trouble is not None and self.had

    def advance(self, ledger: Ledger) -> Ledger:
        """With every key that has been seen; what was written down once is kept, unless it is retired and gone, or has
        become another."""
        wanted = self.tenant.encryption
        if wanted is None:
            return ledger
        known = {
            entry: mark
            for entry, mark in ledger.encryption_keys.items()
            if entry not in wanted.retired_keys or self.keys.get(entry) == mark
        }
        # Written down from the pods' configuration alone: which it was is known only now.
        unmarked = {entry: self.keys[entry] for entry, mark in known.items() if not mark and entry in self.keys}
        return msgspec.structs.replace(ledger, encryption_keys={**self.keys, **known, **unmarked})

    def finding(self, ledger: Ledger, views: Sequence[PodView]) -> Finding | None:
        """The condition EncryptionReady; None where there is no encryption."""
        wanted = self.tenant.encryption
        if wanted is None:
            return None
        if self.trouble is not None:
            reason, message = self.trouble
            return Finding("EncryptionReady", False, reason, message + self._spared(ledger, wanted, views))
        # A pod of before `spec.encryption` has no such folder: it is to be replaced, and its Secret is as it should be.
        messages = [view.health.encryption.message for view in views]
        told = [message for message in messages if message and not message.endswith(_NO_SUCH_FOLDER)]
        if told:
            return Finding("EncryptionReady", False, "PodsCannotUseIt", "; ".join(dict.fromkeys(told)))
        behind = [view for view in views if not set(self.keys.values()) <= set(view.health.encryption.fingerprints)]
        if behind:
            named = [labels.pod_name(self.tenant.name, view.pool, view.ordinal) for view in behind]
            message = f"keys are used once every pod has them; waiting for {first_of(named, NAMED_AT_MOST)}"
            return Finding("EncryptionReady", False, "KeysSpreading", message)
        return Finding("EncryptionReady", True, "KeysInUse", f"new objects are encrypted under {self._newest()}")

    def _spared(self, ledger: Ledger, wanted: EncryptionSpec, views: Sequence[PodView]) -> str:
        """That no pod is replaced, and which answer without keys that are needed and not in the Secret."""
        if not self.spares_pods:
            return ""
        kept = ". No pod is replaced or drained: those that run may have the keys still"
        gone = {
            mark
            for entry in _ever_had(ledger, wanted)
            if (mark := ledger.encryption_keys[entry]) and self.keys.get(entry) != mark
        }
        bare = [view for view in views if not gone <= set(view.health.encryption.fingerprints)]
        if not bare:
            return kept
        named = first_of([labels.pod_name(self.tenant.name, view.pool, view.ordinal) for view in bare], NAMED_AT_MOST)
        told = f"{kept}. Pods without the keys of before: {named}; what is encrypted under those cannot be read there"
        if not all(view.health.encryption.fingerprints for view in bare):
            return f"{told}, and what is to be encrypted is refused by all pods"
        if self.lost and not any(parse_entry(entry).name == DEFAULT_KEY for entry in self.keys):
            return f"{told}, and what is to be encrypted under {DEFAULT_KEY} is refused"
        return told

    def _newest(self) -> str:
        newest: dict[str, str] = {}
        for entry in sorted(self.keys, key=lambda entry: parse_entry(entry).generation):
            newest[parse_entry(entry).name] = entry
        return first_of(sorted(newest.values()), NAMED_AT_MOST)


async def settle_encryption(
    kube: KubeClient, direct: KubeClient, tenant: TenantSpec, ledger: Ledger, mint: MintKey
) -> EncryptionStep:
    """`direct`: asked before anything is made, where `kube` may have an old view.  Raises KubeError."""
    wanted = tenant.encryption
    if wanted is None:
        return EncryptionStep(tenant)
    step = await _settle(kube, direct, tenant, wanted, ledger, mint)
    return replace(step, had=bool(_ever_had(ledger, wanted)))


async def _settle(
    kube: KubeClient, direct: KubeClient, tenant: TenantSpec, wanted: EncryptionSpec, ledger: Ledger, mint: MintKey
) -> EncryptionStep:
    name = labels.encryption_secret_name(tenant.name) if wanted.secret_name is None else wanted.secret_name
    secret = await kube.get(SECRET, tenant.namespace, name)
    if secret is None:
        secret = await direct.get(SECRET, tenant.namespace, name)
    if secret is None:
        if wanted.secret_name is not None or _ever_had(ledger, wanted):
            return EncryptionStep(tenant, trouble=_missing(name, ledger, wanted))
        try:
            secret = await kube.create(_first_secret(tenant, name, mint()))
        except REFUSALS as error:
            return EncryptionStep(tenant, trouble=("SecretNotMade", f"Secret {name} cannot be made: {error}"))
    if wanted.secret_name is None and not labels.is_labelled_for(secret, tenant.name):
        message = labels.strange_secret_words(name, tenant.name)
        return EncryptionStep(tenant, trouble=("SecretNotOurs", message))
    return replace(_compared(tenant, wanted, name, secret, ledger), secret=secret)


def _first_secret(tenant: TenantSpec, name: str, key: str) -> Manifest:
    """Outlives the Tenant with its data."""
    owned = tenant.claim_retention == "Delete"
    return render_secret(tenant, name, {FIRST_KEY: key}, labels.COMPONENT_KEPT, owned=owned)


async def settle_owner(kube: KubeClient, step: EncryptionStep) -> None:
    """The operator's own Secret goes with the Tenant if the claims do.  Its content is never written again: people add
    to it.  Raises KubeError."""
    tenant, secret = step.tenant, step.secret
    if secret is None or tenant.encryption is None or tenant.encryption.secret_name is not None:
        return
    wanted = _first_secret(tenant, secret["metadata"]["name"], "")["metadata"].get("ownerReferences") or []
    if [owner.get("uid") for owner in secret["metadata"].get("ownerReferences") or []] != [
        owner["uid"] for owner in wanted
    ]:
        await kube.merge(secret, {"metadata": {"ownerReferences": wanted}})


def _ever_had(ledger: Ledger, wanted: EncryptionSpec) -> list[str]:
    return sorted(set(ledger.encryption_keys) - set(wanted.retired_keys))


def _missing(name: str, ledger: Ledger, wanted: EncryptionSpec) -> tuple[str, str]:
    had = _ever_had(ledger, wanted)
    if not had:
        return (
            "SecretMissing",
            f"Secret {name} does not exist, which spec.encryption.secretRef names: make it, with a key {FIRST_KEY}",
        )
    return LOST, _lost_words(name, had)


def _lost_words(name: str, entries: Sequence[str]) -> str:
    return (
        f"Secret {name} has {first_of(entries, NAMED_AT_MOST)} no longer, under which objects may be encrypted: "
        "put it back from a backup. "
        "Nothing is made anew. A key that nothing is encrypted under any more is named in "
        "spec.encryption.retiredKeys"
    )


def _compared(
    tenant: TenantSpec, wanted: EncryptionSpec, name: str, secret: Manifest, ledger: Ledger
) -> EncryptionStep:
    try:
        ring = decode_ring(_files(secret))
    except EncryptionKeyError as error:
        return EncryptionStep(tenant, trouble=("KeysInvalid", f"Secret {name}: {'; '.join(str(error).splitlines())}"))
    keys = {entry: fingerprint(entry, key).hex() for entry, key in ring.items()}
    gone = [entry for entry in _ever_had(ledger, wanted) if entry not in keys]
    if gone:
        return EncryptionStep(tenant, keys, (LOST, _lost_words(name, gone)))
    noted = ((entry, ledger.encryption_keys[entry]) for entry in _ever_had(ledger, wanted))
    others = [entry for entry, mark in noted if mark and keys[entry] != mark]
    if others:
        message = (
            f"Secret {name}: {', '.join(others[:NAMED_AT_MOST])} is another key than it was: put the former one back, "
            "and give the new one a name or a generation of its own"
        )
        return EncryptionStep(tenant, keys, (EXCHANGED, message))
    if not keys:
        return EncryptionStep(tenant, keys, ("KeysInvalid", f"Secret {name} has no key: add one named {FIRST_KEY}"))
    return EncryptionStep(tenant, keys)


def _files(secret: Manifest) -> dict[str, bytes]:
    """As the pods see them."""
    files = {}
    for entry, text in (secret.get("data") or {}).items():
        try:
            files[entry] = base64.b64decode(text or "")
        except binascii.Error:
            files[entry] = b""
    return files
