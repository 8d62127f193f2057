"""What the process asks of the machine it starts on."""

from __future__ import annotations

import getpass
import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import kopf
import pytest
import yaml

from holdfast_operator.handlers import build_settings
from holdfast_operator.main import run
from holdfast_operator.settings import parse_settings


async def test_a_user_without_a_name_may_run_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Containers run under numbers that /etc/passwd does not know; kopf asks for a name unless it is told one."""
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    (tmp_path / "config").write_text(yaml.safe_dump(kubeconfig))

    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 65532")

    monkeypatch.setattr(getpass, "getuser", nameless)
    spawned: list[Any] = []

    async def operator(**options: Any) -> None:
        tasks = await kopf.spawn_tasks(**options)
        spawned.extend(tasks)
        for task in tasks:
            task.cancel()

    monkeypatch.setattr(kopf, "operator", operator)
    await run(parse_settings(["-A", "--kubeconfig", str(tmp_path / "config")], {}))
    assert spawned


def test_kopf_tries_for_ever() -> None:
    """It ended the process after the last of nine attempts, within a minute: whatever else there was to do."""
    waits = build_settings(clusterwide=False).networking.error_backoffs
    assert isinstance(waits, Iterable)
    for _ in range(2):
        tried = list(itertools.islice(waits, 1000))
        assert len(tried) == 1000
        assert max(tried) <= 15
