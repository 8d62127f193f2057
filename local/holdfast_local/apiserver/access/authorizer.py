"""RBAC: what the Roles and ClusterRoles that are bound to a user allow. Reads the store; keeps nothing.

`system:masters` may do everything. Everybody else needs a rule: from a ClusterRoleBinding anywhere, from a RoleBinding
within its namespace. Aggregated ClusterRoles are resolved by their selectors when asked. Not done here: the escalation
check (who may write roles may grant more than he has).
"""

from collections.abc import Iterator, Sequence
from typing import Any

from holdfast_local.apiserver import errors
from holdfast_local.apiserver.access.identity import User
from holdfast_local.apiserver.http.targets import Target
from holdfast_local.apiserver.resources import Object, StorageKey
from holdfast_local.apiserver.selection import matches_label_selector
from holdfast_local.apiserver.storage.store import Store

_GROUP = "rbac.authorization.k8s.io"
ROLES: StorageKey = (_GROUP, "roles")
ROLE_BINDINGS: StorageKey = (_GROUP, "rolebindings")
CLUSTER_ROLES: StorageKey = (_GROUP, "clusterroles")
CLUSTER_ROLE_BINDINGS: StorageKey = (_GROUP, "clusterrolebindings")

Rule = dict[str, Any]


class Authorizer:
    """Answers "may this user do that?" from the stored RBAC objects."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def allows(self, user: User, target: Target) -> bool:
        """Whether any rule allows the request."""
        return user.is_master or any(_covers(rule, target) for rule in self.rules(user, target.namespace))

    def require(self, user: User, target: Target) -> None:
        """Raises StatusError 403 with the message that people know, unless allowed."""
        if self.allows(user, target):
            return
        resource = target.plural + (f"/{target.subresource}" if target.subresource else "")
        where = f'in the namespace "{target.namespace}"' if target.namespace else "at the cluster scope"
        qualified = f"{target.plural}.{target.group}" if target.group else target.plural
        named = f' "{target.name}"' if target.name else ""
        message = (
            f'{qualified}{named} is forbidden: User "{user.name}" cannot {target.verb} resource "{resource}" '
            f'in API group "{target.group}" {where}'
        )
        details = {"kind": target.plural, **({"name": target.name} if target.name else {})}
        if target.group:
            details["group"] = target.group
        raise errors.forbidden(message, details)

    def allows_path(self, user: User, verb: str, path: str) -> bool:
        """Whether a path that names no objects may be read."""
        if user.is_master:
            return True
        for rule in self.rules(user, ""):
            if _has(rule.get("verbs"), verb) and any(
                path == known or (known.endswith("*") and path.startswith(known[:-1]))
                for known in rule.get("nonResourceURLs") or ()
            ):
                return True
        return False

    def require_path(self, user: User, verb: str, path: str) -> None:
        """Raises StatusError 403 unless allowed."""
        if not self.allows_path(user, verb, path):
            raise errors.forbidden(f'forbidden: User "{user.name}" cannot {verb} path "{path}"')

    def rules(self, user: User, namespace: str) -> Iterator[Rule]:
        """Every rule that holds for the user at this namespace ('' for the whole cluster)."""
        for binding in self._store.list(CLUSTER_ROLE_BINDINGS):
            if _binds(binding, user, ""):
                yield from self._role_rules(binding, "")
        if namespace:
            for binding in self._store.list(ROLE_BINDINGS, namespace):
                if _binds(binding, user, namespace):
                    yield from self._role_rules(binding, namespace)

    def _role_rules(self, binding: Object, namespace: str) -> Sequence[Rule]:
        reference = binding.get("roleRef") or {}
        if reference.get("kind") == "Role":
            role = self._store.get(ROLES, namespace, reference.get("name", ""))
        else:
            role = self._store.get(CLUSTER_ROLES, "", reference.get("name", ""))
        if role is None:
            return ()
        selectors = (role.get("aggregationRule") or {}).get("clusterRoleSelectors") or ()
        rules: list[Rule] = list(role.get("rules") or ())
        for selector in selectors:
            for other in self._store.list(CLUSTER_ROLES):
                if matches_label_selector(selector, other["metadata"].get("labels") or {}):
                    rules += other.get("rules") or ()
        return rules


def _binds(binding: Object, user: User, namespace: str) -> bool:
    for subject in binding.get("subjects") or ():
        kind, name = subject.get("kind"), subject.get("name", "")
        if kind == "User" and name == user.name:
            return True
        if kind == "Group" and name in user.groups:
            return True
        account = f"system:serviceaccount:{subject.get('namespace') or namespace}:{name}"
        if kind == "ServiceAccount" and account == user.name:
            return True
    return False


def _has(choices: Sequence[str] | None, wanted: str) -> bool:
    return choices is not None and ("*" in choices or wanted in choices)


def _covers(rule: Rule, target: Target) -> bool:
    if not _has(rule.get("verbs"), target.verb) or not _has(rule.get("apiGroups"), target.group):
        return False
    names = rule.get("resourceNames")
    if names and target.name not in names:
        return False
    resources = rule.get("resources") or ()
    if target.subresource:
        wanted = (f"{target.plural}/{target.subresource}", f"*/{target.subresource}", "*")
        return any(choice in resources for choice in wanted)
    return _has(resources, target.plural)
