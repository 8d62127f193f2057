"""Patches, quantities and conditions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_operator.status.capacity import quantity
from holdfast_operator.status.conditions import Finding, derive_conditions
from holdfast_operator.status.patch import merge_patch
from holdfast_operator.testing.memory_kube import _merge_patched

# Two levels written out: a recursive strategy draws so many examples to throw away that a busy machine fails the
# health check, and a third level takes the same path through the code as the second.
LEAVES = st.integers(0, 3) | st.sampled_from(("", "x")) | st.lists(st.integers(0, 2), max_size=2)
KEYS = st.sampled_from("abcd")
INNER = st.dictionaries(KEYS, LEAVES, max_size=2)
OBJECTS = st.dictionaries(KEYS, LEAVES | INNER | st.dictionaries(KEYS, LEAVES | INNER, max_size=2), max_size=3)


@given(OBJECTS, OBJECTS)
def test_a_patch_leads_from_one_status_to_the_other(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert _merge_patched(before, merge_patch(before, after)) == after


@given(OBJECTS)
def test_no_change_gives_no_patch(status: dict[str, Any]) -> None:
    assert merge_patch(status, status) == {}


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0"),
        (1023, "1023"),
        (1024, "1Ki"),
        (1536, "1.5Ki"),
        (10 * 1024**3, "10Gi"),
        (123456789, "118Mi"),
        (2**70, "1024Ei"),
    ],
)
def test_quantities_are_readable(size_bytes: int, text: str) -> None:
    assert quantity(size_bytes) == text


def test_the_transition_time_moves_with_the_status_only() -> None:
    first = derive_conditions([Finding("Ready", False, "Starting")], [], 1, "T1")
    second = derive_conditions([Finding("Ready", False, "Waiting", "else")], first, 2, "T2")
    third = derive_conditions([Finding("Ready", True, "Serving")], second, 2, "T3")
    assert [item[0]["lastTransitionTime"] for item in (first, second, third)] == ["T1", "T1", "T3"]
    assert second[0]["reason"] == "Waiting"
    assert third[0]["observedGeneration"] == 2


def test_messages_are_bounded() -> None:
    (condition,) = derive_conditions([Finding("Ready", None, "X", "m" * 9999)], [], 1, "T")
    assert len(condition["message"]) == 2048
    assert condition["status"] == "Unknown"
