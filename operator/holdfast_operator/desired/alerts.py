"""The alerts of a tenant: what pages somebody, in PromQL over the pods' own metrics.

One list, from which both the PrometheusRule of a Tenant and `examples/monitoring/rules.yaml` come.  `$tenant` stands
for the label matchers of one tenant.  Every alert says what is the matter (summary), what to do (description) and where
to read on (runbook: a heading of docs/operations.md).

What several pods tell of one erasure set is taken at its best: a pod that is cut off sees everything gone, and has an
alert of its own.  No alert needs metrics of anybody else, such as kube-state-metrics.

`critical` is for what clients notice, or will with the next fault; the rest is `warning`.
"""

from __future__ import annotations

from dataclasses import dataclass
from string import Template
from typing import Any, Literal

RUNBOOK = "docs/operations.md"
EVERY_TENANT = 'tenant=~".*"'
"""Matches series without the label, too."""

_SET = "(namespace, tenant, pool, set)"
_CERTIFICATE = "(namespace, tenant, certificate)"
_ONLINE = f"max by {_SET} (holdfast_erasure_set_drives_online{{$tenant}})"
_DRIVES = f"max by {_SET} (holdfast_erasure_set_drives{{$tenant}})"
_READS = 'operation=~"GetObject|HeadObject|ListObjects.*"'
_WRITES = 'operation=~"PutObject|CopyObject|CreateMultipartUpload|UploadPart.*|CompleteMultipartUpload|DeleteObjects?"'


def _share_of_failures(operations: str) -> str:
    rate = "sum by (namespace, tenant) (rate(holdfast_s3_requests_total{$tenant, %s}[5m]))"
    failed = operations + ', status="5xx"'
    return f"{rate % failed} / {rate % operations} > 0.01"


@dataclass(frozen=True, slots=True)
class Alert:
    name: str
    expression: str
    """With `$tenant` among the matchers of every selector."""
    lasting: str
    """For how long, before it fires."""
    severity: Literal["critical", "warning"]
    summary: str
    description: str


