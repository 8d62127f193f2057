"""Kubernetes quantities of storage as numbers, as far as the Tenant allows them.  Pure.

Source: the Kubernetes API reference, "Quantity"; milli and exponents are not accepted for storage here.
"""

from __future__ import annotations

import re
from decimal import Decimal

_UNITS = {
    "": 1,
    **{unit: 1000 ** (power + 1) for power, unit in enumerate(("k", "M", "G", "T", "P", "E"))},
    **{unit: 1024 ** (power + 1) for power, unit in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"))},
}
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)(|[kMGTPE]|[KMGTPE]i)")


def parse_quantity(text: str) -> Decimal:
    """Bytes.  Raises ValueError."""
    matched = _QUANTITY.fullmatch(text)
    if matched is None:
        raise ValueError(f"{text!r} is not a size such as 10Gi")
    return Decimal(matched[1]) * _UNITS[matched[2]]
