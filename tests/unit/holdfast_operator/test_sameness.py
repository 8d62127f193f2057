"""What the API server rewrites is no difference; what somebody changed is one."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast_operator.sameness import covers


@pytest.mark.parametrize(
    ("existing", "wanted"),
    [
        ({"a": 1, "b": 2}, {"a": 1}),
        ({"cpu": "1"}, {"cpu": "1000m"}),
        ({"cpu": "1"}, {"cpu": 1}),
        ({"cpu": "2"}, {"cpu": "2.0"}),
        ({"cpu": "500m"}, {"cpu": 0.5}),
        ({"memory": "1Gi"}, {"memory": "1024Mi"}),
        ({"storage": "10G"}, {"storage": "10e9"}),
        ({"storage": "2E"}, {"storage": "2e18"}),
        ({"memory": "1536Mi"}, {"memory": "1.5Gi"}),
        ({"name": "A"}, {"name": "A", "value": ""}),
        ({}, {"values": [], "labels": {}, "x": None}),
        ([{"protocol": "TCP", "port": 1}], [{"port": 1}]),
        ([{"name": "x"}, {"name": "a"}, {"name": "y"}, {"name": "b"}], [{"name": "a"}, {"name": "b"}]),
        (
            [{"mountPath": "/a", "name": "v"}, {"mountPath": "/x", "name": "v"}],
            [{"mountPath": "/a", "name": "v"}],
        ),
        ([{"uid": "1", "name": "n"}, {"uid": "2", "name": "n"}], [{"uid": "2", "name": "n"}]),
    ],
)
def test_rewritten_values_are_the_same(existing: Any, wanted: Any) -> None:
    assert covers(existing, wanted)


@pytest.mark.parametrize(
    ("existing", "wanted"),
    [
        ({"a": 1}, {"a": 2}),
        ({}, {"a": 0}),
        ({}, {"automountServiceAccountToken": False}),
        ({"a": True}, {"a": 1.5}),
        ({"a": "1Gi"}, {"a": "1G"}),
        ({"a": "1m"}, {"a": "1M"}),
        ({"value": "yes"}, {"value": ""}),
        ({"values": ["x"]}, {"values": []}),
        ([1], [1, 2]),
        ([2, 1], [1, 2]),
        ([{"name": "a"}, {"name": "x"}], [{"name": "a"}, {"name": "b"}]),
        ([{"name": "b"}, {"name": "a"}], [{"name": "a"}, {"name": "b"}]),
        ([{"name": "a", "value": "2"}, {"name": "x"}], [{"name": "a", "value": "1"}]),
        ([{"port": 1}, {"port": 2}], [{"port": 1}]),
        ([{"from": [{"podSelector": {}}]}], []),
        ("1", "a"),
        (None, {"a": 1}),
        ("x", {}),
    ],
)
def test_changes_are_noticed(existing: Any, wanted: Any) -> None:
    assert not covers(existing, wanted)
