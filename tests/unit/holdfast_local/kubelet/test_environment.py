"""A container's variables and command follow Kubernetes' rules of expansion and reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_local.kubelet.environment import (
    ContainerConfigError,
    container_environment,
    expand,
    expand_command,
)
from holdfast_local.kubelet.images import argument_vector

POD: dict[str, Any] = {
    "metadata": {"name": "web-0", "namespace": "shop", "uid": "u1", "labels": {"a.b/c": "d"}},
    "spec": {"nodeName": "local"},
}
OBJECTS = {("secrets", "keys"): {"user": b"me", "password": b"p$(X)"}, ("configmaps", "cfg"): {"MODE": b"fast"}}


def lookup(kind: str, name: str) -> Mapping[str, bytes] | None:
    return OBJECTS.get((kind, name))


def environment(*entries: dict[str, Any], **fields: Any) -> dict[str, str]:
    return container_environment(POD, {"name": "c", "env": list(entries), **fields}, "127.77.1.2", lookup)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)-$(B)", "1-2"),
        ("$(UNKNOWN)", "$(UNKNOWN)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("cost: $5 $(A", "cost: $5 $(A"),
        ("$(A)$(A)", "11"),
    ],
)
def test_expansion(text: str, expected: str) -> None:
    assert expand(text, {"A": "1", "B": "2"}) == expected


@given(st.text(alphabet=st.characters(exclude_characters="$")))
def test_text_without_dollar_signs_is_unchanged(text: str) -> None:
    assert expand(text, {"A": "1"}) == text


def test_a_value_sees_only_what_stands_before_it() -> None:
    found = environment({"name": "A", "value": "$(B)"}, {"name": "B", "value": "2"}, {"name": "C", "value": "$(B)"})
    assert found == {"A": "$(B)", "B": "2", "C": "2"}


def test_values_from_secrets_are_not_expanded() -> None:
    reference = {"secretKeyRef": {"name": "keys", "key": "password"}}
    assert environment({"name": "P", "valueFrom": reference}) == {"P": "p$(X)"}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("metadata.name", "web-0"),
        ("metadata.namespace", "shop"),
        ("status.podIP", "127.77.1.2"),
        ("spec.nodeName", "local"),
        ("metadata.labels['a.b/c']", "d"),
    ],
)
def test_downward_fields(path: str, expected: str) -> None:
    assert environment({"name": "X", "valueFrom": {"fieldRef": {"fieldPath": path}}}) == {"X": expected}


def test_env_from_with_prefix() -> None:
    assert environment(envFrom=[{"prefix": "P_", "configMapRef": {"name": "cfg"}}]) == {"P_MODE": "fast"}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"secretKeyRef": {"name": "none", "key": "k"}}, 'secret "none" not found'),
        ({"configMapKeyRef": {"name": "cfg", "key": "none"}}, "couldn't find key none in configmap cfg"),
        ({"fieldRef": {"fieldPath": "status.phase"}}, "status.phase is not supported"),
        ({"resourceFieldRef": {}}, "resourceFieldRef is not supported"),
    ],
)
def test_what_is_missing_is_named(source: dict[str, Any], message: str) -> None:
    with pytest.raises(ContainerConfigError, match=message):
        environment({"name": "X", "valueFrom": source})


def test_optional_references_are_left_out() -> None:
    source = {"secretKeyRef": {"name": "none", "key": "k", "optional": True}}
    assert environment({"name": "X", "valueFrom": source}) == {}


def test_command_and_arguments_are_expanded() -> None:
    container = {"command": ["run", "$(A)"], "args": ["--x=$(A)", "$(NO)"]}
    assert expand_command(container, {"A": "1"}) == (["run", "1"], ["--x=1", "$(NO)"])


def test_an_image_stands_for_its_program_only_where_it_is_known() -> None:
    assert argument_vector("registry.example/x/holdfast:1@sha256:ab", [], ["server"]) == ["holdfast", "server"]
    assert argument_vector("anything", ["sh", "-c"], ["true"]) == ["sh", "-c", "true"]
    with pytest.raises(ContainerConfigError, match="nginx"):
        argument_vector("nginx:1.27", [], [])
