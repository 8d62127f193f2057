"""Makes the planned calls and says of each bucket and user what became of it.

One item's failure does not hold up the others, be it a bucket of which the store says nothing but 5xx; but for a store
that does not answer at all, or answers so to one item after another: then everything that is left stays `Pending`.  So
it does when `MAX_SECONDS` have passed: what was made is known, and whoever calls again goes on behind it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from holdfast_operator.provision.bucket_settings import OWNER, account_of
from holdfast_operator.provision.client import (
    ALREADY_THERE,
    StoreClient,
    StoreError,
    StoreFailed,
    StoreRefused,
    StoreUnavailable,
)
from holdfast_operator.provision.plan import Item, ProvisionPlan, Removed, UserKey, UserTask
from holdfast_operator.provision.policy import generated_policy_name
from holdfast_operator.provision.together import together
from holdfast_server.contract.admin import UserSpec

FAILURES_IN_A_ROW = 3
"""Items that are answered 5xx one after the other before that counts as no answer."""
MAX_SECONDS = 60.0
"""Half of a pass's time limit: one that ran into it would have made nothing that is remembered, and begin anew."""

Call = Callable[[], Awaitable[None]]

ItemState = Literal["Ready", "Pending", "Failed", "NotEmpty"]


@dataclass(frozen=True, slots=True)
class ItemStatus:
    name: str
    state: ItemState
    message: str = ""


@dataclass(frozen=True, slots=True)
class Provisioned:
    """The outcome; `complete` when nothing has to be called again for the same plan."""

    buckets: tuple[ItemStatus, ...] = ()
    users: tuple[ItemStatus, ...] = ()
    accounts: tuple[ItemStatus, ...] = ()
    policies: tuple[ItemStatus, ...] = ()
    """Declared policies that could not be made, and removals that failed."""
    removed: Removed = field(default_factory=Removed)
    made: frozenset[Item] = frozenset()
    """What is declared and as it should be."""

    @property
    def complete(self) -> bool:
        return all(item.state == "Ready" for item in self._items)

    @property
    def pending(self) -> bool:
        """Whether of anything the store has not said yes or no."""
        return any(item.state == "Pending" for item in self._items)

    @property
    def _items(self) -> tuple[ItemStatus, ...]:
        return (*self.buckets, *self.accounts, *self.users, *self.policies)


def pending(plan: ProvisionPlan, message: str) -> Provisioned:
    """Nothing was called; every item waits for the same reason."""
    return Provisioned(
        buckets=tuple(ItemStatus(name, "Pending", message) for name in plan.buckets),
        accounts=tuple(ItemStatus(name, "Pending", message) for name, _ in plan.accounts),
        users=tuple(ItemStatus(task.name, "Pending", message) for task in plan.users),
    )


async def execute(
    plan: ProvisionPlan, store: StoreClient, made: Collection[Item] = (), max_seconds: float = MAX_SECONDS
) -> Provisioned:
    """Policies come before the users that have them, and departures last.  `made`: what need not be made again."""
    run = _Run(store, made, asyncio.get_running_loop().time() + max_seconds)
    settings = dict(plan.settings)
    buckets = await run.all_declared(
        "bucket", [(name, partial(run.make_bucket, name, settings.get(name, {}))) for name in plan.buckets]
    )
    policies = await run.all_declared(
        "policy", [(name, partial(store.put_policy, name, document)) for name, document in plan.policies]
    )
    # One by one: the store looks among all of them whether two would have one number.
    accounts = [
        await run.declared("account", name, partial(store.put_account, name, shown)) for name, shown in plan.accounts
    ]
    users = await run.all_declared("user", [(task.name, partial(run.make_user, task)) for task in plan.users])
    policies += await run.all(
        [(f"user {name}", partial(run.remove_user, name, keys)) for name, keys in plan.departed_users]
    )
    policies += await run.all(
        [(f"account {name}", partial(run.remove_account, name)) for name in plan.departed_accounts]
    )
    policies += await run.all([(name, partial(run.remove_policy, name)) for name in plan.departed_policies])
    doomed = await run.all([(name, partial(run.remove_bucket, name)) for name in plan.doomed_buckets])
    buckets += [outcome for outcome in doomed if outcome.state != "Ready"]
    return Provisioned(
        buckets=tuple(buckets),
        accounts=tuple(accounts),
        users=tuple(users),
        policies=tuple(item for item in policies if item.state != "Ready"),
        removed=Removed(
            users=tuple(run.users),
            access_keys=tuple(run.access_keys),
            policies=tuple(run.policies),
            buckets=tuple(run.buckets),
            accounts=tuple(run.accounts),
        ),
        made=frozenset(run.made),
    )


