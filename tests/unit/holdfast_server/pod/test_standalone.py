"""Paths on the command line, the log's form, hosts tables."""

from __future__ import annotations

import logging

import pytest

from holdfast_server.contract.config import ConfigError, Listen
from holdfast_server.peers.naming import look_up
from holdfast_server.pod.log_lines import LogfmtFormatter
from holdfast_server.pod.membership import find_membership
from holdfast_server.pod.standalone import POD, expand_paths, make_config


@pytest.mark.parametrize(
    ("patterns", "paths"),
    [
        (["/data"], ["/data"]),
        (["/data{1...4}"], ["/data1", "/data2", "/data3", "/data4"]),
        (["/d{08...10}/x"], ["/d08/x", "/d09/x", "/d10/x"]),
        (["/r{1...2}/d{1...2}"], ["/r1/d1", "/r1/d2", "/r2/d1", "/r2/d2"]),
        (["/a", "/b"], ["/a", "/b"]),
    ],
)
def test_expansion(patterns: list[str], paths: list[str]) -> None:
    assert expand_paths(patterns) == paths


@pytest.mark.parametrize(
    "patterns",
    [[], ["/d{4...1}"], ["/d{1...9999}"], ["/a", "/a"], ["/d{1...}"], ["/d{1..4}"], ["/d{1...200}", "/e{1...200}"]],
)
def test_bad_paths_are_refused(patterns: list[str]) -> None:
    with pytest.raises(ConfigError):
        expand_paths(patterns)


@pytest.mark.parametrize(("drives", "sets", "parity"), [(1, 1, 0), (4, 1, 2), (16, 1, 4), (32, 2, 4)])
def test_the_made_up_tenant_has_one_pod(drives: int, sets: int, parity: int) -> None:
    me = find_membership(make_config("id", drives, Listen()), POD)
    assert len(me.volumes) == drives
    assert {volume.set_index for volume in me.volumes} == set(range(sets))
    assert me.pool.erasure.parity == parity


def test_a_number_of_drives_that_cannot_be_cut_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot be cut"):
        make_config("id", 17, Listen())


def test_log_lines_cannot_be_forged() -> None:
    record = logging.makeLogRecord(
        {"name": "holdfast_server.pod.x", "levelname": "INFO", "msg": "hello there", "key": 'a"b\nlevel=error', "n": 5}
    )
    line = LogfmtFormatter().format(record)
    assert line.endswith('level=info event="hello there" logger=pod.x key="a\\"b\\nlevel=error" n=5')
    assert "\n" not in line


def test_hosts_tables() -> None:
    table = "# comment\n127.0.0.1 localhost\n\n127.77.0.3\tpod-0 pod-0.svc # pod\n127.77.0.4 pod-0\n"
    assert look_up(table, "pod-0") == "127.77.0.3"
    assert look_up(table, "pod-0.svc") == "127.77.0.3"
    assert look_up(table, "pod") is None
    assert look_up(table, "#") is None
