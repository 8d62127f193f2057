"""Whether the store still has what was made in it: three questions, whatever the number of buckets and users.

Looked at: that each bucket, policy and user is there, and a user's name, policies and whether it is enabled.  Not
looked at, because the store does not tell: a secret key and the text of a policy; those are made again now and then.
"""

from __future__ import annotations

from holdfast_operator.provision.client import StoreClient
from holdfast_operator.provision.plan import ProvisionPlan
from holdfast_operator.provision.policy import generated_policy_name
from holdfast_server.contract.admin import UserInfo


async def find_drift(plan: ProvisionPlan, store: StoreClient) -> tuple[str, ...]:
    """What is not as it was made, in words; raises StoreError."""
    found: list[str] = []
    if plan.buckets:
        there = await store.bucket_names()
        found += [f"bucket {name} is gone" for name in plan.buckets if name not in there]
    wanted = [name for name, _ in plan.policies]
    wanted += [generated_policy_name(task.name) for task in plan.users if task.own_policy is not None]
    if wanted:
        there = await store.policy_names()
        found += [f"policy {name} is gone" for name in wanted if name not in there]
    if plan.users:
        users = await store.list_users()
        for task in plan.users:
            for key in task.keys:
                info = UserInfo(access_key=key.access_key, name=task.name, policies=list(task.policies))
                if users.get(key.access_key) != info:
                    what = "was changed" if key.access_key in users else "is gone"
                    found.append(f"user {task.name} {what}")
    return tuple(found)
