"""What `/metrics` says of a pod, read back as Prometheus reads it, and that the handbook names exactly that."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from holdfast_server.api.bucket_record import Quota
from holdfast_server.api.metrics import Metrics
from holdfast_server.api.usage_book import Used
from holdfast_server.contract.admin import PodState
from holdfast_server.contract.healing import (
    DriveHealing,
    FillingProgress,
    HealProgress,
    ScannerProgress,
    SetHealing,
)
from holdfast_server.contract.health import ClusterHealth, DriveHealth, EncryptionHealth, SetHealth
from holdfast_server.drives.disk_threads import CallTimes
from holdfast_server.memory.pod_memory import PodMemory
from holdfast_server.pod import metrics
from holdfast_server.pod.metrics import PeerView, PodCollector, PodView
from holdfast_server.pod.tls_files import Validity

ROOT = Path(__file__).resolve().parents[4]
DRIVE = {"pool": "main", "set": "0", "position": "1", "volume": "0"}
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def view() -> PodView:
    """Pod 1 of 4: its drive is being filled, another pod's is away."""
    filling = FillingProgress(
        replacement=True, registers_done=250, registers_total=1000, bytes_copied=4096, registers_per_second=50.0,
        seconds_left=15.0,
    )  # fmt: skip
    healing = HealProgress(
        drives=[
            DriveHealing(
                pool="main", set_index=0, position=1, volume=0, state="healing", queue_length=7,
                oldest_entry_seconds=3.5, filling=filling,
                scanner=ScannerProgress(fraction=0.25, last_pass_ended_ms=5000, rotten_found=2, bytes_verified=99),
            )
        ],
        sets=[SetHealing(pool="main", index=0, stuck=1)],
        registers_repaired=11,
        work_share=0.5,
    )  # fmt: skip
    own = DriveHealth(
        pool="main", set_index=0, position=1, ordinal=1, volume=0, state="healing", total_bytes=1000, used_bytes=300,
        available_bytes=650,
    )  # fmt: skip
    one_set = SetHealth(
        pool="main", index=0, set_size=8, parity=4, write_quorum=5, online=7, healing=1, writable=True, readable=True
    )
    state = PodState(
        pod="logs-pool-main-1", pool="main", ordinal=1, version="0.1.0", epoch=2, started_ms=1500, drives=[own],
        healing=healing,
    )  # fmt: skip
    calls = CallTimes()
    for seconds in (0.0005, 0.02, 0.02, 9.0):
        calls.add(seconds)
    calls.failed = 1
    peers = [PeerView("logs-pool-main-0", True, 3), PeerView("logs-pool-main-2", False, 0)]
    encryption = EncryptionHealth(fingerprints=["00", "01"], message="encryption.keysFolder: /keys: Permission denied")
    cluster = ClusterHealth(healthy=True, epoch=2, sets=[one_set], encryption=encryption)
    certificates = {"clients": Validity(1000, 5000), "peers": Validity(2000, 9000)}
    buckets = [("b01", Used(70, 3, 2, 0, 5, True), Quota(size_bytes=100, objects=9))]
    return PodView(
        state, cluster, peers, [calls], PodMemory().budgets(), 4, certificates=certificates, buckets=buckets
    )  # fmt: skip


@pytest.fixture
def exposition() -> str:
    metrics = Metrics()
    metrics.registry.register(PodCollector(view))
    metrics.requests.observe("PutObject", 200, 0.1)
    return metrics.render().decode()


@pytest.fixture
def samples(exposition: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
    }


