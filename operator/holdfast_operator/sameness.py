"""Whether an object in the cluster still says all that a manifest says.  Pure.

The API server does not keep what it is sent to the letter: it writes quantities in their canonical form (`1000m`
becomes `1`, `1024Mi` becomes `1Gi`), leaves out empty values, and adds defaults and status.  What somebody else has
added to a list whose items have names (a variable, a volume, a container) stays there, too, however often the manifest
is applied.  None of these is a difference; taking them for one would apply the same manifest on every pass for ever,
and hold up every roll until its controller has looked at it.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from holdfast_operator.quantities import parse_quantity

_ITEM_KEYS = ("mountPath", "uid", "name")
"""What the API server tells the items of such lists apart by; the first that all of them have."""


def covers(existing: Any, wanted: Any) -> bool:
    """Whether `existing` says all that `wanted` says; it may say more."""
    if isinstance(wanted, Mapping):
        return isinstance(existing, Mapping) and all(
            covers(existing[key], value) if key in existing else _is_empty(value) for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return isinstance(existing, list) and _covers_items(existing, wanted)
    return bool(existing == wanted) or _are_one_quantity(existing, wanted)


def _covers_items(existing: list[Any], wanted: list[Any]) -> bool:
    """In the order that is wanted, with others' between them where items are told apart by a key."""
    items = [*existing, *wanted]
    key = next((k for k in _ITEM_KEYS if all(isinstance(item, Mapping) and k in item for item in items)), None)
    if key is not None:
        names = {item[key] for item in wanted}
        existing = [item for item in existing if item[key] in names]
    return len(existing) == len(wanted) and all(map(covers, existing, wanted))


def _is_empty(value: Any) -> bool:
    """Of the kind that the API server leaves out.  False and 0 are not: an absent field may mean something else."""
    return value is None or value in ("", [], {})


def _are_one_quantity(existing: Any, wanted: Any) -> bool:
    have, want = _quantity(existing), _quantity(wanted)
    return have is not None and have == want


def _quantity(value: Any) -> Fraction | None:
    """The number a Kubernetes quantity stands for; None for what is none."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        return parse_quantity(str(value))
    except ValueError:
        return None