def user_spec(task: UserTask, key: UserKey) -> UserSpec:
    """The user as the store shall have it under one of its access keys."""
    return UserSpec(
        secret_key=key.secret_key,
        name=task.name,
        policies=list(task.policies),
        former_secret_keys=list(key.former_secret_keys),
        account=task.account,
        account_root=task.account_root,
    )


class SettingsRefused(StoreError):
    """The bucket is there; these of its settings were refused."""

    def __init__(self, refusals: Mapping[str, StoreRefused]) -> None:
        super().__init__("; ".join(f"{setting}: {error}" for setting, error in refusals.items()))


class _Run:
    """One execution: what it has removed so far, and whether the store still answers."""

    def __init__(self, store: StoreClient, made: Collection[Item], until: float) -> None:
        """`until`: in the loop's time."""
        self._store = store
        self._until = until
        self.made = set(made)
        self._silence = ""
        self._failures = 0
        """In a row, as they came to their ends."""
        self.users: list[str] = []
        self.access_keys: list[str] = []
        self.policies: list[str] = []
        self.buckets: list[str] = []
        self.accounts: list[str] = []

    async def all_declared(self, kind: str, items: Sequence[tuple[str, Call]]) -> list[ItemStatus]:
        """Several at a time."""
        return await together([partial(self.declared, kind, name, call) for name, call in items])

    async def all(self, items: Sequence[tuple[str, Call]]) -> list[ItemStatus]:
        """The same, of what is not declared."""
        return await together([partial(self.item, name, call) for name, call in items])

    async def declared(self, kind: str, name: str, call: Call) -> ItemStatus:
        if (kind, name) in self.made:
            return ItemStatus(name, "Ready")
        status = await self.item(name, call)
        if status.state == "Ready":
            self.made.add((kind, name))
        return status

    async def item(self, name: str, call: Call) -> ItemStatus:
        if self._silence:
            return ItemStatus(name, "Pending", self._silence)
        failed = False
        try:
            async with asyncio.timeout_at(self._until):
                await call()
        except TimeoutError:
            self._silence = "there was no time for it yet"
            return ItemStatus(name, "Pending", self._silence)
        except StoreFailed as error:
            failed = True
            if self._failures + 1 >= FAILURES_IN_A_ROW:
                self._silence = f"the store does not answer: {error}"
            return ItemStatus(name, "Pending", f"the store does not answer: {error}")
        except StoreUnavailable as error:
            self._silence = f"the store does not answer: {error}"
            return ItemStatus(name, "Pending", self._silence)
        except StoreRefused as error:
            state: ItemState = "NotEmpty" if error.code == "BucketNotEmpty" else "Failed"
            return ItemStatus(name, state, str(error))
        except StoreError as error:
            return ItemStatus(name, "Failed", str(error))
        finally:
            self._failures = self._failures + 1 if failed else 0
        return ItemStatus(name, "Ready")

    async def make_bucket(self, name: str, settings: Mapping[str, bytes | None]) -> None:
        """A setting that is refused holds up none of the others; all refusals are told."""
        try:
            await self._store.create_bucket(name, of_any_account=OWNER in settings)
        except StoreRefused as error:
            raise await self._whose(name, error) from error
        refusals: dict[str, StoreRefused] = {}
        for setting, document in settings.items():
            try:
                await self._store.put_bucket_setting(name, setting, document)
            except StoreRefused as error:
                refusals[setting] = error
        if refusals:
            raise SettingsRefused(refusals)

    async def _whose(self, name: str, error: StoreRefused) -> StoreRefused:
        """The refusal, with what to do where the bucket is another account's: nobody else's is taken over unasked."""
        if error.code != ALREADY_THERE:
            return error
        owner = account_of(await self._store.bucket_setting(name, OWNER))
        return StoreRefused(
            error.code, f"it is there and belongs to the account {owner!r}: spec.buckets[].owner has to say so"
        )

    async def make_user(self, task: UserTask) -> None:
        if task.own_policy is not None:
            await self._store.put_policy(generated_policy_name(task.name), task.own_policy)
        for key in task.keys:
            await self._store.put_user(key.access_key, user_spec(task, key))
        if task.own_policy is None:
            await self._store.delete_policy(generated_policy_name(task.name))
        for stale in task.stale_access_keys:
            await self._store.delete_user(stale)
            self.access_keys.append(stale)

    async def remove_user(self, name: str, access_keys: tuple[str, ...]) -> None:
        for key in access_keys:
            await self._store.delete_user(key)
        await self._store.delete_policy(generated_policy_name(name))
        self.users.append(name)

    async def remove_account(self, name: str) -> None:
        """Its users and buckets stay."""
        await self._store.delete_account(name)
        self.accounts.append(name)

    async def remove_policy(self, name: str) -> None:
        await self._store.delete_policy(name)
        self.policies.append(name)

    async def remove_bucket(self, name: str) -> None:
        await self._store.delete_bucket(name)
        self.buckets.append(name)
