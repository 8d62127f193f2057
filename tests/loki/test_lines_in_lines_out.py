"""Every line that Loki acknowledged comes back out of the store, whatever happens to the store's pods meanwhile.

The example Tenant on the stand-in cluster with four nodes, the example values, both of Loki's clients, http and https.
Loki's disk is emptied before it is asked, so that everything comes from the store; every line is compared.  With one
pod away everything has to be there: Loki answers a query whose chunks it cannot read as if there were none.

    HOLDFAST_LOKI=/path/to/loki pytest tests/loki -v -s
"""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from holdfast_operator.testing.cluster import Cluster, wait_for
from holdfast_server.testing.loki.chart_values import loki_configuration, merged, read_values
from holdfast_server.testing.loki.lines import NANOSECONDS, STEP_NANOSECONDS, Ledger, differences
from holdfast_server.testing.loki.program import Loki, seconds_ago
from holdfast_server.testing.standin import StandIn

pytestmark = [pytest.mark.timeout(3600)]

EXAMPLES = Path(__file__).parents[2] / "examples" / "loki"
NAMESPACE, TENANT, PODS = "loki", "logs", "logs-pool-main-"
ADDRESS = "logs.loki.svc.cluster.local:9000"
NODES = 4
LINES_PER_KILL = 9_600
LINES_PER_STEP = 1_200
LINES_AT_LEAST = 57_600
SPAN_SECONDS = 3_600
LONG_AGO_SECONDS = 48 * 3_600
SETTLE_SECONDS = 600
VARYING = re.compile(r"\b(start|end|ts|time)=\S+ ?|\S+Z |127(\.\d+){3}(:\d+)?|[0-9a-f]{8,}", re.IGNORECASE)
ODD = re.compile(r"Traceback|level=(error|critical)| (ERROR|CRITICAL) ")
AT_ONCE = {"compactor": {"delete_request_cancel_period": "1s", "delete_max_interval": "24h"}}
RETENTION = {"retention_stream": [{"selector": '{kind="doomed"}', "priority": 1, "period": "24h"}]}


