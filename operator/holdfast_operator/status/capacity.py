"""Bytes of all drives as three quantities that people can read."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast_operator.ledger import PoolRecord
from holdfast_operator.observe.redundancy import Redundancy

_UNITS = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")


def derive_capacity(pools: Sequence[PoolRecord], redundancy: Redundancy) -> dict[str, str]:
    """`raw` is what the drives hold, `usable` what remains for data beside parity, `used` raw bytes in use."""
    raw = usable = used = 0
    for pool in pools:
        drives = [drive for drive in redundancy.drives if drive.pool == pool.name]
        total = sum(drive.total_bytes for drive in drives)
        raw += total
        usable += total * (pool.set_size - pool.parity) // pool.set_size
        used += sum(drive.used_bytes for drive in drives)
    return {"raw": quantity(raw), "usable": quantity(usable), "used": quantity(used)}


def quantity(size_bytes: int) -> str:
    """A Kubernetes quantity of three digits at most behind the leading ones: coarse on purpose, so that the
    status is not rewritten for every object."""
    value, unit = float(size_bytes), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value /= 1024
        unit += 1
    text = f"{value:.1f}".removesuffix(".0") if value < 100 else f"{value:.0f}"
    return f"{text}{_UNITS[unit]}"
