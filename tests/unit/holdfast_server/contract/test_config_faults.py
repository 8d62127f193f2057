"""The pod's configuration file: what is refused, and that the refusal says where."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from holdfast_server.contract.config import ConfigError, from_builtins, to_builtins

GOOD: dict[str, Any] = {
    "version": 1,
    "tenant": {"id": "t-1", "name": "logs", "namespace": "loki"},
    "epoch": 1,
    "pools": [
        {
            "name": "main",
            "servers": 4,
            "volumesPerServer": 2,
            "erasure": {"setSize": 8, "parity": 4},
            "podNamePrefix": "logs-pool-main-",
            "drivePath": "/data{volume}",
        }
    ],
    "keys": {"rootUserFile": "/k/user", "rootPasswordFile": "/k/password", "peerKeyFile": "/k/peer"},
}


def _changed(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    document = copy.deepcopy(GOOD)
    change(document)
    return document


def _second_pool(document: dict[str, Any], **fields: Any) -> None:
    document["pools"].append({**document["pools"][0], **fields})


def test_a_good_file_round_trips() -> None:
    config = from_builtins(GOOD)
    assert config.pools[0].volumes_per_server == 2
    assert from_builtins(to_builtins(config)) == config
    reduced = from_builtins(_changed(lambda d: d["pools"][0]["erasure"].update(reducedRedundancyParity=3)))
    assert from_builtins(to_builtins(reduced)) == reduced
    assert reduced.pools[0].erasure.reduced_redundancy_parity == 3


def test_what_nobody_said_is_not_written_for_pods_that_would_refuse_it() -> None:
    assert "reducedRedundancyParity" not in str(to_builtins(from_builtins(GOOD)))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda d: d.update(colour="red"), "colour"),
        (lambda d: d.pop("tenant"), "tenant"),
        (lambda d: d.update(pools=[]), "pools"),
        (lambda d: d["pools"][0].update(servers="four"), r"pools\[\.\.\.\]\.servers|servers"),
        (lambda d: d.update(version=2), "version: 2"),
        (lambda d: d["pools"][0]["erasure"].update(setSize=5), r"pools\[0\]\.erasure\.setSize: 5"),
        (lambda d: d["pools"][0]["erasure"].update(parity=5), r"pools\[0\]\.erasure\.parity: 5"),
        (
            lambda d: d["pools"][0]["erasure"].update(reducedRedundancyParity=5),
            r"pools\[0\]\.erasure\.reducedRedundancyParity: 5",
        ),
        (lambda d: d["pools"][0].update(drivePath="/data"), r"pools\[0\]\.drivePath"),
        (lambda d: d["pools"][0].update(firstNode=1021), r"pools\[0\]\.firstNode"),
        (lambda d: d["pools"][0].update(firstNode=-1), r"pools\[0\]\.firstNode"),
        (lambda d: d["pools"][0].update(weight=0), "weight"),
        (lambda d: _second_pool(d, firstNode=4), r"pools\[1\]\.name: 'main' stands twice"),
        (lambda d: _second_pool(d, name="more", firstNode=3), r"pools\[1\]\.firstNode: overlaps"),
    ],
)
def test_a_fault_is_refused_with_its_place(change: Callable[[dict[str, Any]], object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        from_builtins(_changed(change))


def test_all_faults_of_meaning_are_told_together() -> None:
    document = _changed(lambda d: _second_pool(d, drivePath="/x", firstNode=2, erasure={"setSize": 7, "parity": 1}))
    with pytest.raises(ConfigError) as caught:
        from_builtins(document)
    told = str(caught.value)
    assert all(word in told for word in ("setSize", "stands twice", "overlaps", "drivePath"))
    assert len(told.splitlines()) == 4
