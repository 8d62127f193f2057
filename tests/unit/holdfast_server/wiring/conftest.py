"""Whole pods in one process, patient: on a busy machine they would take each other for hanging, and its disk, too,
which takes seconds for an fsync then.  Who tests that sets a limit itself.
"""

from __future__ import annotations

import pytest

from holdfast_server.drives.disk_threads import Watch
from holdfast_server.peers import channel, messages, server

PATIENT_SECONDS = 60.0


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (channel, server):
        monkeypatch.setattr(module, "HANDSHAKE_TIMEOUT_SECONDS", PATIENT_SECONDS)
    for verb, spec in messages.VERBS.items():
        monkeypatch.setitem(messages.VERBS, verb, spec._replace(timeout_seconds=PATIENT_SECONDS))
    monkeypatch.setattr(Watch, "longest", lambda _: (0.0, ""))
