"""What a refused spec stops, and what it does not: pods stay untouched, and what keeps them alive goes on."""

from __future__ import annotations

import base64
import copy
import gzip
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from holdfast_operator.accepted_spec import KEY, render_accepted_spec
from holdfast_operator.kube.errors import KubeRejected
from holdfast_operator.kube.port import DISRUPTION_BUDGET, SECRET, STATEFUL_SET
from holdfast_operator.reconcile import Reconciler
from holdfast_operator.tenant.parse import parse_tenant
from holdfast_operator.tls.reading import read_certificate

RECORD = (SECRET.kind, "loki", "logs-accepted-spec")
DAY_SECONDS = 24 * 3600
REFUSED = {"region": "Nowhere!"}


def pods_touched(world: Any) -> list[Any]:
    return [call for call in world.kube.calls if call[0] in ("evict", "delete") and call[1] != SECRET.kind]


async def refuse(world: Any, **changes: Any) -> None:
    """A Tenant whose spec is refused, and an operator that has just started."""
    world.change_spec(**(changes or REFUSED))
    world.restart_operator()
    await world.run_passes(2)
    assert world.condition("SpecValid")["status"] == "False"


async def test_certificates_are_renewed(world: Any) -> None:
    await world.start(tls={"mode": "SelfSigned"})
    before = copy.deepcopy(world.kube.object(SECRET, "logs-tls")["data"])
    await refuse(world, tls={"mode": "SelfSigned"}, **REFUSED)
    world.seconds += 70 * DAY_SECONDS
    await world.run_passes(2)
    after = world.kube.object(SECRET, "logs-tls")["data"]
    assert after["tls.crt"] != before["tls.crt"]
    served = read_certificate(base64.b64decode(after["tls.crt"]).decode())
    assert served.expires.timestamp() - datetime(2026, 11, 20, tzinfo=UTC).timestamp() > 150 * DAY_SECONDS
    assert world.condition("TLSReady")["status"] == "True"


async def test_the_disruption_budget_and_the_status_follow_the_drives(world: Any) -> None:
    await world.start()
    await refuse(world)
    assert world.kube.object(DISRUPTION_BUDGET, "logs")["spec"]["maxUnavailable"] == 1
    world.pods.down = {"logs-pool-main-2"}
    world.pods.settle()
    await world.run_pass()
    assert world.kube.object(DISRUPTION_BUDGET, "logs")["spec"]["maxUnavailable"] == 0
    status = world.kube.tenant_status()
    assert (status["health"], status["pools"][0]["ready"]) == ("Degraded", 3)
    assert world.condition("Degraded")["reason"] == "DrivesMissing"
    assert world.condition("PoolsReady")["status"] == "True"
    told = world.condition("Ready")
    assert (told["status"], told["reason"]) == ("False", "SpecInvalid")
    assert "kept as the last accepted spec has it" in told["message"]


@pytest.mark.parametrize("name", ["logs-root", "logs-user-loki", "logs-peer"])
async def test_a_deleted_secret_is_restored(world: Any, name: str) -> None:
    await world.start()
    before = copy.deepcopy(world.kube.object(SECRET, name)["data"])
    await refuse(world)
    world.kube.remove((SECRET.kind, "loki", name))
    await world.run_passes(2)
    assert world.kube.object(SECRET, name)["data"] == before


async def test_drift_in_the_store_is_put_right(world: Any) -> None:
    await world.start()
    await refuse(world)
    del world.store.buckets["loki-ruler"]
    world.seconds += 700
    await world.run_pass()
    assert "loki-ruler" in world.store.buckets


async def test_a_pool_that_is_left_out_is_no_less_cared_for(world: Any) -> None:
    """Refused by the ledger, where the schema has nothing against it."""
    await world.start()
    other = copy.deepcopy(world.body()["spec"]["pools"][0])
    other["name"] = "other"
    await refuse(world, pools=[other])
    world.kube.remove((SECRET.kind, "loki", "logs-root"))
    await world.run_passes(2)
    assert "logs-root" in world.kube.names(SECRET)
    assert world.kube.names(STATEFUL_SET) == ["logs-pool-main"]
    assert "pool 'main' holds data" in world.condition("SpecValid")["message"]


async def test_no_pod_is_replaced_and_nothing_of_the_refused_spec_is_done(world: Any) -> None:
    await world.start()
    world.change_spec(image="holdfast:new")
    await world.run_pass()  # a roll that is due, and held up
    await refuse(world, image="holdfast:newest", buckets=[{"name": "loki-chunks"}, {"name": "third-one"}], **REFUSED)
    world.reconciler = Reconciler(world.ports(world.kube), "holdfast:of-a-new-operator", "cluster.local")
    world.kube.calls.clear()
    await world.run_passes(5)
    assert pods_touched(world) == []
    assert "third-one" not in world.store.buckets
    template = world.kube.object(STATEFUL_SET, "logs-pool-main")["spec"]["template"]
    assert template["spec"]["containers"][0]["image"] == "holdfast:new"
    world.change_spec(image="holdfast:new")
    await world.run_passes(6)
    assert [call[0] for call in pods_touched(world)].count("evict") == 4
    assert world.condition("Ready")["status"] == "True"


async def test_a_spec_refused_from_the_start_makes_nothing(world: Any) -> None:
    body = world.body()
    body["spec"].update(REFUSED)
    world.kube.put(body)
    await world.run_passes(2)
    assert world.kube.names(STATEFUL_SET) == world.kube.names(SECRET) == []


