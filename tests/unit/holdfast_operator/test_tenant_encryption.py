"""Encryption keys of a tenant, over whole passes: made once, never again, watched over."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import pytest

from holdfast_operator.desired.secrets import LEDGER_KEY
from holdfast_operator.encryption_step import FIRST_KEY
from holdfast_operator.kube.errors import KubeForbidden, KubeRejected
from holdfast_operator.kube.port import DISRUPTION_BUDGET, POD, SECRET, STATEFUL_SET, Kind, Manifest
from holdfast_operator.ledger import Ledger, decode_ledger, encode_ledger
from holdfast_operator.reconcile import Reconciler

NAME = "logs-encryption"
NEW_KEY = base64.b64encode(b"6e" * 32).decode()
"""As the API has it: base64 of what the file holds, hexadecimal digits."""


def secret_of(world: Any, name: str = NAME) -> dict[str, Any]:
    return dict(world.kube.object(SECRET, name))


def change_secret(world: Any, **entries: str | None) -> None:
    secret = secret_of(world)
    data = {**secret["data"], **{name.replace("_", "."): value for name, value in entries.items()}}
    world.kube.put({**secret, "data": {name: value for name, value in data.items() if value is not None}})


def ledger_of(world: Any) -> Ledger:
    return decode_ledger(base64.b64decode(world.kube.object(SECRET, "logs-peer")["data"][LEDGER_KEY]))


def condition(world: Any) -> tuple[str, str]:
    found = world.condition("EncryptionReady")
    return found["status"], found["reason"]


async def lose_the_first_of_two_keys(world: Any) -> None:
    await world.start(encryption={})
    change_secret(world, default_2=NEW_KEY)
    await world.run_passes()
    change_secret(world, default_1=None)
    await world.run_passes()


async def test_without_it_nothing_is_made_mounted_or_said(world: Any) -> None:
    await world.start()
    assert NAME not in world.kube.names(SECRET)
    assert "EncryptionReady" not in {one["type"] for one in world.kube.tenant_status()["conditions"]}
    assert b"encryptionKeys" not in encode_ledger(ledger_of(world))
    [pool] = [world.kube.object(STATEFUL_SET, name) for name in world.kube.names(STATEFUL_SET)]
    assert "encryption" not in {volume["name"] for volume in pool["spec"]["template"]["spec"]["volumes"]}


async def test_the_first_key_is_made_once_and_mounted(world: Any) -> None:
    await world.start(encryption={})
    first = secret_of(world)
    assert list(first["data"]) == [FIRST_KEY]
    assert "ownerReferences" not in first["metadata"], "it outlives the Tenant with the data"
    assert condition(world) == ("True", "KeysInUse")
    await world.run_passes()
    world.restart_operator()
    await world.run_passes()
    assert secret_of(world)["data"] == first["data"]
    assert list(ledger_of(world).encryption_keys) == [FIRST_KEY]
    template = world.kube.object(STATEFUL_SET, "logs-pool-main")["spec"]["template"]["spec"]
    assert {"name": "encryption", "secret": {"secretName": NAME, "optional": True}} in template["volumes"]


async def test_it_goes_with_the_claims_if_they_go(world: Any) -> None:
    await world.start(encryption={}, claimRetention="Delete")
    assert secret_of(world)["metadata"]["ownerReferences"][0]["kind"] == "Tenant"
    world.change_spec(encryption={}, claimRetention="Retain")
    await world.run_passes()
    assert not secret_of(world)["metadata"].get("ownerReferences")
    assert list(secret_of(world)["data"]) == [FIRST_KEY]


async def test_a_lost_secret_is_told_and_never_made_anew(world: Any) -> None:
    await world.start(encryption={})
    kept = secret_of(world)
    await world.kube.delete(kept)
    world.restart_operator()
    await world.run_passes()
    assert NAME not in world.kube.names(SECRET)
    assert condition(world) == ("False", "KeysLost")
    assert FIRST_KEY in world.condition("EncryptionReady")["message"]
    assert world.condition("Ready")["status"] == "False"
    kept["metadata"] = {name: kept["metadata"][name] for name in ("name", "namespace", "labels")}
    world.kube.put(kept)
    await world.run_passes()
    assert condition(world) == ("True", "KeysInUse")
    assert world.condition("Ready")["status"] == "True"


async def test_pods_without_the_keys_that_are_lost_are_named(world: Any) -> None:
    await lose_the_first_of_two_keys(world)
    told = world.condition("EncryptionReady")
    assert told["reason"] == "KeysLost"
    assert "Pods without the keys of before: logs-pool-main-0, logs-pool-main-1" in told["message"]
    assert "refused" not in told["message"], "another key is there to encrypt under"


async def test_a_pod_that_was_started_without_the_keys_that_are_lost_is_named(world: Any) -> None:
    await world.start(encryption={})
    await world.kube.delete(secret_of(world))
    await world.run_passes()
    assert "Pods without" not in world.condition("EncryptionReady")["message"]
    world.pods.without_new_keys = {"logs-pool-main-1"}
    await world.run_passes()
    told = world.condition("EncryptionReady")["message"]
    assert "Pods without the keys of before: logs-pool-main-1; what is encrypted" in told
    assert "is refused by all pods" in told


async def test_a_secret_that_cannot_be_made_holds_up_nothing_else(world: Any) -> None:
    """A quota on Secrets that is used up."""
    await world.start()
    quota = KubeForbidden("403: exceeded quota: secrets")
    world.kube.fail_on = lambda verb, kind, name: quota if (verb, kind) == ("create", "Secret") else None
    world.change_spec(encryption={})
    world.pods.down = {"logs-pool-main-1"}
    world.pods.settle()
    await world.run_passes()
    assert condition(world) == ("False", "SecretNotMade")
    assert "exceeded quota" in world.condition("EncryptionReady")["message"]
    assert world.condition("Degraded")["reason"] == "DrivesMissing"
    assert world.kube.object(DISRUPTION_BUDGET, "logs")["spec"]["maxUnavailable"] == 0
    world.kube.fail_on = lambda verb, kind, name: None
    world.pods.down = set()
    world.pods.settle()
    await world.run_passes(16)
    assert condition(world) == ("True", "KeysInUse")


async def test_an_owner_that_cannot_be_written_is_told_and_lost_drives_too(world: Any) -> None:
    await world.start(encryption={})
    refused = KubeRejected("400: denied by a policy")
    world.kube.fail_on = lambda verb, kind, name: refused if (verb, name) == ("merge", NAME) else None
    world.change_spec(encryption={}, claimRetention="Delete", image="holdfast:next")
    world.pods.down = {"logs-pool-main-1"}
    world.pods.settle()
    await world.run_passes()
    template = world.kube.object(STATEFUL_SET, "logs-pool-main")["spec"]["template"]["spec"]
    assert template["containers"][0]["image"] == "holdfast:next", "the rest is applied"
    assert world.condition("PoolsReady")["reason"] == "ApplyFailed"
    assert "denied by a policy" in world.condition("PoolsReady")["message"]
    assert world.condition("Degraded")["reason"] == "DrivesMissing"
    assert world.kube.object(DISRUPTION_BUDGET, "logs")["spec"]["maxUnavailable"] == 0


@pytest.mark.parametrize("reason", ["KeysLost", "KeysExchanged", "KeysInvalid", "SecretNotOurs"])
async def test_no_pod_is_replaced_while_keys_are_lost(world: Any, reason: str) -> None:
    await world.start(encryption={})
    before = {name: world.kube.object(POD, name)["metadata"]["uid"] for name in world.kube.names(POD)}
    if reason == "KeysLost":
        await world.kube.delete(secret_of(world))
    elif reason == "SecretNotOurs":
        there = secret_of(world)
        await world.kube.delete(there)
        metadata = {name: there["metadata"][name] for name in ("name", "namespace")}
        world.kube.put({**there, "metadata": metadata, "data": {FIRST_KEY: NEW_KEY}})
    else:
        world.pods._encryption_keys = lambda *_: []
        change_secret(world, default_1=NEW_KEY if reason == "KeysExchanged" else base64.b64encode(b"short").decode())
    world.change_spec(encryption={}, image="holdfast:next")
    await world.run_passes(8)
    assert condition(world) == ("False", reason)
    assert "No pod is replaced or drained" in world.condition("EncryptionReady")["message"]
    assert {name: world.kube.object(POD, name)["metadata"]["uid"] for name in world.kube.names(POD)} == before
    assert world.kube.object(DISRUPTION_BUDGET, "logs")["spec"]["maxUnavailable"] == 0, "nor by drains"


async def test_a_pod_that_comes_back_in_the_middle_of_a_pass_keeps_its_keys(world: Any) -> None:
    """It was down by the view that the step was first decided on, and is not by the one that is read before it."""

    class Later:
        """The API server, a moment after what is read from memory."""

        def __getattr__(self, name: str) -> Any:
            return getattr(world.kube, name)

        async def list_objects(self, kind: Kind, namespace: str | None, labels: Any = None) -> list[Manifest]:
            found: list[Manifest] = await world.kube.list_objects(kind, namespace, labels)
            for pod in found if kind == POD else []:
                pod["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
            return found

    await world.start(encryption={})
    world.change_spec(encryption={}, image="holdfast:new")
    world.kube.remove((SECRET.kind, "loki", NAME))
    ports = replace(world.ports(world.kube), fresh_kube=Later())
    world.reconciler = Reconciler(ports, "holdfast:test", "cluster.local")
    await world.run_pass()
    pod = world.kube.object(POD, "logs-pool-main-0")
    pod["status"]["conditions"] = [{"type": "Ready", "status": "False"}]
    await world.run_pass()
    assert not [call for call in world.kube.calls if call[0] in ("evict", "delete") and call[1] == "Pod"]
    assert "put it back from a backup" in world.condition("Progressing")["message"]


async def test_it_is_not_made_anew_where_only_the_pods_configuration_remembers(world: Any) -> None:
    await world.start(encryption={})
    await world.kube.delete(secret_of(world))
    for name in ("logs-peer", "logs-peer-copy"):
        secret = secret_of(world, name)
        secret["data"] = {key: value for key, value in secret["data"].items() if key != LEDGER_KEY}
        world.kube.put(secret)
    world.restart_operator()
    await world.run_passes()
    assert NAME not in world.kube.names(SECRET)
    assert condition(world) == ("False", "KeysLost")


async def test_a_key_that_is_added_is_noted_and_said_to_be_used_once_all_pods_have_it(world: Any) -> None:
    await world.start(encryption={})
    world.pods.without_new_keys = {"logs-pool-main-1"}
    change_secret(world, default_2=NEW_KEY)
    await world.run_passes()
    assert condition(world) == ("False", "KeysSpreading")
    assert "logs-pool-main-1" in world.condition("EncryptionReady")["message"]
    assert world.condition("Ready")["status"] == "True"
    world.pods.without_new_keys = set()
    await world.run_passes()
    assert condition(world) == ("True", "KeysInUse")
    assert "default.2" in world.condition("EncryptionReady")["message"]
    assert sorted(ledger_of(world).encryption_keys) == ["default.1", "default.2"]


async def test_pods_that_were_started_without_keys_are_waited_for_and_nothing_is_wrong_with_the_secret(
    world: Any,
) -> None:
    await world.start(encryption={})
    world.pods.without_new_keys = {"logs-pool-main-1"}
    folder = "encryption.keysFolder: /etc/holdfast/encryption"
    world.pods.of_keys = {"logs-pool-main-1": f"{folder}: No such file or directory"}
    change_secret(world, default_2=NEW_KEY)
    await world.run_passes()
    assert condition(world) == ("False", "KeysSpreading")
    assert "logs-pool-main-1" in world.condition("EncryptionReady")["message"]
    world.pods.of_keys = {"logs-pool-main-1": f"{folder}: there is no key in it"}
    await world.run_passes()
    assert condition(world) == ("False", "PodsCannotUseIt")


async def test_a_key_may_go_once_it_is_retired(world: Any) -> None:
    await lose_the_first_of_two_keys(world)
    assert condition(world) == ("False", "KeysLost")
    world.change_spec(encryption={"retiredKeys": ["default.1"]})
    await world.run_passes()
    assert condition(world) == ("True", "KeysInUse")
    assert list(ledger_of(world).encryption_keys) == ["default.2"]


async def test_the_place_of_a_key_that_is_retired_may_be_taken_by_another(world: Any) -> None:
    await world.start(encryption={})
    change_secret(world, default_1=NEW_KEY)
    world.change_spec(encryption={"retiredKeys": ["default.1"]})
    await world.run_passes()
    assert world.condition("EncryptionReady")["reason"] in ("KeysSpreading", "KeysInUse")
    world.change_spec(encryption={})
    await world.run_passes()
    assert world.condition("EncryptionReady")["reason"] in ("KeysSpreading", "KeysInUse")


async def test_a_key_that_has_become_another_is_told(world: Any) -> None:
    await world.start(encryption={})
    noted = dict(ledger_of(world).encryption_keys)
    change_secret(world, default_1=NEW_KEY)
    await world.run_passes()
    assert condition(world) == ("False", "KeysExchanged")
    assert ledger_of(world).encryption_keys == noted


@pytest.mark.parametrize("entry", [base64.b64encode(b"short").decode(), ""])
async def test_what_is_no_key_is_told_without_showing_it(world: Any, entry: str) -> None:
    await world.start(encryption={})
    world.pods.without_new_keys = set(world.kube.names(POD))
    secret = secret_of(world)
    await world.kube.delete(secret)
    secret["metadata"] = {name: secret["metadata"][name] for name in ("name", "namespace", "labels")}
    world.pods._encryption_keys = lambda *_: []
    world.kube.put({**secret, "data": {**secret["data"], "default.2": entry}})
    await world.run_passes()
    assert condition(world) == ("False", "KeysInvalid")
    assert world.condition("Ready")["status"] == "True"
    assert world.kube.object(DISRUPTION_BUDGET, "logs")["spec"]["maxUnavailable"] == 0
    assert "default.2" in world.condition("EncryptionReady")["message"]
    assert "short" not in world.condition("EncryptionReady")["message"]


async def test_a_secret_of_the_users_is_used_and_never_made(world: Any) -> None:
    world.pods._encryption_keys = lambda *_: []
    await world.start(encryption={"secretRef": {"name": "mine"}})
    assert condition(world) == ("False", "SecretMissing")
    assert "mine" not in world.kube.names(SECRET)
    world.kube.put(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "mine", "namespace": "loki"},
            "data": {"default.1": NEW_KEY, "billing": NEW_KEY},
        }
    )
    await world.run_passes()
    assert sorted(ledger_of(world).encryption_keys) == ["billing", "default.1"]
    assert condition(world) == ("False", "KeysSpreading")
    template = world.kube.object(STATEFUL_SET, "logs-pool-main")["spec"]["template"]["spec"]
    assert {"name": "encryption", "secret": {"secretName": "mine", "optional": True}} in template["volumes"]


async def test_encryption_cannot_be_left_out_again(world: Any) -> None:
    await world.start(encryption={})
    world.change_spec()
    await world.run_passes()
    assert "spec.encryption" in world.condition("SpecValid")["message"]
    assert NAME in world.kube.names(SECRET)


async def test_a_secret_of_somebody_else_is_not_taken(world: Any) -> None:
    world.pods._encryption_keys = lambda *_: []
    world.kube.put(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": NAME, "namespace": "loki"},
            "data": {"default.1": NEW_KEY},
        }
    )
    await world.start(encryption={})
    assert condition(world) == ("False", "SecretNotOurs")
