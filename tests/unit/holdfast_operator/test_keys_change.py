"""Keys that change, and Secrets that vanish: nobody is locked out, nothing is made anew that data depend on."""

from __future__ import annotations

import base64
import contextlib
from typing import Any

import pytest

from holdfast_operator import labels
from holdfast_operator.kube.errors import KubeConflict, KubeForbidden
from holdfast_operator.kube.port import CONFIG_MAP, SECRET, STATEFUL_SET
from holdfast_server.contract.keys import decode_further_keys

HOUR = 3600


def pair(world: Any, name: str) -> tuple[str, str]:
    found = world.secret_values(name)
    return found["accessKey"], found["secretKey"]


def write(world: Any, name: str, **changes: str) -> None:
    """As `kubectl edit` does; an unknown Secret is made."""
    key = ("Secret", "loki", name)
    if key not in world.kube.objects:
        world.kube.put({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "loki"}})
    data = world.kube.objects[key].setdefault("data", {})
    data.update({field: base64.b64encode(value.encode()).decode() for field, value in changes.items()})


def ask_for_new_keys(world: Any, name: str) -> None:
    world.kube.object(SECRET, name)["metadata"].setdefault("annotations", {})[labels.NEW_KEYS_ANNOTATION] = "1"


def accepted_roots(world: Any) -> list[tuple[str, str]]:
    """By the pods: what the Secret that they mount says."""
    found = world.secret_values("logs-peer")
    further = decode_further_keys(found["furtherKeys.json"].encode())
    return [pair(world, "logs-peer"), *((one.access_key, one.secret_key) for one in further.root)]


def hold_back(world: Any, pod: str = "logs-pool-main-2") -> None:
    """This pod's kubelet is late: it goes on with the keys that it has."""
    world.pods.key_revisions[pod] = decode_further_keys(
        world.secret_values("logs-peer")["furtherKeys.json"].encode()
    ).revision


async def test_a_root_pair_that_was_edited_is_valid_beside_the_one_before_until_the_overlap_ends(world: Any) -> None:
    await world.start()
    old, new = pair(world, "logs-root"), ("admin", "a-new-secret")
    hold_back(world)
    write(world, "logs-root", accessKey=new[0], secretKey=new[1])
    await world.run_passes(2)
    assert accepted_roots(world) == [new, old]
    assert world.secret_values("logs-root")["AWS_ACCESS_KEY_ID"] == "admin"
    assert world.condition("CredentialsReady")["status"] == "True"
    assert "waiting for logs-pool-main-2" in world.condition("CredentialsReady")["message"]
    world.seconds += 5 * HOUR
    await world.run_pass()
    assert accepted_roots(world) == [new, old], "a pod that does not know the new pair must not lose the old one"
    world.change_spec(buckets=[{"name": "made-meanwhile"}])
    await world.run_passes(2)
    assert world.store.connected_with.access_key == old[0], "every pod knows that one"
    world.pods.key_revisions.clear()
    await world.run_passes(2)
    assert "valid until" in world.condition("CredentialsReady")["message"]
    world.seconds += HOUR - 10
    await world.run_pass()
    assert accepted_roots(world) == [new, old]
    world.seconds += 10
    await world.run_pass()
    assert accepted_roots(world) == [new]
    assert world.condition("CredentialsReady")["reason"] == "Present"
    assert world.condition("Ready")["status"] == "True"


async def test_former_keys_end_at_once_where_the_overlap_is_zero(world: Any) -> None:
    await world.start()
    write(world, "logs-root", secretKey="same-user-new-secret")
    await world.run_passes(2)
    (user, _), (former, _) = accepted_roots(world)
    assert user == former, "the same access key with two secrets"
    world.change_spec(keyOverlapSeconds=0)
    await world.run_passes(2)
    assert len(accepted_roots(world)) == 1


