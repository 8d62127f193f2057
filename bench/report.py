"""The table people read and the JSON that programs read."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from typing import Any

from bench.client import Sample


def machine() -> dict[str, Any]:
    with open("/proc/cpuinfo") as cpuinfo:
        models = [line.partition(":")[2].strip() for line in cpuinfo if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpus": os.cpu_count(),
        "model": models[0] if models else platform.machine(),
        "memory_gib": round(memory / 2**30),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def summarize(workload: str, target: str, rounds: Sequence[Sample]) -> dict[str, Any]:
    """Medians over the rounds."""

    def median(of: Any) -> float:
        return statistics.median(of(sample) for sample in rounds)

    moved = median(lambda s: s.payload_bytes / s.wall_seconds)
    return {
        "workload": workload,
        "target": target,
        "rounds": len(rounds),
        "operations": sum(sample.operations for sample in rounds),
        "operations_per_second": median(lambda s: s.operations / s.wall_seconds),
        "megabytes_per_second": moved / 1e6,
        "cpu_microseconds_per_operation": median(lambda s: s.cpu_seconds / s.operations * 1e6),
        "cpu_seconds_per_gigabyte": median(lambda s: s.cpu_seconds / s.payload_bytes * 1e9 if s.payload_bytes else 0),
        "client_cpu_microseconds_per_operation": median(lambda s: s.client_cpu_seconds / s.operations * 1e6),
        "p50_ms": median(lambda s: s.quantile_ms(0.5)),
        "p99_ms": median(lambda s: s.quantile_ms(0.99)),
    }


COLUMNS = (
    ("ops/s", "operations_per_second", "{:,.0f}"),
    ("MB/s", "megabytes_per_second", "{:,.1f}"),
    ("CPU µs/op", "cpu_microseconds_per_operation", "{:,.0f}"),
    ("CPU s/GB", "cpu_seconds_per_gigabyte", "{:.2f}"),
    ("p50 ms", "p50_ms", "{:.1f}"),
    ("p99 ms", "p99_ms", "{:.1f}"),
    ("client CPU µs/op", "client_cpu_microseconds_per_operation", "{:,.0f}"),
)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown."""
    head = "| Workload | Target | " + " | ".join(name for name, _, _ in COLUMNS) + " |"
    lines = [head, "|---|---|" + "---:|" * len(COLUMNS)]
    for row in rows:
        cells = " | ".join(form.format(row[field]) if row[field] else "–" for _, field, form in COLUMNS)
        lines.append(f"| {row['workload']} | {row['target']} | {cells} |")
    return "\n".join(lines)
