"""Protobuf bodies of the kinds that kubectl sends so: `create configmap`, `create role`, `auth can-i`, `drain`, …

kubectl's typed clients encode requests as protobuf and do not fall back when refused, although they accept JSON
answers. So requests of a few kinds are decoded here, from a table of field numbers; answers are always JSON. Other
kinds get 415. The wire format is a magic number and an envelope with apiVersion, kind and the encoded object.
Source: the Kubernetes API's published wire contract, "Kubernetes Protobuf encoding".
"""

import base64
import datetime
from collections.abc import Iterator
from typing import Any

from holdfast_local.apiserver import errors

PROTOBUF = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"
_ACCEPTED = ("application/json", "application/yaml")

# message → field number → (name, type). Types: str, int, bool, bytes; `?` keeps a zero value, which otherwise means
# "absent"; `*` is a list; `map str` and `map bytes` are maps; a capital letter names a message.
_MESSAGES: dict[str, dict[int, tuple[str, str]]] = {
    "Meta": {
        1: ("name", "str"),
        2: ("generateName", "str"),
        3: ("namespace", "str"),
        5: ("uid", "str"),
        6: ("resourceVersion", "str"),
        8: ("creationTimestamp", "Time"),
        11: ("labels", "map str"),
        12: ("annotations", "map str"),
        13: ("ownerReferences", "Owner*"),
        14: ("finalizers", "str*"),
    },
    "Owner": {
        1: ("kind", "str"),
        3: ("name", "str"),
        4: ("uid", "str"),
        5: ("apiVersion", "str"),
        6: ("controller", "bool?"),
        7: ("blockOwnerDeletion", "bool?"),
    },
    "Preconditions": {1: ("uid", "str"), 2: ("resourceVersion", "str")},
    "DeleteOptions": {
        1: ("gracePeriodSeconds", "int?"),
        2: ("preconditions", "Preconditions"),
        3: ("orphanDependents", "bool?"),
        4: ("propagationPolicy", "str"),
        5: ("dryRun", "str*"),
    },
    "Requirement": {1: ("key", "str"), 2: ("operator", "str"), 3: ("values", "str*")},
    "Selector": {1: ("matchLabels", "map str"), 2: ("matchExpressions", "Requirement*")},
    "Reference": {
        1: ("kind", "str"),
        2: ("namespace", "str"),
        3: ("name", "str"),
        4: ("uid", "str"),
        5: ("apiVersion", "str"),
        6: ("resourceVersion", "str"),
        7: ("fieldPath", "str"),
    },
    "LocalReference": {1: ("name", "str")},
    "ConfigMap": {
        1: ("metadata", "Meta"),
        2: ("data", "map str"),
        3: ("binaryData", "map bytes"),
        4: ("immutable", "bool?"),
    },
    "Secret": {
        1: ("metadata", "Meta"),
        2: ("data", "map bytes"),
        3: ("type", "str"),
        4: ("stringData", "map str"),
        5: ("immutable", "bool?"),
    },
    "Namespace": {1: ("metadata", "Meta")},
    "ServiceAccount": {
        1: ("metadata", "Meta"),
        2: ("secrets", "Reference*"),
        3: ("imagePullSecrets", "LocalReference*"),
        4: ("automountServiceAccountToken", "bool?"),
    },
    "Service": {1: ("metadata", "Meta"), 2: ("spec", "ServiceSpec")},
    "ServiceSpec": {
        1: ("ports", "ServicePort*"),
        2: ("selector", "map str"),
        3: ("clusterIP", "str"),
        4: ("type", "str"),
        10: ("externalName", "str"),
        13: ("publishNotReadyAddresses", "bool"),
        18: ("clusterIPs", "str*"),
    },
    "ServicePort": {
        1: ("name", "str"),
        2: ("protocol", "str"),
        3: ("port", "int"),
        4: ("targetPort", "IntOrString"),
        5: ("nodePort", "int"),
        6: ("appProtocol", "str"),
    },
    "Rule": {
        1: ("verbs", "str*"),
        2: ("apiGroups", "str*"),
        3: ("resources", "str*"),
        4: ("resourceNames", "str*"),
        5: ("nonResourceURLs", "str*"),
    },
    "Subject": {1: ("kind", "str"), 2: ("apiGroup", "str"), 3: ("name", "str"), 4: ("namespace", "str")},
    "RoleRef": {1: ("apiGroup", "str"), 2: ("kind", "str"), 3: ("name", "str")},
    "Aggregation": {1: ("clusterRoleSelectors", "Selector*")},
    "Role": {1: ("metadata", "Meta"), 2: ("rules", "Rule*")},
    "ClusterRole": {1: ("metadata", "Meta"), 2: ("rules", "Rule*"), 3: ("aggregationRule", "Aggregation")},
    "RoleBinding": {1: ("metadata", "Meta"), 2: ("subjects", "Subject*"), 3: ("roleRef", "RoleRef")},
    "ClusterRoleBinding": {1: ("metadata", "Meta"), 2: ("subjects", "Subject*"), 3: ("roleRef", "RoleRef")},
    "Eviction": {1: ("metadata", "Meta"), 2: ("deleteOptions", "DeleteOptions")},
    "PodDisruptionBudget": {1: ("metadata", "Meta"), 2: ("spec", "BudgetSpec")},
    "BudgetSpec": {
        1: ("minAvailable", "IntOrString"),
        2: ("selector", "Selector"),
        3: ("maxUnavailable", "IntOrString"),
        4: ("unhealthyPodEvictionPolicy", "str"),
    },
    "ResourceAttributes": {
        1: ("namespace", "str"),
        2: ("verb", "str"),
        3: ("group", "str"),
        4: ("version", "str"),
        5: ("resource", "str"),
        6: ("subresource", "str"),
        7: ("name", "str"),
    },
    "PathAttributes": {1: ("path", "str"), 2: ("verb", "str")},
    "AccessSpec": {
        1: ("resourceAttributes", "ResourceAttributes"),
        2: ("nonResourceAttributes", "PathAttributes"),
        3: ("user", "str"),
        4: ("groups", "str*"),
    },
    "RulesSpec": {1: ("namespace", "str")},
    "SelfSubjectAccessReview": {1: ("metadata", "Meta"), 2: ("spec", "AccessSpec")},
    "SubjectAccessReview": {1: ("metadata", "Meta"), 2: ("spec", "AccessSpec")},
    "SelfSubjectRulesReview": {1: ("metadata", "Meta"), 2: ("spec", "RulesSpec")},
    "SelfSubjectReview": {1: ("metadata", "Meta")},
    "TokenRequest": {1: ("metadata", "Meta"), 2: ("spec", "TokenSpec")},
    "TokenSpec": {1: ("audiences", "str*"), 4: ("expirationSeconds", "int?")},
}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_ROOTS = frozenset(
    {
        "ConfigMap",
        "Secret",
        "Namespace",
        "ServiceAccount",
        "Service",
        "Role",
        "ClusterRole",
        "RoleBinding",
        "ClusterRoleBinding",
        "Eviction",
        "DeleteOptions",
        "PodDisruptionBudget",
        "SelfSubjectAccessReview",
        "SubjectAccessReview",
        "SelfSubjectRulesReview",
        "SelfSubjectReview",
        "TokenRequest",
    }
)


