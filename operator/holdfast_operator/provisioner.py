"""Keeps the store as the Tenant declares it: calls when something is due, a look now and then whether it still holds.

What was done is remembered only to spare calls: after a restart of the operator everything is made again, which
changes nothing.  Between, `VERIFY_SECONDS` apart, three questions tell whether somebody removed or changed what was
made (`provision.drift`); what they cannot tell is made again every `REPEAT_SECONDS`.  What the store refuses may stay
so for ever: it alone is tried again, with growing pauses, and what it takes is made once all the same.

Not here: which calls (`provision.plan`), and the order in which they are made (`provision.execute`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from holdfast_operator.credentials import KeyPair
from holdfast_operator.ledger import Ledger
from holdfast_operator.provision.client import StoreClient, StoreError
from holdfast_operator.provision.drift import find_drift
from holdfast_operator.provision.execute import Provisioned, execute, pending
from holdfast_operator.provision.plan import ProvisionPlan, forget, plan_provisioning
from holdfast_operator.tenant.spec import TenantSpec
from holdfast_operator.tenant_keys import TenantCredentials

VERIFY_SECONDS = 60.0
"""Between two looks whether buckets, users and policies are as they were made."""
LOOK_SECONDS = 30.0
"""The longest look: what a pass is for must not wait for it."""
REPEAT_SECONDS = 600.0
"""After that they are made again, for what a look does not show: secret keys, and the text of policies."""

LAST_PAUSE_SECONDS = 30.0
"""The longest pause before something that the store refuses is tried again."""

logger = logging.getLogger(__name__)

Write = Callable[[Ledger], Awaitable[bool]]
"""Makes the ledger durable; false where the API server refuses that."""


@dataclass(frozen=True, slots=True)
class _Remembered:
    """The last provisioning of a tenant."""

    fingerprint: str
    outcome: Provisioned
    made_at: float
    """When everything was made."""
    seen_at: float
    tried_at: float
    """When what is refused was tried last, `tries` times after the first."""
    tries: int = 0

    def rests(self, at: float) -> bool:
        """Whether there is nothing to do that a look, or the time to make everything again, does not bring."""
        if self.outcome.complete:
            return True
        pause = min(2.0 ** min(self.tries, 16), LAST_PAUSE_SECONDS)
        return not self.outcome.pending and at - self.tried_at < pause


class Provisioner:
    """Of one tenant."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._known: _Remembered | None = None
        self.established: frozenset[KeyPair] = frozenset()
        """Users' pairs that the store was given, as of the last time that anything was made."""
        self.drift: tuple[str, ...] = ()
        """What was found changed by somebody in this pass, and is put right."""

    async def run(
        self,
        tenant: TenantSpec,
        credentials: TenantCredentials,
        ledger: Ledger,
        store: StoreClient,
        write: Write,
        *,
        writable: bool,
        recorded: bool,
    ) -> Provisioned:
        """`recorded`: keys and ledger are on record; what is made without that could not be taken back, and would be
        made in another form in the next pass.  Raises KubeError where the ledger cannot be written."""
        self.drift = ()
        plan = plan_provisioning(tenant, credentials, ledger)
        fingerprint = _fingerprint(credentials, tenant, plan)
        known = self._known if self._known and self._known.fingerprint == fingerprint else None
        if known and (not writable or not recorded):
            return known.outcome
        if not recorded:
            return pending(plan, "waiting for the record of keys to be written")
        if not writable:
            return pending(plan, "waiting for the write quorum")
        if known and await self._is_due(known, plan, store):
            known = None
        at = self._monotonic()
        if known and known.rests(at):
            return known.outcome
        outcome = await execute(plan, store, known.outcome.made if known else ())
        self._note(plan, outcome)
        remaining = forget(ledger, outcome.removed)
        if remaining != ledger and not await write(remaining):
            # What is gone stays on record, and is looked for again when everything is made again.
            remaining = ledger
        settled = _fingerprint(credentials, tenant, plan_provisioning(tenant, credentials, remaining))
        if known and self._known:
            tries = 0 if outcome.pending else known.tries + 1
            self._known = replace(self._known, fingerprint=settled, outcome=outcome, tried_at=at, tries=tries)
        else:
            self._known = _Remembered(settled, outcome, at, at, at)
        return outcome

    async def _is_due(self, known: _Remembered, plan: ProvisionPlan, store: StoreClient) -> bool:
        at = self._monotonic()
        if at - known.made_at >= REPEAT_SECONDS:
            return True
        if at - known.seen_at < VERIFY_SECONDS:
            return False
        self._known = replace(known, seen_at=at)
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                self.drift = await find_drift(plan.part(known.outcome.made), store)
        except (StoreError, TimeoutError) as error:
            logger.info("the store cannot be looked at: %s", str(error) or "it takes too long")
        return bool(self.drift)

    def _note(self, plan: ProvisionPlan, outcome: Provisioned) -> None:
        made = {item.name for item in outcome.users if item.state == "Ready"}
        self.established = frozenset(
            KeyPair(key.access_key, secret)
            for task in plan.users
            if task.name in made
            for key in task.keys
            for secret in (key.secret_key, *key.former_secret_keys)
        )

    async def reseal(self, store: StoreClient) -> bool:
        """Whether no user's secret needs a former peer key; what does is sealed anew, and asked for again later."""
        try:
            told = await store.reseal_users()
        except StoreError as error:
            logger.warning("users' secrets cannot be sealed anew: %s", error)
            return False
        return not told.done and not told.left


def _fingerprint(credentials: TenantCredentials, tenant: TenantSpec, plan: ProvisionPlan) -> str:
    return f"{credentials.tenant_id}:{tenant.uid}:{plan.fingerprint()}"
