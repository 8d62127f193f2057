"""Whether the store still has what was made in it: three questions, whatever the number of buckets and
users, and one more for each setting that a bucket declares.

Looked at: that each bucket, policy, account and user is there, a user's name, account, policies, whether it is enabled,
limited by anything or the root of its account, and
what a bucket declares (see `bucket_settings`; a question each).  Not looked at, because the store does not tell: a
secret key and the text of a policy; those are made again now and then.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial

from holdfast_operator.provision.bucket_settings import same
from holdfast_operator.provision.client import StoreClient, StoreFailed, StoreRefused
from holdfast_operator.provision.plan import ProvisionPlan
from holdfast_operator.provision.policy import generated_policy_name
from holdfast_operator.provision.together import together
from holdfast_server.contract.admin import UserInfo

logger = logging.getLogger(__name__)


async def find_drift(plan: ProvisionPlan, store: StoreClient) -> tuple[str, ...]:
    """What is not as it was made, in words; raises StoreError."""
    found: list[str] = []
    if plan.buckets:
        there = await store.bucket_names()
        found += [f"bucket {name} is gone" for name in plan.buckets if name not in there]
        looks = [partial(_changed_settings, name, declared, store) for name, declared in plan.settings if name in there]
        for changed in await together(looks):
            found += changed
    wanted = [name for name, _ in plan.policies]
    wanted += [generated_policy_name(task.name) for task in plan.users if task.own_policy is not None]
    if wanted:
        there = await store.policy_names()
        found += [f"policy {name} is gone" for name in wanted if name not in there]
    if plan.accounts:
        shown = await store.account_names()
        for name, display_name in plan.accounts:
            if shown.get(name) != (display_name or name):
                found.append(f"account {name} {'was changed' if name in shown else 'is gone'}")
    if plan.users:
        users = await store.list_users()
        for task in plan.users:
            for key in task.keys:
                info = UserInfo(
                    access_key=key.access_key,
                    name=task.name,
                    policies=list(task.policies),
                    account=task.account,
                    account_root=task.account_root,
                )
                if users.get(key.access_key) != info:
                    what = "was changed" if key.access_key in users else "is gone"
                    found.append(f"user {task.name} {what}")
    return tuple(found)


async def _changed_settings(name: str, settings: Mapping[str, bytes | None], store: StoreClient) -> list[str]:
    """Of one bucket; none of what the store does not tell, as of a bucket whose policy denies root to look.  Raises
    StoreUnavailable where no pod can be reached."""
    found = []
    for setting, document in settings.items():
        try:
            there = await store.bucket_setting(name, setting)
        except (StoreRefused, StoreFailed) as error:
            logger.info("%s of bucket %s cannot be looked at: %s", setting, name, error)
            continue
        if not same(setting, document, there):
            found.append(f"{setting} of bucket {name} was changed")
    return found