async def test_new_root_keys_on_demand_are_announced_only_when_every_pod_accepts_them(world: Any) -> None:
    await world.start()
    old = pair(world, "logs-root")
    hold_back(world)
    ask_for_new_keys(world, "logs-root")
    await world.run_passes(4)
    assert pair(world, "logs-root") == old
    assert [accepted_roots(world)[0], len(accepted_roots(world))] == [old, 2]
    new = accepted_roots(world)[1]
    assert labels.NEW_KEYS_ANNOTATION not in world.kube.object(SECRET, "logs-root")["metadata"]["annotations"]
    world.restart_operator()
    world.pods.key_revisions.clear()
    await world.run_passes(2)
    assert pair(world, "logs-root") == new
    assert set(accepted_roots(world)) == {new, old}
    world.seconds += HOUR + 1
    await world.run_passes(2)
    assert accepted_roots(world) == [new]


@pytest.mark.parametrize("name", ["logs-root", "logs-peer"])
async def test_a_wish_that_cannot_be_withdrawn_is_granted_once_and_holds_up_nothing_else(world: Any, name: str) -> None:
    await world.start()
    refused = KubeForbidden("403: denied by a policy")
    world.kube.fail_on = lambda verb, kind, at: refused if (verb, kind) == ("merge", "Secret") else None
    ask_for_new_keys(world, name)
    await world.run_passes(3)
    granted = world.secret_values("logs-peer")
    world.pods.down = {"logs-pool-main-1"}
    world.pods.settle()
    await world.run_passes(3)
    assert world.secret_values("logs-peer") == granted
    assert world.condition("CredentialsReady")["reason"] == "ApplyFailed"
    assert "denied by a policy" in world.condition("CredentialsReady")["message"]
    assert world.condition("Degraded")["reason"] == "DrivesMissing"
    world.kube.fail_on = lambda verb, kind, at: None
    world.pods.down = set()
    world.pods.settle()
    for _ in range(8):
        with contextlib.suppress(KubeConflict):  # with the annotation off, it is another version than was read
            await world.run_pass()
    assert world.condition("CredentialsReady")["status"] == "True"
    assert labels.NEW_KEYS_ANNOTATION not in world.kube.object(SECRET, name)["metadata"]["annotations"]
    assert world.secret_values("logs-peer") != granted


async def test_new_keys_of_a_user_are_in_the_store_before_they_are_announced_and_the_old_ones_after(world: Any) -> None:
    await world.start()
    old = pair(world, "logs-user-loki")
    ask_for_new_keys(world, "logs-user-loki")
    world.pods.down = {"logs-pool-main-0", "logs-pool-main-1"}  # the store takes no writes
    world.pods.settle()
    await world.run_passes(3)
    assert pair(world, "logs-user-loki") == old
    assert set(world.store.users) == {old[0]}
    world.pods.down = set()
    world.pods.settle()
    await world.run_passes(3)
    new = pair(world, "logs-user-loki")
    assert new != old
    assert set(world.store.users) == {old[0], new[0]}
    assert world.store.users[old[0]].policies == world.store.users[new[0]].policies == ["tenant-user-loki"]
    assert world.condition("UsersReady")["status"] == "True"
    world.seconds += HOUR + 1
    await world.run_passes(2)
    assert set(world.store.users) == {new[0]}


async def test_a_user_whose_secret_key_alone_changes_may_use_both_for_a_while(world: Any) -> None:
    await world.start()
    access_key, old = pair(world, "logs-user-loki")
    write(world, "logs-user-loki", secretKey="another-secret")
    await world.run_passes(2)
    user = world.store.users[access_key]
    assert (user.secret_key, user.former_secret_keys) == ("another-secret", [old])
    world.seconds += HOUR + 1
    await world.run_passes(2)
    assert world.store.users[access_key].former_secret_keys == []


