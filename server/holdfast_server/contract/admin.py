"""The JSON of the admin API, below `names.ADMIN_PREFIX`; every request is signed (SigV4, service `s3`).

    GET    /info                        → TenantInfo      every pod is asked
    GET    /users                       → list[UserInfo]
    PUT    /users/{accessKey}           ← UserSpec        create or replace, idempotent
    DELETE /users/{accessKey}                             204 also when absent
    GET    /accounts                    → list[AccountInfo]
    PUT    /accounts/{name}             ← AccountSpec     create or replace, idempotent
    DELETE /accounts/{name}                               204 also when absent; its users and buckets stay
    POST   /users/reseal                → Resealed        users' secrets under the pod's own peer key
    GET    /policies                    → list[str]
    PUT    /policies/{name}             ← an IAM policy document (AWS's language), 400 with the field if bad
    DELETE /policies/{name}                               204 also when absent
    GET    /heal                        → HealStatus      every pod is asked
    POST   /heal/scan                   → ScanStarted     every pod begins a scan pass now
    GET    /heal/stuck                  → list[StuckObject]
    POST   /heal/resolve                ← Resolve         → Resolved; 404 where nothing is stuck there, 409 where
                                                          the decision cannot be carried out, 503 while a drive is away

Errors are JSON too: {"code": "...", "message": "..."} with the S3 status codes.
Built-in policies that always exist: readonly, readwrite, writeonly, diagnostics, consoleAdmin.
Any pod answers for the whole tenant; one that it cannot reach in time is listed with `answers` false, and what
is told of its drives is what the answering pod knows.
"""

from __future__ import annotations

from typing import Any

import msgspec

from holdfast_server.contract.buckets import TenantUsage
from holdfast_server.contract.healing import FillingProgress, HealProgress, ScannerProgress
from holdfast_server.contract.health import DriveHealth, SetHealth


class _Struct(msgspec.Struct, frozen=True, rename="camel"):
    pass


class UserSpec(_Struct, frozen=True, kw_only=True):
    secret_key: str
    name: str = ""
    """The declared name, for people and ARNs; the access key where empty."""
    policies: list[str] = []
    enabled: bool = True
    former_secret_keys: list[str] = []
    """Of before, and valid too: while the secret of the same access key changes."""
    account: str = ""
    """Whom its buckets belong to; the tenant's own account where empty."""
    account_root: bool = False
    """May do everything in its account."""
    expires_ms: int = 0
    """When the key ends, in milliseconds since the epoch; never where 0."""
    policy: dict[str, Any] | None = None
    """A policy that has to allow it, beside those of the user."""


class AccountSpec(_Struct, frozen=True, kw_only=True):
    display_name: str = ""
    """The account's name where empty."""


class AccountInfo(_Struct, frozen=True, kw_only=True):
    name: str
    """Empty: the tenant's own."""
    display_name: str = ""
    id: str = ""
    """As ARNs show it."""
    canonical_id: str = ""
    """As grants show it."""
    declared: bool = False
    """Else it is there because a user is in it."""


class UserInfo(_Struct, frozen=True, kw_only=True):
    access_key: str
    name: str = ""
    policies: list[str] = []
    enabled: bool = True
    account: str = ""
    account_root: bool = False
    expires_ms: int = 0
    limited: bool = False
    """The key has a policy of its own."""
    by_clients: bool = False
    """The key was made through the IAM API."""


class Resealed(_Struct, frozen=True, kw_only=True):
    done: int
    left: int
    """Changed by somebody meanwhile: ask again."""
    unreadable: int
    """Sealed with a peer key that this pod does not know; such users are locked out."""


class AdminError(_Struct, frozen=True, kw_only=True):
    code: str
    message: str


class PodState(_Struct, frozen=True, kw_only=True):
    """What a pod says of itself, to its peers too."""

    pod: str
    pool: str
    ordinal: int
    version: str = ""
    epoch: int = 0
    started_ms: int = 0
    drives: list[DriveHealth] = []
    """Its own."""
    healing: HealProgress = HealProgress()


class PodInfo(_Struct, frozen=True, kw_only=True):
    """One pod of the tenant, as far as it could be asked."""

    pod: str
    pool: str
    ordinal: int
    answers: bool
    message: str = ""
    """Why it does not answer, or what it has to say."""
    version: str = ""
    epoch: int = 0
    started_ms: int = 0


class Capacity(_Struct, frozen=True, kw_only=True):
    """Of the drives that answer."""

    raw_bytes: int = 0
    usable_bytes: int = 0
    """What remains for data beside parity."""
    used_bytes: int = 0
    """Raw."""


class TenantInfo(_Struct, frozen=True, kw_only=True):
    healthy: bool
    """Every set has its write quorum."""
    epoch: int
    answered_by: str
    """The pod that was asked first."""
    message: str = ""
    pods: list[PodInfo] = []
    sets: list[SetHealth] = []
    drives: list[DriveHealth] = []
    capacity: Capacity = Capacity()
    usage: TenantUsage = TenantUsage()


class StuckObject(_Struct, frozen=True, kw_only=True):
    """See `healing.StuckRegister`; with the bucket's name."""

    pool: str
    set_index: int
    kind: str
    bucket: str
    """Name; the id where no bucket of that id is left."""
    key: str
    version: str
    copies: int
    copies_needed: int
    since_ms: int


class HealDrive(_Struct, frozen=True, kw_only=True):
    """One drive and what is done about it."""

    pool: str
    set_index: int
    position: int
    pod: str
    volume: int
    state: str
    message: str = ""
    full: bool = False
    """Serves, and takes no new data for want of room."""
    queue_length: int = 0
    oldest_entry_seconds: float = 0.0
    filling: FillingProgress | None = None
    scanner: ScannerProgress = ScannerProgress()


class HealSet(_Struct, frozen=True, kw_only=True):
    pool: str
    index: int
    set_size: int
    online: int
    healing: int
    writable: bool
    readable: bool
    losses_left: int
    """Drives that may be lost now while writes go on and nothing becomes unreadable."""
    queue_length: int = 0
    """Registers that wait for repair: the longest queue of the set's drives, for holders keep the same entries."""
    oldest_entry_seconds: float = 0.0
    stuck: int = 0


class HealStatus(_Struct, frozen=True, kw_only=True):
    whole: bool
    """Every pod answers, every drive serves and has room, nothing waits for repair and nothing is stuck."""
    findings: list[str] = []
    """For people: what is not as it should be, and what becomes of it; worst first."""
    silent_pods: list[str] = []
    sets: list[HealSet] = []
    drives: list[HealDrive] = []
    stuck: list[StuckObject] = []
    """Samples; `HealSet.stuck` has the number."""
    registers_repaired: int = 0
    copies_made: int = 0
    failed: int = 0
    drives_filled: int = 0
    read_repairs: int = 0


class ScanStarted(_Struct, frozen=True, kw_only=True):
    started: list[str]
    """Pods that have begun."""
    silent_pods: list[str] = []


class Resolve(_Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    bucket: str
    """Name, or id, as `StuckObject` has it; ignored for a document."""
    key: str
    kind: str = "object"
    keep: bool
    """True: make the version committed from the copies there are.  False: take it back."""
    version: str = ""
    """Hexadecimal, as `StuckObject` has it."""


class Resolved(_Struct, frozen=True, kw_only=True):
    outcome: str
