"""Kubernetes quantities as exact numbers.  Pure.

Source: the Kubernetes API reference, "Quantity".  All of its forms are read, whatever a Tenant may be written with: the
API server gives what it was sent back in a form of its own choice (`3.6Ti` as `3958241859993600m`).
"""

from __future__ import annotations

import re
from fractions import Fraction

_UNITS = {
    "": Fraction(1),
    **{unit: Fraction(1, 1000**power) for power, unit in enumerate("mun", 1)},
    **{unit: Fraction(1000**power) for power, unit in enumerate("kMGTPE", 1)},
    **{f"{unit}i": Fraction(1024**power) for power, unit in enumerate("KMGTPE", 1)},
}
_QUANTITY = re.compile(r"([+-]?\d+(?:\.\d*)?|[+-]?\.\d+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?\d{1,2})?", re.ASCII)


def parse_quantity(text: str) -> Fraction:
    """Raises ValueError."""
    matched = _QUANTITY.fullmatch(text)
    if matched is None:
        raise ValueError(f"{text!r} is not a size such as 10Gi")
    number, suffix = matched[1], matched[2] or ""
    if suffix in _UNITS:
        return Fraction(number) * _UNITS[suffix]
    return Fraction(number) * Fraction(10) ** int(suffix[1:])