async def test_a_given_secret_may_go_back_to_the_pair_it_had(world: Any) -> None:
    write(world, "mine", accessKey="first", secretKey="first-secret")
    await world.start(rootCredentials={"secretRef": {"name": "mine"}})
    for name in ("second", "first"):
        write(world, "mine", accessKey=name, secretKey=f"{name}-secret")
        await world.run_passes(2)
        assert accepted_roots(world)[0] == (name, f"{name}-secret")
    assert len(accepted_roots(world)) == 2
    assert "logs-root" not in world.kube.names(SECRET)


@pytest.mark.parametrize("name", ["logs-root", "logs-user-loki", "logs-peer", "logs-peer-copy"])
async def test_a_generated_secret_that_was_deleted_is_written_again_with_the_same_keys(world: Any, name: str) -> None:
    await world.start()
    before = world.secret_values(name)
    config = world.kube.object(CONFIG_MAP, "logs-config")["data"]
    world.kube.remove(("Secret", "loki", name))
    world.restart_operator()
    await world.run_passes(2)
    assert world.secret_values(name) == before
    assert world.kube.object(CONFIG_MAP, "logs-config")["data"] == config
    events = [value for (kind, _, _), value in world.kube.objects.items() if kind == "Event"]
    assert f"Secret {name} was gone, and is written again" in {event["message"] for event in events}
    assert world.condition("Ready")["status"] == "True"


async def test_a_secret_that_a_quota_refuses_is_not_told_as_written_again(world: Any) -> None:
    """Each pass would tell it, for as long as the quota does not change."""
    refusal = KubeForbidden('403: secrets "logs-root" is forbidden: exceeded quota')
    world.kube.fail_on = lambda verb, kind, name: refusal if verb == "apply" and name == "logs-root" else None
    await world.start()
    await world.run_passes(3)
    assert "exceeded quota" in world.condition("PoolsReady")["message"]
    told = [value["reason"] for (kind, _, _), value in world.kube.objects.items() if kind == "Event"]
    assert "SecretRestored" not in told
    world.kube.fail_on = lambda verb, kind, name: None
    await world.run_passes(2)
    assert pair(world, "logs-root") == accepted_roots(world)[0]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data.clear(),
        lambda data: data.update({"ledger.json": base64.b64encode(b"{").decode()}),
        lambda data: data.update({"keys.json": "no base64"}),
        lambda data: data.pop("tenantId"),
    ],
)
async def test_a_peer_secret_that_somebody_spoilt_is_written_again_from_its_copy(world: Any, spoil: Any) -> None:
    await world.start()
    before = dict(world.kube.object(SECRET, "logs-peer")["data"])
    spoil(world.kube.object(SECRET, "logs-peer")["data"])
    await world.run_passes(2)
    assert world.kube.object(SECRET, "logs-peer")["data"] == before
    assert world.condition("CredentialsReady")["reason"] == "Present"
    events = [value["message"] for (kind, _, _), value in world.kube.objects.items() if kind == "Event"]
    assert "Secret logs-peer was spoilt, and is written again" in events


@pytest.mark.parametrize("also_root", [False, True])
async def test_without_the_peer_secret_and_its_copy_nothing_is_made_anew(world: Any, also_root: bool) -> None:
    await world.start()
    saved, root = world.secret_values("logs-peer"), pair(world, "logs-root")
    for name in ("logs-peer", "logs-peer-copy", *(["logs-root"] if also_root else [])):
        world.kube.remove(("Secret", "loki", name))
    world.kube.calls.clear()
    await world.run_passes(3)
    assert world.condition("CredentialsReady")["reason"] == "PeerSecretLost"
    assert {call[:2] for call in world.kube.calls} <= {("status", "Tenant"), ("apply", "Event")}
    for kind in ("Degraded", "PoolsReady"):
        assert (world.condition(kind)["status"], world.condition(kind)["reason"]) == ("Unknown", "PeerSecretLost")
    assert world.kube.tenant_status()["health"] == "Unknown"
    # What every pod still has mounted is enough: the rest is what the ConfigMap says.
    world.kube.put(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "logs-peer", "namespace": "loki", "labels": labels.tenant_labels("logs")},
            "data": {"peerKey": base64.b64encode(saved["peerKey"].encode()).decode()},
        }
    )
    if also_root:
        await world.run_passes(2)
        assert "logs-peer lacks accessKey" in world.condition("CredentialsReady")["message"], "no others are made up"
        write(world, "logs-peer", accessKey=root[0], secretKey=root[1])
    config = world.kube.object(CONFIG_MAP, "logs-config")["data"]
    await world.run_passes(3)
    assert world.condition("Ready")["status"] == "True"
    assert world.condition("Degraded")["status"] == "False"
    assert world.kube.tenant_status()["health"] == "Healthy"
    assert world.kube.object(CONFIG_MAP, "logs-config")["data"] == config
    assert (pair(world, "logs-root"), world.secret_values("logs-peer")["peerKey"]) == (root, saved["peerKey"])
    assert world.secret_values("logs-peer")["tenantId"] == saved["tenantId"]


