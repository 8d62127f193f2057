"""Tokens, RBAC, impersonation and access reviews."""

from __future__ import annotations

from typing import Any

MAPS = "/api/v1/namespaces/default/configmaps"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


async def grant(api: Any, rules: list[dict[str, Any]], subject: dict[str, str], namespace: str = "default") -> None:
    """A Role and its binding in one namespace; in all of them if `namespace` is empty."""
    kind = "Role" if namespace else "ClusterRole"
    where = f"{RBAC}/namespaces/{namespace}/" if namespace else f"{RBAC}/cluster"
    metadata = {"metadata": {"name": "granted"}}
    await api.create(where + "roles", {**metadata, "rules": rules})
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": "granted"}
    await api.create(where + "rolebindings", {**metadata, "roleRef": reference, "subjects": [subject]})


READ_MAPS = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]}
VISITOR = {"kind": "User", "name": "visitor"}
OPERATOR = {"kind": "ServiceAccount", "name": "operator", "namespace": "default"}


async def test_an_unknown_token_is_unauthorized(api: Any) -> None:
    async with api.session.get(MAPS, headers={"Authorization": "Bearer wrong"}) as response:
        body = await response.json()
    assert (response.status, body["reason"]) == (401, "Unauthorized")


async def test_without_a_token_only_health_and_version_answer(api: Any) -> None:
    for path, status in ((MAPS, 403), ("/healthz", 200), ("/readyz", 200), ("/version", 200), ("/apis", 403)):
        async with api.session.get(path, headers={"Authorization": ""}) as response:
            assert response.status == status, path


async def test_a_request_without_a_grant_is_forbidden_in_the_usual_words(visitor: Any) -> None:
    status, body = await visitor.call("GET", MAPS)
    assert (status, body["reason"]) == (403, "Forbidden")
    assert body["message"] == (
        'configmaps is forbidden: User "visitor" cannot list resource "configmaps" in API group "" '
        'in the namespace "default"'
    )
    status, body = await visitor.call("GET", "/api/v1/nodes/n")
    assert body["message"] == (
        'nodes "n" is forbidden: User "visitor" cannot get resource "nodes" in API group "" at the cluster scope'
    )


async def test_a_role_grants_its_verbs_in_its_namespace_only(api: Any, visitor: Any) -> None:
    await grant(api, [READ_MAPS], VISITOR)
    assert (await visitor.call("GET", MAPS))[0] == 200
    assert (await visitor.call("GET", MAPS, watch="true"))[0] == 403
    assert (await visitor.call("POST", MAPS, {"metadata": {"name": "c"}}))[0] == 403
    assert (await visitor.call("GET", "/api/v1/namespaces/kube-system/configmaps"))[0] == 403
    assert (await visitor.call("GET", "/api/v1/configmaps"))[0] == 403


async def test_a_cluster_role_binding_grants_everywhere(api: Any, visitor: Any) -> None:
    await grant(api, [READ_MAPS], {"kind": "Group", "name": "guests"}, namespace="")
    assert (await visitor.call("GET", "/api/v1/configmaps"))[0] == 200
    assert (await visitor.call("GET", "/api/v1/namespaces/kube-system/configmaps"))[0] == 200


async def test_a_service_account_is_bound_by_its_name(api: Any, operator: Any) -> None:
    assert (await operator.call("GET", MAPS))[0] == 403
    await grant(api, [READ_MAPS], OPERATOR)
    assert (await operator.call("GET", MAPS))[0] == 200


async def test_a_subresource_needs_its_own_grant(api: Any, operator: Any) -> None:
    sets = {"apiGroups": ["apps"], "resources": ["statefulsets"], "verbs": ["*"]}
    await grant(api, [sets], OPERATOR)
    path = "/apis/apps/v1/namespaces/default/statefulsets/web"
    assert (await operator.call("GET", path))[0] == 404
    status, body = await operator.call("GET", f"{path}/scale")
    assert (status, 'resource "statefulsets/scale"' in body["message"]) == (403, True)


async def test_resource_names_limit_a_grant(api: Any, visitor: Any) -> None:
    rule = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"], "resourceNames": ["one"]}
    await grant(api, [rule], VISITOR)
    assert (await visitor.call("GET", f"{MAPS}/one"))[0] == 404
    assert (await visitor.call("GET", f"{MAPS}/two"))[0] == 403
    assert (await visitor.call("GET", MAPS))[0] == 403


async def test_apply_that_creates_needs_patch(api: Any, visitor: Any) -> None:
    rule = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"]}
    await grant(api, [rule], VISITOR)
    wanted = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}
    assert (await visitor.apply(f"{MAPS}/c", wanted))[0] == 403
    assert (await visitor.call("POST", MAPS, wanted))[0] == 201


async def test_access_reviews_answer_what_requests_would(api: Any, visitor: Any) -> None:
    await grant(api, [READ_MAPS], VISITOR)

    async def allowed(verb: str, namespace: str) -> bool:
        attributes = {"verb": verb, "resource": "configmaps", "namespace": namespace}
        answer = await visitor.create(REVIEWS, {"spec": {"resourceAttributes": attributes}})
        return bool(answer["status"]["allowed"])

    assert await allowed("list", "default")
    assert not await allowed("delete", "default")
    assert not await allowed("list", "kube-system")
    rules = {"spec": {"namespace": "default"}}
    answer = await visitor.create("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", rules)
    assert READ_MAPS in answer["status"]["resourceRules"]


async def test_only_who_may_impersonate_acts_as_another(api: Any, visitor: Any) -> None:
    headers = {"Impersonate-User": "visitor", "Impersonate-Group": "guests"}
    async with api.session.get(MAPS, headers=headers) as response:
        assert response.status == 403
        assert 'User "visitor"' in (await response.json())["message"]
    headers = {"Impersonate-User": "admin", "Impersonate-Group": "system:masters"}
    async with visitor.session.get(MAPS, headers=headers) as response:
        assert response.status == 403
        assert "impersonate" in (await response.json())["message"]


async def test_a_requested_token_is_the_service_account(api: Any) -> None:
    await api.create("/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "bot"}})
    answer = await api.create("/api/v1/namespaces/default/serviceaccounts/bot/token", {"spec": {}})
    headers = {"Authorization": f"Bearer {answer['status']['token']}"}
    async with api.session.get(MAPS, headers=headers) as response:
        assert 'User "system:serviceaccount:default:bot"' in (await response.json())["message"]
    assert (await api.call("POST", "/api/v1/namespaces/default/serviceaccounts/none/token", {}))[0] == 404
