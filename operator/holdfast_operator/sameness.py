"""Whether an object in the cluster still says all that a manifest says.  Pure.

The API server does not keep what it is sent to the letter: it writes quantities in their canonical form (`1000m`
becomes `1`, `1024Mi` becomes `1Gi`), leaves out empty values, and adds defaults and status.  None of these is a
difference; taking them for one would apply the same manifest on every pass for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from holdfast_operator.quantities import parse_quantity


def covers(existing: Any, wanted: Any) -> bool:
    """Whether `existing` says all that `wanted` says; it may say more."""
    if isinstance(wanted, Mapping):
        return isinstance(existing, Mapping) and all(
            covers(existing[key], value) if key in existing else _is_empty(value) for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(existing, list)
            and len(existing) == len(wanted)
            and all(covers(have, want) for have, want in zip(existing, wanted, strict=True))
        )
    return bool(existing == wanted) or _are_one_quantity(existing, wanted)


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