async def test_the_peer_key_changes_in_three_steps_each_taken_by_every_pod(world: Any) -> None:
    await world.start()

    def keys() -> tuple[str, tuple[str, ...]]:
        found = world.secret_values("logs-peer")
        return found["peerKey"], decode_further_keys(found["furtherKeys.json"].encode()).peer

    old, none = keys()
    assert none == ()
    hold_back(world)
    ask_for_new_keys(world, "logs-peer")
    await world.run_passes(4)
    new = keys()[1][0]
    assert keys() == (old, (new,)), "known everywhere before it is used"
    hold_back(world)
    await world.run_passes(3)
    assert keys() == (new, (old,)), "used everywhere before the old one goes"
    assert "waiting for logs-pool-main-2" in world.condition("CredentialsReady")["message"]
    world.store.to_reseal = 3
    world.pods.key_revisions.clear()
    await world.run_pass()
    assert keys() == (new, (old,)), "what was sealed with it must be sealed anew"
    await world.run_passes(2)
    assert keys() == (new, ())
    assert world.store.calls.count("reseal_users") == 2
    assert world.condition("CredentialsReady")["reason"] == "Present"


async def test_a_secret_that_is_faulty_is_named_and_left_alone_and_its_keys_stay(world: Any) -> None:
    await world.start()
    old = accepted_roots(world)
    write(world, "logs-root", secretKey="short")
    await world.run_passes(2)
    assert world.condition("CredentialsReady")["message"] == "Secret logs-root: secretKey needs at least 8 characters"
    assert world.secret_values("logs-root")["secretKey"] == "short"
    assert accepted_roots(world) == old
    write(world, "logs-root", accessKey="with/slash", secretKey="long-enough")
    await world.run_passes(2)
    assert world.condition("CredentialsReady")["reason"] == "SecretInvalid"
    write(world, "logs-root", accessKey="a-new-one", secretKey="x" * 5000)
    await world.run_passes(2)
    assert world.condition("CredentialsReady")["reason"] == "SecretInvalid"
    assert accepted_roots(world) == old, "no pod would start with it"


async def test_a_user_without_its_secret_holds_up_nobody_else(world: Any) -> None:
    users = [{"name": "absent", "secretRef": {"name": "nowhere"}}, {"name": "loki", "policies": ["readonly"]}]
    await world.start(users=users)
    told = world.condition("CredentialsReady")["message"]
    assert told.startswith("Secret nowhere does not exist, which a secretRef of the spec names: make it")
    assert world.condition("PoolsReady")["status"] == "True"
    assert {item["name"]: item["state"] for item in world.kube.tenant_status()["users"]} == {
        "absent": "Failed",
        "loki": "Ready",
    }
    write(world, "nowhere", accessKey="absent-user", secretKey="absent-secret")
    await world.run_passes(2)
    assert "absent-user" in world.store.users
    assert world.condition("Ready")["status"] == "True"
    world.kube.remove(("Secret", "loki", "nowhere"))
    await world.run_passes(2)
    assert "absent-user" in world.store.users, "a Secret that was deleted locks nobody out"
    assert world.condition("UsersReady")["status"] == "False"


