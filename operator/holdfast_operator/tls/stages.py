"""How far a tenant's pods use TLS, one stage at a time (docs/decisions/0007-tls.md).  Pure.

Off, Offered, Used, Required: pods at neighbouring stages understand each other, so the next stage is published only
when every pod has reached the present one.  It is kept in the ledger: a pod that is silent must not make it fall
back.  A tenant without pools has no pods yet and begins where it wants to be.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from holdfast_operator.ledger import Ledger

STAGES = ("Off", "Offered", "Used", "Required")


def advance_tls(
    known: Ledger, ledger: Ledger, *, wanted: bool, usable: bool, reports: Mapping[tuple[str, int], str]
) -> Ledger:
    """`ledger` with its next stage.  `known` is the one the pods have been told of; `usable`: there is a certificate to
    show to clients; `reports`: the stage that each pod (pool, ordinal) says it has reached."""
    stage = ledger.tls_stage
    if not known.pools:
        return msgspec.structs.replace(ledger, tls_stage="Required" if wanted else "Off")
    goal = STAGES.index("Required" if wanted else "Off")
    here = STAGES.index(stage)
    if here == goal or (stage == "Off" and not usable):
        return ledger
    step = 1 if goal > here else -1
    if waiting_for(known, stage, step, reports):
        return ledger
    return msgspec.structs.replace(ledger, tls_stage=STAGES[here + step])


def waiting_for(ledger: Ledger, stage: str, step: int, reports: Mapping[tuple[str, int], str]) -> list[tuple[str, int]]:
    """The pods that have not reached the stage; `step` is the direction of the change.  A silent pod has not."""
    here = STAGES.index(stage)
    missing = []
    for record in ledger.pools:
        for ordinal in range(record.servers):
            report = reports.get((record.name, ordinal))
            reached = report in STAGES and (STAGES.index(report) - here) * step >= 0
            if not reached and stage != "Off":
                missing.append((record.name, ordinal))
    return missing


def speaks_tls(ledger: Ledger) -> bool:
    """Whether every pod can be relied upon to serve https, so that clients are sent there."""
    return ledger.tls_stage in ("Used", "Required")
