"""Access reviews: clients ask what they, or others, may do. Nothing is stored."""

from typing import Any

from holdfast_local.apiserver import errors
from holdfast_local.apiserver.access.authorizer import Authorizer
from holdfast_local.apiserver.access.identity import Authenticator, User, user_from
from holdfast_local.apiserver.http.targets import Target
from holdfast_local.apiserver.resources import Object, Resource


def review(resource: Resource, user: User, body: Any, authorizer: Authorizer, authenticator: Authenticator) -> Object:
    """The review with its status filled in. Raises StatusError 400 for a malformed one."""
    if not isinstance(body, dict):
        raise errors.bad_request("the request's body is not an object")
    spec = body.get("spec") or {}
    status: dict[str, Any]
    if resource.kind == "SelfSubjectRulesReview":
        status = _rules_status(authorizer, user, spec.get("namespace") or "default")
    elif resource.kind == "SelfSubjectReview":
        status = {"userInfo": {"username": user.name, "groups": list(user.groups)}}
    elif resource.kind == "TokenReview":
        status = _token_status(authenticator, str(spec.get("token", "")))
    else:
        about = user
        if resource.kind != "SelfSubjectAccessReview":
            about = user_from(str(spec.get("user", "")), tuple(spec.get("groups") or ()))
        status = _access_status(authorizer, about, spec)
    answer = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": {"creationTimestamp": None}}
    return {**answer, "spec": spec, "status": status}


def _access_status(authorizer: Authorizer, user: User, spec: dict[str, Any]) -> dict[str, Any]:
    attributes, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if attributes:
        target = Target(
            group=attributes.get("group", ""),
            version=attributes.get("version", ""),
            plural=attributes.get("resource", ""),
            namespace=attributes.get("namespace", ""),
            name=attributes.get("name", ""),
            subresource=attributes.get("subresource", ""),
            verb=attributes.get("verb", ""),
        )
        allowed = authorizer.allows(user, target)
    elif path:
        allowed = authorizer.allows_path(user, path.get("verb", ""), path.get("path", ""))
    else:
        raise errors.bad_request("exactly one of nonResourceAttributes or resourceAttributes must be specified")
    reason = "RBAC: allowed by a bound role" if allowed and not user.is_master else ""
    return {"allowed": allowed, "reason": reason}


def _rules_status(authorizer: Authorizer, user: User, namespace: str) -> dict[str, Any]:
    resource_rules: list[dict[str, Any]] = []
    path_rules: list[dict[str, Any]] = []
    if user.is_master:
        resource_rules.append({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]})
        path_rules.append({"verbs": ["*"], "nonResourceURLs": ["*"]})
    for rule in authorizer.rules(user, namespace):
        if rule.get("nonResourceURLs"):
            path_rules.append({"verbs": rule["verbs"], "nonResourceURLs": rule["nonResourceURLs"]})
        else:
            kept = ("verbs", "apiGroups", "resources", "resourceNames")
            resource_rules.append({name: rule[name] for name in kept if name in rule})
    return {"resourceRules": resource_rules, "nonResourceRules": path_rules, "incomplete": False}


def _token_status(authenticator: Authenticator, token: str) -> dict[str, Any]:
    found = authenticator.authenticate(f"Bearer {token}") if token else None
    if found is None:
        return {"authenticated": False, "error": "unknown token"}
    return {"authenticated": True, "user": {"username": found.name, "groups": list(found.groups)}}