def of(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


def test_a_drive_is_in_one_state_and_tells_how_full_it_is(samples: Samples) -> None:
    states = {state: of(samples, "holdfast_drive_state", **DRIVE, state=state) for state in ("ok", "healing", "faulty")}
    assert states == {"ok": 0, "healing": 1, "faulty": 0}
    assert of(samples, "holdfast_drive_size_bytes", **DRIVE) == 1000
    assert of(samples, "holdfast_drive_used_bytes", **DRIVE) == 300
    assert of(samples, "holdfast_drive_available_bytes", **DRIVE) == 650
    assert of(samples, "holdfast_drive_io_errors_total", **DRIVE) == 1
    assert of(samples, "holdfast_drive_call_seconds_bucket", **DRIVE, le="0.025") == 3
    assert of(samples, "holdfast_drive_call_seconds_count", **DRIVE) == 4


def test_keys_in_force_and_files_that_are_refused_are_told_apart(samples: Samples) -> None:
    assert of(samples, "holdfast_encryption_keys") == 2
    assert of(samples, "holdfast_encryption_keys_refused") == 1


def test_a_set_tells_what_it_may_still_lose(samples: Samples) -> None:
    where = {"pool": "main", "set": "0"}
    assert of(samples, "holdfast_erasure_set_drives_online", **where) == 7
    assert of(samples, "holdfast_erasure_set_writable", **where) == 1
    assert of(samples, "holdfast_erasure_set_losses_left", **where) == 2
    assert of(samples, "holdfast_heal_stuck_registers", **where) == 1


def test_healing_tells_how_far_it_is(samples: Samples) -> None:
    assert of(samples, "holdfast_drive_filling_ratio", **DRIVE, replacement="true") == 0.25
    assert of(samples, "holdfast_drive_filling_left_seconds", **DRIVE, replacement="true") == 15
    assert of(samples, "holdfast_repair_queue_length", **DRIVE) == 7
    assert of(samples, "holdfast_repair_queue_oldest_seconds", **DRIVE) == 3.5
    assert of(samples, "holdfast_scanner_rotten_total", **DRIVE) == 2
    assert of(samples, "holdfast_scanner_last_pass_timestamp_seconds", **DRIVE) == 5
    assert of(samples, "holdfast_heal_repaired_registers_total") == 11


def test_peers_and_epochs_are_told(samples: Samples) -> None:
    assert of(samples, "holdfast_peer_connected", server="logs-pool-main-0") == 1
    assert of(samples, "holdfast_peer_connected", server="logs-pool-main-2") == 0
    assert (of(samples, "holdfast_pool_map_epoch"), of(samples, "holdfast_pool_map_newest_epoch")) == (2, 3)


def test_certificates_tell_when_they_begin_and_end(samples: Samples) -> None:
    for name, begins, ends in (("clients", 1000, 5000), ("peers", 2000, 9000)):
        assert of(samples, "holdfast_tls_certificate_start_timestamp_seconds", certificate=name) == begins
        assert of(samples, "holdfast_tls_certificate_expiry_timestamp_seconds", certificate=name) == ends


def test_every_series_is_there_once(exposition: str) -> None:
    names = [line.partition(" ")[0] for line in exposition.splitlines() if not line.startswith("#")]
    series = [line.rpartition(" ")[0] for line in exposition.splitlines() if not line.startswith("#")]
    assert len(series) == len(set(series))
    assert all(name.startswith("holdfast_") for name in names)


def exposed(exposition: str) -> set[str]:
    """As an alert names them."""
    return {
        family.name + ("_total" if family.type == "counter" else "")
        for family in text_string_to_metric_families(exposition)
        if not family.name.endswith("_created")
    }


def test_operations_names_every_metric_and_no_other(exposition: str) -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    documented = re.findall(r"^\| `(holdfast_(?!operator_)[a-z0-9_]+)`", text, re.MULTILINE)
    assert len(documented) == len(set(documented))
    assert set(documented) == exposed(exposition)


def test_alerts_in_operations_name_metrics_that_exist(exposition: str) -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    named = {
        re.sub(r"_(bucket|count|sum)$", "", name)
        for name in re.findall(r"(?<![/\w])holdfast_(?!operator)[a-z0-9_]+", text)
    }
    assert named <= exposed(exposition)


def test_buckets_beyond_the_greatest_are_told_as_one() -> None:
    told = [(f"b{number:03}", Used(1000 - number, 2, 1, 0, 5, True), None) for number in range(103)]
    told[0] = ("b000", told[0][1], Quota(size_bytes=5000, objects=7))
    families = {family.name: family for family in metrics._usage(told)}
    size = {sample.labels["bucket"]: sample.value for sample in families["holdfast_bucket_usage_bytes"].samples}
    assert (len(size), size["b000"], size["b099"]) == (101, 1000, 901)
    assert size[metrics.OTHER_BUCKETS] == 900 + 899 + 898
    assert [sample.value for sample in families["holdfast_bucket_quota_bytes"].samples] == [5000]
    assert [sample.value for sample in families["holdfast_bucket_quota_versions"].samples] == [7]
    assert not any(family.samples for family in metrics._usage(()))
