"""Which calls bring the store to what the Tenant declares.  Pure.

Users and buckets are written into the ledger *before* they are made, so that one left over from a crash, or
from an earlier life of the Tenant, is found and taken back.  A bucket is deleted only if it was declared with
`deletionPolicy: Delete`, and the store deletes only empty buckets.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from holdfast_operator.credentials import KeyPair
from holdfast_operator.ledger import Ledger
from holdfast_operator.provision.bucket_settings import settings_of
from holdfast_operator.provision.policy import generated_policy_name, render_policy
from holdfast_operator.tenant.spec import TenantSpec
from holdfast_operator.tenant_keys import TenantCredentials

Item = tuple[str, str]
"""Kind (`bucket`, `policy`, `account`, `user`) and name of something that is declared."""


@dataclass(frozen=True, slots=True)
class UserKey:
    """One access key of a user; while only its secret changes, the former ones are valid too."""

    access_key: str
    secret_key: str = field(repr=False)
    former_secret_keys: tuple[str, ...] = field(repr=False, default=())


@dataclass(frozen=True, slots=True)
class UserTask:
    name: str
    keys: tuple[UserKey, ...]
    """Several while keys change."""
    account: str = ""
    """The tenant's own if empty."""
    account_root: bool = False
    policies: tuple[str, ...] = ()
    own_policy: Mapping[str, Any] | None = None
    """The generated policy of its buckets, if it has any."""
    stale_access_keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ProvisionPlan:
    buckets: tuple[str, ...] = ()
    settings: tuple[tuple[str, Mapping[str, bytes | None]], ...] = ()
    """Of buckets that declare any: see `bucket_settings.settings_of`."""
    policies: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    accounts: tuple[tuple[str, str], ...] = ()
    """Name and display name."""
    users: tuple[UserTask, ...] = ()
    departed_accounts: tuple[str, ...] = ()
    departed_users: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Users that are declared no more, with the access keys to remove."""
    departed_policies: tuple[str, ...] = ()
    doomed_buckets: tuple[str, ...] = ()
    """Buckets that are declared no more and may go if they are empty."""

    def part(self, items: Collection[Item]) -> ProvisionPlan:
        """What it says of these, and of nothing that leaves."""
        return ProvisionPlan(
            buckets=tuple(name for name in self.buckets if ("bucket", name) in items),
            settings=tuple((name, settings) for name, settings in self.settings if ("bucket", name) in items),
            policies=tuple((name, document) for name, document in self.policies if ("policy", name) in items),
            accounts=tuple((name, shown) for name, shown in self.accounts if ("account", name) in items),
            users=tuple(task for task in self.users if ("user", task.name) in items),
        )

    def fingerprint(self) -> str:
        """The same for the same plan; tells whether anything has to be done again."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()


def note_intentions(ledger: Ledger, tenant: TenantSpec, credentials: TenantCredentials) -> Ledger:
    """The ledger with everything that is about to be made; nothing is dropped from it here, but for buckets
    that leave the spec and are to be kept."""
    users = dict(ledger.users)
    for name in credentials.users:
        made = {pair.access_key for pair in credentials.user_pairs(name)}
        users[name] = tuple(sorted({*users.get(name, ()), *made}))
    buckets = {name: policy for name, policy in ledger.buckets.items() if policy == "Delete"}
    buckets.update({bucket.name: bucket.deletion_policy for bucket in tenant.buckets})
    policies = {*ledger.policies, *(policy.name for policy in tenant.policies)}
    accounts = {*ledger.accounts, *(account.name for account in tenant.accounts)}
    return msgspec.structs.replace(
        ledger,
        users=users,
        buckets=dict(sorted(buckets.items())),
        policies=tuple(sorted(policies)),
        accounts=tuple(sorted(accounts)),
    )


def plan_provisioning(tenant: TenantSpec, credentials: TenantCredentials, ledger: Ledger) -> ProvisionPlan:
    in_use = {pair.access_key for pair in credentials.book.root.accepted}
    in_use |= {pair.access_key for name in credentials.users for pair in credentials.user_pairs(name)}
    tasks = []
    for user in tenant.users:
        if user.name not in credentials.users:
            continue
        own = (generated_policy_name(user.name),) if user.buckets else ()
        tasks.append(
            UserTask(
                name=user.name,
                keys=user_keys(credentials.user_pairs(user.name)),
                account=user.account,
                account_root=user.account_root,
                policies=(*user.policies, *own),
                own_policy=render_policy(user.buckets) if user.buckets else None,
                stale_access_keys=tuple(key for key in ledger.users.get(user.name, ()) if key not in in_use),
            )
        )
    declared_users = {user.name for user in tenant.users}
    declared_buckets = {bucket.name for bucket in tenant.buckets}
    declared_policies = {policy.name for policy in tenant.policies}
    return ProvisionPlan(
        buckets=tuple(bucket.name for bucket in tenant.buckets),
        settings=tuple((bucket.name, settings) for bucket in tenant.buckets if (settings := settings_of(bucket))),
        policies=tuple((policy.name, policy.document) for policy in tenant.policies),
        accounts=tuple((account.name, account.display_name) for account in tenant.accounts),
        users=tuple(tasks),
        departed_accounts=tuple(
            name for name in ledger.accounts if name not in {account.name for account in tenant.accounts}
        ),
        departed_users=tuple(
            (name, tuple(key for key in keys if key not in in_use))
            for name, keys in ledger.users.items()
            if name not in declared_users
        ),
        departed_policies=tuple(name for name in ledger.policies if name not in declared_policies),
        doomed_buckets=tuple(
            name for name, policy in ledger.buckets.items() if policy == "Delete" and name not in declared_buckets
        ),
    )


def user_keys(pairs: Sequence[KeyPair]) -> tuple[UserKey, ...]:
    """Pairs, latest first, as the store keeps them: by access key."""
    secrets: dict[str, list[str]] = {}
    for pair in pairs:
        secrets.setdefault(pair.access_key, []).append(pair.secret_key)
    return tuple(UserKey(key, latest, tuple(former)) for key, (latest, *former) in secrets.items())


@dataclass(frozen=True, slots=True)
class Removed:
    """What is certainly gone from the store."""

    users: tuple[str, ...] = ()
    access_keys: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    buckets: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()


def forget(ledger: Ledger, removed: Removed) -> Ledger:
    """The ledger without what is gone."""
    gone = set(removed.access_keys)
    users = {
        name: tuple(key for key in keys if key not in gone)
        for name, keys in ledger.users.items()
        if name not in removed.users
    }
    return msgspec.structs.replace(
        ledger,
        users=users,
        policies=tuple(name for name in ledger.policies if name not in removed.policies),
        accounts=tuple(name for name in ledger.accounts if name not in removed.accounts),
        buckets={name: policy for name, policy in ledger.buckets.items() if name not in removed.buckets},
    )