ALERTS = (
    Alert(
        "HoldfastSilent",
        "absent(holdfast_build_info{$tenant})",
        "10m",
        "critical",
        "No pod of the store is scraped",
        "Look at the Tenant and its pods, and at the targets of Prometheus.",
    ),
    Alert(
        "HoldfastPodUnreachable",
        "max by (namespace, tenant, server) (holdfast_peer_connected{$tenant}) == 0",
        "5m",
        "warning",
        "No other pod reaches {{ $labels.server }}",
        "The store serves without it. See to the pod and its node, before another one fails.",
    ),
    Alert(
        "HoldfastPodRestarts",
        "changes(holdfast_start_time_seconds{$tenant}[1h]) > 3",
        "0m",
        "warning",
        "A pod has restarted {{ $value }} times within an hour",
        "Read the log of its former container (kubectl logs --previous), and look for OOMKilled in its status.",
    ),
    Alert(
        "HoldfastSetNotReadable",
        f"max by {_SET} (holdfast_erasure_set_readable{{$tenant}}) == 0",
        "1m",
        "critical",
        "Erasure set {{ $labels.set }} of pool {{ $labels.pool }} answers no reads",
        "Fewer drives answer than reads need. Bring back pods and drives; the Tenant's PoolsReady names them.",
    ),
    Alert(
        "HoldfastSetNotWritable",
        f"max by {_SET} (holdfast_erasure_set_writable{{$tenant}}) == 0",
        "1m",
        "critical",
        "Erasure set {{ $labels.set }} of pool {{ $labels.pool }} takes no writes",
        "Too few drives take writes: they are away, or full. Clients get 503 or 507. The Tenant's PoolsReady names "
        "them.",
    ),
    Alert(
        "HoldfastNoLossTolerated",
        f"max by {_SET} (holdfast_erasure_set_losses_left{{$tenant}}) == 0 and on {_SET} max by {_SET}"
        " (holdfast_erasure_set_drives_online{$tenant} - holdfast_erasure_set_drives_healing{$tenant})"
        f" < {_DRIVES}",
        "10m",
        "critical",
        "Erasure set {{ $labels.set }} of pool {{ $labels.pool }} can bear no further loss",
        "One more drive away stops writes. Bring back what is missing now; let what heals come to its end.",
    ),
    Alert(
        "HoldfastDriveMissing",
        f"{_DRIVES} - {_ONLINE} > 0",
        "10m",
        "warning",
        "{{ $value }} drives of erasure set {{ $labels.set }} of pool {{ $labels.pool }} do not answer",
        "Redundancy is reduced. The Tenant's Degraded condition names the drives and says why each is away.",
    ),
    Alert(
        "HoldfastDriveFaulty",
        'holdfast_drive_state{$tenant, state=~"faulty|blank"} == 1',
        "5m",
        "warning",
        "Drive {{ $labels.volume }} of {{ $labels.instance }} is {{ $labels.state }}",
        "Its message (holdfast admin heal status) says why, and whether it comes back by itself.",
    ),
    Alert(
        "HoldfastDriveErrors",
        "increase(holdfast_drive_io_errors_total{$tenant}[15m]) > 0",
        "0m",
        "warning",
        "Disk work on drive {{ $labels.volume }} of {{ $labels.instance }} ends in errors",
        "Look at the kernel's log of the node. A disk that goes on failing is best replaced before it fails for good.",
    ),
    Alert(
        "HoldfastRot",
        "increase(holdfast_scanner_rotten_total{$tenant}[1d]) > 0",
        "0m",
        "warning",
        "Shards on drive {{ $labels.volume }} of {{ $labels.instance }} were rotten or gone",
        "They were rebuilt. Look at that disk: more of them, day by day, say that it is dying.",
    ),
    Alert(
        "HoldfastDriveNearlyFull",
        "holdfast_drive_used_bytes{$tenant} / holdfast_drive_size_bytes{$tenant} > 0.8",
        "15m",
        "warning",
        "Drive {{ $labels.volume }} of {{ $labels.instance }} is {{ $value | humanizePercentage }} full",
        "Let the volumes grow, add a pool, or delete. At 99 % writes are refused with 507.",
    ),
    Alert(
        "HoldfastDriveFull",
        "holdfast_drive_full{$tenant} == 1",
        "1m",
        "critical",
        "Drive {{ $labels.volume }} of {{ $labels.instance }} takes no new data",
        "Let the volumes grow, or delete; deletes and reads go on, and writes begin again by themselves.",
    ),
    Alert(
        "HoldfastVersionsStuck",
        f"max by {_SET} (holdfast_heal_stuck_registers{{$tenant}}) > 0",
        "15m",
        "warning",
        "{{ $value }} versions in erasure set {{ $labels.set }} of pool {{ $labels.pool }} need a decision",
        "Reads of these keys get 503. Bring back a lost volume, or decide: holdfast admin heal list-stuck, then "
        "heal resolve.",
    ),
    Alert(
        "HoldfastHealingStuck",
        "holdfast_drive_filling_ratio{$tenant} < 1 and changes(holdfast_drive_filling_registers{$tenant}[30m]) == 0",
        "1h",
        "warning",
        "Drive {{ $labels.volume }} of {{ $labels.instance }} is not being filled any further",
        "See what heal status says of it, and whether the other drives of its set answer.",
    ),
    Alert(
        "HoldfastHealingFails",
        "sum by (namespace, tenant) (increase(holdfast_heal_failures_total{$tenant}[15m])) > 0"
        f" unless on (namespace, tenant) ({_ONLINE} < {_DRIVES})",
        "1h",
        "warning",
        "Repairs fail although all drives answer",
        "The pods' logs say what fails. Redundancy of what cannot be repaired stays reduced.",
    ),
    Alert(
        "HoldfastRepairQueueOld",
        f"max by {_SET} (holdfast_repair_queue_oldest_seconds{{$tenant}}) > 3600"
        f" and on {_SET} ({_ONLINE} == {_DRIVES})",
        "5m",
        "warning",
        "A missed write in erasure set {{ $labels.set }} of pool {{ $labels.pool }} has waited for repair for "
        "{{ $value | humanizeDuration }}",
        "All drives answer, so it should take seconds. See what heal status and the pods' logs say.",
    ),
    Alert(
        "HoldfastReadsFail",
        _share_of_failures(_READS),
        "5m",
        "critical",
        "{{ $value | humanizePercentage }} of reads end in 5xx",
        "Loki answers queries without the lines whose chunks it cannot read, and says nothing: distrust its results "
        "since this began. Look for sets that are not readable, for overload, and for stuck versions.",
    ),
    Alert(
        "HoldfastWritesFail",
        _share_of_failures(_WRITES),
        "5m",
        "critical",
        "{{ $value | humanizePercentage }} of writes end in 5xx",
        "Clients try again for a while and then lose what they hold. Look for sets that are not writable, full drives "
        "and overload.",
    ),
    Alert(
        "HoldfastOverloaded",
        "increase(holdfast_budget_refused_total{$tenant}[5m]) > 0",
        "5m",
        "warning",
        "Requests are told SlowDown for want of {{ $labels.budget }}",
        "Fewer requests at once, or more pods. The table of budgets says what each is made of.",
    ),
    Alert(
        "HoldfastEpochBehind",
        "holdfast_pool_map_newest_epoch{$tenant} > holdfast_pool_map_epoch{$tenant}",
        "5m",
        "warning",
        "{{ $labels.instance }} works with an old map of the pools and coordinates nothing",
        "Its ConfigMap is stale: see to the kubelet of its node, or delete the pod.",
    ),
    Alert(
        "HoldfastVersionsDiffer",
        "count by (namespace, tenant) (count by (namespace, tenant, version) (holdfast_build_info{$tenant})) > 1",
        "1d",
        "warning",
        "The pods have run {{ $value }} different versions for a day",
        "A roll has stopped half-way: the Tenant's Progressing condition says what it waits for.",
    ),
    Alert(
        "HoldfastCertificateExpires",
        f"min by {_CERTIFICATE} (holdfast_tls_certificate_expiry_timestamp_seconds{{$tenant}}) - time() < 7 * 86400",
        "5m",
        "critical",
        "The certificate for {{ $labels.certificate }} ends in {{ $value | humanizeDuration }}",
        "Clients that verify, and pods, will be cut off from the store. The Tenant's TLSReady says what keeps it from "
        "being renewed.",
    ),
    Alert(
        "HoldfastCertificateNotRenewed",
        f"min by {_CERTIFICATE} ((holdfast_tls_certificate_expiry_timestamp_seconds{{$tenant}} - time()) / "
        "(holdfast_tls_certificate_expiry_timestamp_seconds{$tenant}"
        " - holdfast_tls_certificate_start_timestamp_seconds{$tenant})) < 0.2",
        "1h",
        "warning",
        "The certificate for {{ $labels.certificate }} has {{ $value | humanizePercentage }} of its time left",
        "The operator and cert-manager renew when a third is left. See TLSReady, the operator's log, and whether the "
        "pods read their files; one that you bring is yours to replace.",
    ),
    Alert(
        "HoldfastEncryptionKeysRefused",
        "holdfast_encryption_keys_refused{$tenant} == 1",
        "5m",
        "critical",
        "{{ $labels.instance }} cannot take over its encryption keys",
        "It goes on with the keys it has in memory, and will have none once it starts anew. The Tenant's "
        "EncryptionReady says what is wrong with the Secret.",
    ),
    Alert(
        "HoldfastAuditLost",
        "increase(holdfast_audit_dropped_total{$tenant}[15m]) > 0",
        "0m",
        "warning",
        "Audit lines for {{ $labels.sink }} are lost",
        "The sink takes none, or too slowly; the log of {{ $labels.instance }} says why. Requests are not held up.",
    ),
)


def alert_groups(tenant_matchers: str) -> list[dict[str, Any]]:
    """Rule groups as Prometheus reads them; `tenant_matchers` as in `namespace="a", tenant="b"`."""
    return [{"name": "holdfast", "rules": [_rule(alert, tenant_matchers) for alert in ALERTS]}]


def _rule(alert: Alert, matchers: str) -> dict[str, Any]:
    return {
        "alert": alert.name,
        "expr": Template(alert.expression).substitute(tenant=matchers),
        "for": alert.lasting,
        "labels": {"severity": alert.severity},
        "annotations": {
            "summary": alert.summary,
            "description": alert.description,
            "runbook": f"{RUNBOOK}#{alert.name.lower()}",
        },
    }