async def test_missing_keys_are_told_beside_the_refusal(world: Any) -> None:
    await world.start()
    await refuse(world)
    for name in ("logs-peer", "logs-peer-copy"):
        world.kube.remove((SECRET.kind, "loki", name))
    await world.run_pass()
    assert world.condition("SpecValid")["status"] == "False"
    assert world.condition("CredentialsReady")["reason"] == "PeerSecretLost"
    assert world.condition("Ready")["reason"] == "SpecInvalid"


def packed(content: bytes) -> str:
    return base64.b64encode(base64.b64encode(content)).decode()


def test_the_record_is_text_and_holds_more_than_a_secret_could(tenant_body: Any) -> None:
    policies = [{"name": f"p{number}", "document": {"Statement": "x" * 10_000}} for number in range(200)]
    tenant = parse_tenant(tenant_body()).spec
    assert tenant is not None
    record = render_accepted_spec(tenant, {"policies": policies})
    base64.b64decode(record["data"][KEY]).decode("ascii")
    assert len(record["data"][KEY]) < 1 << 20


@pytest.mark.parametrize(
    "what", ["gone", "of a former Tenant", "cut off", "no base64", "nested without end", "refused", "empty"]
)
async def test_a_record_that_cannot_be_believed_counts_as_absent(world: Any, what: str) -> None:
    await world.start()
    record = world.kube.objects[RECORD]
    if what == "gone":
        world.kube.remove(RECORD)
    elif what == "of a former Tenant":
        record["metadata"]["ownerReferences"][0]["uid"] = "tenant-0"
    elif what == "cut off":
        record["data"][KEY] = packed(base64.b64decode(base64.b64decode(record["data"][KEY]))[:40])
    elif what == "no base64":
        record["data"][KEY] = "?"
    elif what == "nested without end":
        record["data"][KEY] = packed(gzip.compress(b"[" * 200_000))
    elif what == "refused":
        record["data"][KEY] = packed(gzip.compress(b'{"pools": []}'))
    else:
        record["data"] = {}
    world.kube.calls.clear()
    await refuse(world)
    assert {call[:2] for call in world.kube.calls} <= {("status", "Tenant"), ("apply", "Event")}
    assert "not looked after" in world.condition("Ready")["message"]
    if what == "of a former Tenant":
        world.kube.remove(RECORD)  # as the garbage collector does sooner or later
    world.change_spec()
    await world.run_passes(2)
    assert world.condition("Ready")["status"] == "True"
    assert RECORD in world.kube.objects


def accept_as_before(world: Any, spec: dict[str, Any]) -> None:
    """What an earlier operator did with a spec that is refused by now: it wrote it down, and went on."""
    packed_spec = gzip.compress(json.dumps(spec).encode())
    world.kube.objects[RECORD]["data"][KEY] = packed(packed_spec)


async def test_amounts_that_an_earlier_operator_passed_on_leave_nobody_unattended(world: Any) -> None:
    """It could not apply the StatefulSet with them, and looked after all else; an upgrade must do no less."""
    tls = {"mode": "SelfSigned"}
    await world.start(tls=tls)
    pool = {**world.body()["spec"]["pools"][0], "resources": {"requests": {"cpu": "one"}}}
    world.change_spec(tls=tls, pools=[pool])
    accept_as_before(world, world.kube.objects["Tenant", "loki", "logs"]["spec"])
    refusal = KubeRejected("unable to parse quantity's suffix")
    world.kube.fail_on = lambda verb, kind, name: refusal if (verb, kind) == ("apply", "StatefulSet") else None
    world.restart_operator()
    world.kube.remove((SECRET.kind, "loki", "logs-root"))
    before = copy.deepcopy(world.kube.object(SECRET, "logs-tls")["data"])
    del world.store.buckets["loki-ruler"]
    world.pods.down = {"logs-pool-main-2"}
    world.pods.settle()
    world.seconds += 70 * DAY_SECONDS
    world.kube.calls.clear()
    await world.run_passes(2)
    assert "spec.pools[0].resources.requests.cpu: 'one' is no amount" in world.condition("SpecValid")["message"]
    assert "kept as the last accepted spec has it" in world.condition("Ready")["message"]
    assert world.kube.object(SECRET, "logs-tls")["data"] != before
    assert "logs-root" in world.kube.names(SECRET)
    assert "loki-ruler" in world.store.buckets
    assert world.kube.object(DISRUPTION_BUDGET, "logs")["spec"]["maxUnavailable"] == 0
    assert world.kube.tenant_status()["pools"][0]["ready"] == 3
    assert pods_touched(world) == []


async def test_a_record_with_another_fault_beside_such_amounts_is_not_believed(world: Any) -> None:
    await world.start()
    pool = {**world.body()["spec"]["pools"][0], "resources": {"requests": {"cpu": "one"}}}
    world.change_spec(pools=[pool], **REFUSED)
    accept_as_before(world, world.kube.objects["Tenant", "loki", "logs"]["spec"])
    await world.run_passes(2)
    assert "not looked after" in world.condition("Ready")["message"]


async def test_such_amounts_are_not_taken_from_a_tenant_of_which_nothing_is_on_record(world: Any) -> None:
    body = world.body()
    body["spec"]["pools"][0]["resources"] = {"requests": {"cpu": "one"}}
    world.kube.put(body)
    await world.run_passes(2)
    assert world.kube.names(STATEFUL_SET) == world.kube.names(SECRET) == []


async def test_at_rest_a_refused_spec_costs_no_writes(world: Any) -> None:
    await world.start()
    await refuse(world)
    world.kube.calls.clear()
    await world.run_passes(5)
    assert world.kube.calls == []
