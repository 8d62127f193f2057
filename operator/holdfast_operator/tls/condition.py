"""The condition TLSReady.  Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from holdfast_operator import labels
from holdfast_operator.ledger import Ledger
from holdfast_operator.status.conditions import Finding
from holdfast_operator.tenant.spec import TenantSpec
from holdfast_operator.tls.stages import waiting_for
from holdfast_operator.tls.values import TenantTls

PODS_NAMED = 4
SWITCHING = "Switching"


def derive_tls(
    tenant: TenantSpec,
    ledger: Ledger,
    tls: TenantTls | None,
    trouble: tuple[str, str] | None,
    reports: Mapping[tuple[str, int], str],
    pod_messages: Sequence[str],
) -> Finding:
    """`trouble`: why nothing could be gathered at all; `pod_messages`: what pods say of files they cannot use."""
    wanted = tenant.tls.mode != "Disabled"
    trouble = trouble or (tls.trouble if tls is not None else None)
    if trouble is not None:
        reason, message = trouble
        return Finding("TLSReady", False, reason, message + _meanwhile(ledger, tls))
    if pod_messages:
        return Finding("TLSReady", False, "PodsCannotUseIt", "; ".join(dict.fromkeys(pod_messages)))
    if ledger.tls_stage != ("Required" if wanted else "Off"):
        missing = waiting_for(ledger, ledger.tls_stage, 1 if wanted else -1, reports)
        named = [labels.pod_name(tenant.name, pool, ordinal) for pool, ordinal in missing[:PODS_NAMED]]
        waiting = f"; waiting for {', '.join(named)}{' and more' if len(missing) > PODS_NAMED else ''}" if named else ""
        return Finding("TLSReady", False, SWITCHING, f"pods change over, at stage {ledger.tls_stage}{waiting}")
    if not wanted:
        return Finding("TLSReady", True, "Disabled", "spec.tls.mode is Disabled")
    until = f"; the certificate ends at {tls.expires:%Y-%m-%d %H:%M} UTC" if tls is not None and tls.expires else ""
    return Finding("TLSReady", True, "Serving", f"clients and pods use TLS{until}")


def _meanwhile(ledger: Ledger, tls: TenantTls | None) -> str:
    """What clients get until somebody has put it right."""
    if ledger.tls_stage == "Off":
        return "; until then clients are served without TLS" if ledger.pools else ""
    if tls is None or tls.clients is None or tls.expires is None:
        return ""
    return f"; pods go on with the certificate that they have, whose end is {tls.expires:%Y-%m-%d %H:%M} UTC"


def keeps_from_serving(finding: Finding, tls: TenantTls | None, now: datetime) -> bool:
    """Whether clients are not served because of it: there is no certificate that could be shown, or it has ended."""
    if finding.value is not False or finding.reason == SWITCHING:
        return False
    return tls is None or tls.clients is None or tls.ended(now)