async def test_an_access_key_of_two_is_refused_by_name_and_the_former_keys_stay(world: Any) -> None:
    write(world, "mine", accessKey="shared", secretKey="a-secret-of-mine")
    users = [{"name": "loki"}, {"name": "twin", "secretRef": {"name": "mine"}}]
    await world.start(users=users)
    root = pair(world, "logs-root")
    kept = pair(world, "logs-user-loki")
    write(world, "logs-user-loki", accessKey=root[0])
    await world.run_passes(2)
    assert world.condition("CredentialsReady")["reason"] == "AccessKeyNotUnique"
    assert "user 'loki' has the same access key as the root user" in world.condition("UsersReady")["message"]
    assert set(world.store.users) == {kept[0], "shared"}
    write(world, "logs-user-loki", accessKey=kept[0])
    write(world, "mine", accessKey=kept[0])
    await world.run_passes(2)
    assert "user 'twin' has the same access key as user 'loki'" in world.condition("CredentialsReady")["message"]
    assert set(world.store.users) == {kept[0], "shared"}


async def test_what_somebody_removed_or_changed_in_the_store_is_made_again_within_a_minute(world: Any) -> None:
    await world.start()
    access_key = pair(world, "logs-user-loki")[0]
    declared = world.store.users[access_key]
    calls = len(world.store.calls)
    del world.store.buckets["loki-ruler"]
    world.store.users[access_key] = type(declared)(secret_key=declared.secret_key, name="loki", policies=["readwrite"])
    world.seconds += 50
    await world.run_pass()
    assert len(world.store.calls) == calls, "looking costs something too"
    world.seconds += 10
    await world.run_passes(2)
    assert "loki-ruler" in world.store.buckets
    assert world.store.users[access_key] == declared
    events = {value["message"] for (kind, _, _), value in world.kube.objects.items() if kind == "Event"}
    assert "made again as declared: bucket loki-ruler is gone; user loki was changed" in events
    calls, looks = len(world.store.calls), world.store.looks
    world.seconds += 61
    await world.run_pass()
    assert (len(world.store.calls), world.store.looks) == (calls, looks + 3)
    world.store.policies.clear()
    world.seconds += 61
    await world.run_pass()
    assert "tenant-user-loki" in world.store.policies


async def test_no_key_shows_in_status_or_events(world: Any) -> None:
    await world.start()
    secrets = [pair(world, name)[1] for name in ("logs-root", "logs-user-loki")]
    ask_for_new_keys(world, "logs-root")
    write(world, "logs-user-loki", secretKey="another-secret")
    await world.run_passes(3)
    secrets += [pair(world, name)[1] for name in ("logs-root", "logs-user-loki")]
    told = str(world.kube.tenant_status()) + str([v for (k, _, _), v in world.kube.objects.items() if k == "Event"])
    assert not any(secret in told for secret in secrets)
    template = str(world.kube.object(STATEFUL_SET, "logs-pool-main")) + str(
        world.kube.object(CONFIG_MAP, "logs-config")
    )
    assert not any(secret in template for secret in secrets)


async def test_a_generated_secret_that_the_spec_begins_to_name_stays(world: Any) -> None:
    """Somebody writes down which Secret the user has; clients mount it."""
    await world.start()
    before = dict(world.kube.object(SECRET, "logs-user-loki")["data"])
    named = {"name": "loki", "buckets": [{"name": "loki-chunks"}], "secretRef": {"name": "logs-user-loki"}}
    world.change_spec(users=[named])
    await world.run_passes(2)
    assert world.kube.object(SECRET, "logs-user-loki")["data"] == before
    assert world.condition("CredentialsReady")["reason"] == "Present"
    world.change_spec()
    await world.run_passes(2)
    assert world.kube.object(SECRET, "logs-user-loki")["data"] == before
