"""Kubernetes quantities ("10Gi", "500m") as exact numbers; pure."""

import re
from decimal import Decimal

_FORM = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))([a-zA-Z]*|[eE][+-]?\d+)\Z")
_FACTORS = {
    "": Decimal(1),
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
    "P": Decimal(10**15),
    "E": Decimal(10**18),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "Ti": Decimal(2**40),
    "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
}


def parse_quantity(value: object) -> Decimal:
    """The number that a quantity stands for; raises ValueError for anything else."""
    match = _FORM.match(str(value))
    if match is None:
        raise ValueError(f"not a quantity: {value!r}")
    number, suffix = match[1], match[2]
    if suffix in _FACTORS:
        return Decimal(number) * _FACTORS[suffix]
    if re.fullmatch(r"[eE][+-]?\d+", suffix):
        return Decimal(number + suffix)
    raise ValueError(f"not a quantity: {value!r}")