def decode_object(raw: bytes) -> dict[str, Any]:
    """The object as JSON would have carried it. Raises StatusError 400 if malformed, 415 for an unknown kind."""
    try:
        if not raw.startswith(_MAGIC):
            raise ValueError("the magic number is missing")
        envelope = dict(_fields(raw[len(_MAGIC) :]))
        names = dict(_fields(envelope[1]))
        api_version, kind = names[1].decode(), names[2].decode()
        if kind not in _ROOTS:
            raise errors.unsupported_media_type(_ACCEPTED)
        return {"apiVersion": api_version, "kind": kind, **_decode(kind, envelope[2])}
    except (ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise errors.bad_request(f"the protobuf body cannot be decoded: {error}") from error


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Field numbers with their raw values: an int, or bytes."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == _VARINT:
            value, position = _varint(data, position)
            yield number, value
            continue
        if wire_type == _BYTES:
            size, position = _varint(data, position)
        elif wire_type in (_FIXED64, _FIXED32):
            size = 8 if wire_type == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire_type}")
        if position + size > len(data):
            raise ValueError("truncated")
        yield number, data[position : position + size]
        position += size


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > 63:
            raise ValueError("a number is too long")
    # Negative numbers are sent as 64-bit two's complement.
    return (value - (1 << 64) if value >> 63 else value), position


def _decode(message: str, data: bytes) -> dict[str, Any]:
    decoded: dict[str, Any] = {}
    table = _MESSAGES[message]
    for number, raw in _fields(data):
        if number not in table:
            continue
        name, kind = table[number]
        if kind.startswith("map "):
            entry = dict(_fields(raw))
            value = entry.get(2, b"")
            key = entry.get(1, b"").decode()
            decoded.setdefault(name, {})[key] = value.decode() if kind == "map str" else _base64(value)
        elif kind.endswith("*"):
            decoded.setdefault(name, []).append(_value(kind[:-1], raw))
        else:
            value = _value(kind.removesuffix("?"), raw)
            if kind.endswith("?") or value or isinstance(value, dict):
                decoded[name] = value
    return decoded


def _value(kind: str, raw: Any) -> Any:
    match kind:
        case "str":
            return raw.decode()
        case "int":
            return int(raw)
        case "bool":
            return bool(raw)
        case "bytes":
            return _base64(raw)
        case "Time":
            seconds = dict(_fields(raw)).get(1, 0)
            # An unset time is encoded as an empty message.
            moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
            return moment.strftime("%Y-%m-%dT%H:%M:%SZ") if raw else None
        case "IntOrString":
            parts = dict(_fields(raw))
            return parts.get(3, b"").decode() if parts.get(1) == 1 else int(parts.get(2, 0))
    return _decode(kind, raw)


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