@dataclass(slots=True)
class Store:
    """The Tenant of the example, and what is done to it."""

    standin: StandIn
    directory: Path
    cluster: Cluster

    @property
    def is_secure(self) -> bool:
        return self.standin.environment["AWS_ENDPOINT_URL_S3"].startswith("https:")

    def configuration(self, thanos: bool) -> dict[str, Any]:
        """The example values, but for the Service's address: this machine does not know its name."""
        files = ["values.yaml", *(["values-thanos.yaml"] if thanos else [])]
        files += ["values-https.yaml"] if self.is_secure else []
        text = json.dumps(loki_configuration(read_values(EXAMPLES / file for file in files)))
        address = urlsplit(self.standin.environment["AWS_ENDPOINT_URL_S3"]).netloc
        authority = self.directory / "ca.crt"
        if self.is_secure:
            authority.write_text(self.keys()["ca.crt"])
        found: dict[str, Any] = json.loads(
            text.replace(ADDRESS, address).replace("/etc/holdfast/ca.crt", str(authority))
        )
        return merged(found, {"limits_config": {**RETENTION, "deletion_mode": "filter-and-delete"}, **AT_ONCE})

    def keys(self) -> dict[str, str]:
        return self.cluster.secret(NAMESPACE, "logs-user-loki")

    def environment(self) -> dict[str, str]:
        keys = self.keys()
        return {name: keys[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}

    def is_whole(self) -> bool:
        return bool(self.cluster.tenant(NAMESPACE, TENANT)["status"]["health"] == "Healthy")

    @contextmanager
    def killing(self, pod: int, when: Callable[[], None] = lambda: None) -> Iterator[None]:
        """`kill -9`, once `when` returns, and then the block; returns when the pod is back and everything is whole."""
        name = f"{PODS}{pod}"
        process = self.standin.pod_pid(name)
        when()
        os.kill(process, signal.SIGKILL)
        try:
            yield
        finally:
            self.standin.wait_restarted(name, process, SETTLE_SECONDS)
            # First as the pods see it: the Tenant's status may still be that of before the kill.
            self.standin.wait_whole(SETTLE_SECONDS)
            wait_for("the Tenant to be whole", self.is_whole, SETTLE_SECONDS)

    @contextmanager
    def unplugged(self, pod: int) -> Iterator[None]:
        """The pod's node has no power while the block runs."""
        node = str(self.cluster.core.read_namespaced_pod(f"{PODS}{pod}", NAMESPACE).spec.node_name)
        self.cluster.set_power(node, on=False)
        try:
            wait_for("Degraded", lambda: self.cluster.condition(NAMESPACE, TENANT, "Degraded")["status"] == "True")
            yield
        finally:
            self.cluster.set_power(node, on=True)
            wait_for("the Tenant to be whole", self.is_whole, SETTLE_SECONDS)

    def pods(self) -> dict[str, str]:
        """Name → uid of those that are there."""
        found = self.cluster.core.list_namespaced_pod(NAMESPACE).items
        return {pod.metadata.name: pod.metadata.uid for pod in found if pod.metadata.deletion_timestamp is None}

    def roll(self, value: str) -> Callable[[], bool]:
        """Begin to replace every pod; returns whether that is over."""
        before = self.pods()
        pool = self.cluster.tenant(NAMESPACE, TENANT)["spec"]["pools"][0]
        env = [{"name": "SEEN_BY_NOBODY", "value": value}]
        self.cluster.patch_tenant(NAMESPACE, TENANT, {"spec": {"pools": [{**pool, "env": env}]}})

        def is_over() -> bool:
            now = self.pods()
            replaced = now.keys() == before.keys() and not set(now.values()) & set(before.values())
            settled = self.cluster.condition(NAMESPACE, TENANT, "Progressing")["reason"] == "Settled"
            return replaced and settled and self.is_whole()

        return is_over


@pytest.fixture(scope="module", params=["http", "https"])
def store(
    request: pytest.FixtureRequest, loki_binary: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Store]:
    directory = tmp_path_factory.mktemp(f"loki-{request.param}")
    tenant = yaml.safe_load((EXAMPLES / "tenant.yaml").read_text())
    if request.param == "https":
        tenant["spec"]["tls"] = {"mode": "SelfSigned"}
    (directory / "tenant.yaml").write_text(yaml.safe_dump(tenant))
    standin = StandIn(directory / "state", directory / "tenant.yaml", nodes=NODES)
    try:
        standin.start()
        cluster = Cluster(standin.kubeconfig)
        yield Store(standin, directory, cluster)
        cluster.close()
    finally:
        standin.stop()


@dataclass(slots=True)
class Trial:
    """One Loki, what it was given, and how the store answered it."""

    loki: Loki
    ledger: Ledger
    first_ns: int
    next_ns: int
    queries: int = 0
    requests: Counter[str] = field(default_factory=Counter)
    metrics: set[str] = field(default_factory=set)

    def push(self, count: int) -> None:
        batch = self.ledger.batch(count, self.next_ns)
        self.next_ns = 1 + max(int(at) for lines in batch.values() for at, _ in lines)
        self.loki.push(self.ledger, batch)

    def doom(self, count: int) -> None:
        """Lines that retention is to delete, and nothing beside them."""
        self.loki.push(self.ledger, self.ledger.batch(count, seconds_ago(LONG_AGO_SECONDS), "doomed"))

    def check(self, when: str, from_store: bool = True) -> None:
        """Asks for everything; it must be what was pushed, and have been read from the store."""
        before = self.loki.store_requests()
        got = self.loki.query(self.ledger.run, self.first_ns, self.next_ns)
        assert differences(self.ledger, got) == [], when
        self.queries += 1
        reads = gets(self.loki.store_requests()) - gets(before)
        assert reads > 0 or not from_store, f"{when}: nothing was read from the store"
        print(f"  {when}: {sum(map(len, got.values()))} lines, {reads} reads of the store", flush=True)

    def restart_empty(self) -> None:
        self.stop()
        self.loki.start()

    def stop(self) -> None:
        self.requests.update(self.loki.store_requests())
        self.metrics |= self.loki.metrics()
        self.loki.stop(wipe=True)

    def doomed(self) -> int:
        last_ns = seconds_ago(LONG_AGO_SECONDS - SPAN_SECONDS)
        got = self.loki.query(self.ledger.run, last_ns - 2 * SPAN_SECONDS * 10**9, last_ns, "doomed")
        return sum(map(len, got.values()))


def gets(requests: dict[str, int]) -> int:
    return requests.get("GetObject", 0) + requests.get("get", 0)


def uploads(requests: dict[str, int]) -> int:
    return requests.get("PutObject", 0) + requests.get("upload", 0)


@contextmanager
def in_background(work: Callable[[], None]) -> Iterator[None]:
    """Runs until the block ends and once to its end; what it raises is raised here."""
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    if errors:
        raise errors[0]


@pytest.mark.parametrize("client", ["classic", "thanos"])
def test_every_line_comes_back_out_of_the_store(store: Store, client: str, loki_binary: Path) -> None:
    run = f"{client}-{secrets.token_hex(4)}"
    start_ns = seconds_ago(SPAN_SECONDS)
    directory = store.directory / run
    loki = Loki(loki_binary, directory, store.configuration(client == "thanos"), store.environment())
    trial = Trial(loki, Ledger(run, seed=7), start_ns, start_ns)
    loki.start()
    try:
        trial.doom(LINES_PER_STEP)
        killed_while_writing(store, trial)
        trial.restart_empty()
        trial.check("after a restart on an empty disk")
        killed_while_reading(store, trial)
        rolled(store, trial, run)
        without_a_node(store, trial)
        deleted_by_retention(trial)
        deleted_on_request(trial)
        trial.stop()
        loki.configuration = store.configuration(client != "thanos")
        loki.start()
        trial.check("through the other client")
        trial.stop()
        alerts = (EXAMPLES / "alerts.yaml").read_text()
        assert set(re.findall(r"\bloki_\w+", alerts)) <= trial.metrics, "alerts on what this Loki does not have"
    finally:
        loki.stop(wipe=True)
        tell(store, trial)


def killed_while_writing(store: Store, trial: Trial) -> None:
    for pod in (1, 2, 3):
        trial.push(LINES_PER_KILL)
        killed_while_flushing(store, trial.loki, pod)
    trial.push(LINES_PER_KILL)
    trial.loki.flush()
    trial.check("after kills while writing", from_store=False)


def killed_while_flushing(store: Store, loki: Loki, pod: int) -> None:
    before = uploads(loki.store_requests())

    def flush_has_begun() -> None:
        loki.flush()
        wait_for("the first upload", lambda: uploads(loki.store_requests()) > before)

    with store.killing(pod, flush_has_begun):
        at = uploads(loki.store_requests()) - before
    print(f"  pod {pod} killed after {at} of {uploads(loki.store_requests()) - before} uploads of a flush", flush=True)


def killed_while_reading(store: Store, trial: Trial) -> None:
    for pod in (0, 2):
        with in_background(lambda: trial.check("while a pod is killed")), store.killing(pod):
            pass
        with store.killing(pod):
            trial.check("right after a pod was killed")


def rolled(store: Store, trial: Trial, value: str) -> None:
    is_over = store.roll(value)
    deadline = time.monotonic() + SETTLE_SECONDS
    while not is_over():
        assert time.monotonic() < deadline, "the roll does not end"
        trial.push(LINES_PER_STEP)
        trial.loki.flush()
        trial.check("during a roll")
    while len(trial.ledger) < LINES_AT_LEAST + LINES_PER_STEP:
        trial.push(LINES_PER_STEP)
    trial.loki.flush()
    trial.restart_empty()
    trial.check("after a roll, on an empty disk")


def without_a_node(store: Store, trial: Trial) -> None:
    with store.unplugged(1):
        trial.push(LINES_PER_STEP)
        trial.loki.flush()
        trial.restart_empty()
        trial.check("with a node without power, on an empty disk")


def deleted_by_retention(trial: Trial) -> None:
    """The compactor, which has been at work all the time, has taken away what is too old and nothing else."""
    wait_for("retention to delete", lambda: trial.doomed() == 0, SETTLE_SECONDS)
    requests = trial.requests + Counter(trial.loki.store_requests())
    assert requests["DeleteObject"] + requests["delete"] > 0
    trial.check("after retention deleted what is too old")


def deleted_on_request(trial: Trial) -> None:
    """Through Loki's own API: whole streams, and lines out of the middle of chunks, which are written anew."""
    first = trial.next_ns
    for kind in ("unwanted", "partly"):
        batch = trial.ledger.batch(LINES_PER_STEP, first, kind)
        trial.loki.push(trial.ledger, batch)
    # In whole seconds, which is what a request to delete has.
    last = trial.next_ns = first + LINES_PER_STEP * STEP_NANOSECONDS + NANOSECONDS
    trial.loki.flush()
    # With an index in the store, and no chunk in memory.
    trial.restart_empty()
    before = Counter(trial.loki.store_requests())
    selector = f'{{app="lines",run="{trial.ledger.run}"'
    trial.loki.delete(f'{selector},kind="unwanted"}}', first, last)
    trial.loki.delete(f'{selector},kind="partly"}} |= `{trial.ledger.run} ` |~ ` [0-9]*[05] `', first, last)
    wait_for("Loki to have deleted", lambda: set(trial.loki.deletions()) == {"processed"}, SETTLE_SECONDS)
    done = Counter(trial.loki.store_requests()) - before
    assert done["DeleteObject"] + done["delete"] > 0
    assert uploads(done) > 0, "no chunk was written anew"
    assert trial.loki.query(trial.ledger.run, trial.first_ns, trial.next_ns, "unwanted") == {}
    kept = Ledger(trial.ledger.run, 0)
    for stream in trial.ledger.streams("partly"):
        kept.lines[stream] = {line for line in trial.ledger.lines[stream] if line[1].split()[1][-1] not in "05"}
    left = trial.loki.query(trial.ledger.run, trial.first_ns, trial.next_ns, "partly")
    assert differences(kept, left, "partly") == []
    trial.check("after lines were deleted on request")


def tell(store: Store, trial: Trial) -> None:
    print(f"\n{trial.ledger.run}: {len(trial.ledger)} lines, {trial.queries} times all of them asked for and compared")
    print(f"  requests to the store: {dict(sorted(trial.requests.items()))}")
    for line, count in Counter(told_by(line) for line in trial.loki.complaints()).most_common():
        print(f"  Loki, {count} times: {line}")
    for path in sorted(store.standin.state.glob("**/logs/*.log")):
        lines = path.read_text(errors="replace").splitlines()
        for line, count in Counter(told_by(line) for line in lines if ODD.search(line)).most_common(10):
            print(f"  {path.relative_to(store.standin.state)}, {count} times: {line}")


def told_by(line: str) -> str:
    """Without times, addresses and ids, so that the same complaint is counted once."""
    return VARYING.sub("", line)[:300]
