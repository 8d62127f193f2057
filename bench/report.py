"""The tables people read and the JSON that programs read."""

from __future__ import annotations

import hashlib
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from bench.client import Sample

Row = dict[str, Any]


MD5_BYTES = 64 << 20
MD5_RUNS = 3


def machine() -> dict[str, Any]:
    """What the figures were taken on.  How long MD5 takes tells how fast it was at that hour: it only counts, all
    stores do it for every byte that is put, and virtual machines are slower at one time than at another."""
    with open("/proc/cpuinfo") as cpuinfo:
        models = [line.partition(":")[2].strip() for line in cpuinfo if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpus": os.cpu_count(),
        "model": models[0] if models else platform.machine(),
        "memory_gib": round(memory / 2**30),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "md5_cpu_seconds_per_gb": round(_md5_seconds_per_gb(), 2),
    }


def _md5_seconds_per_gb() -> float:
    data, taken = bytes(MD5_BYTES), []
    for _ in range(MD5_RUNS):
        began = time.thread_time()
        hashlib.md5(data, usedforsecurity=False).digest()
        taken.append(time.thread_time() - began)
    return min(taken) / MD5_BYTES * 1e9


def summarize(workload: str, target: str, rounds: Sequence[Sample]) -> Row:
    """Medians over the rounds; errors are summed."""

    def median(of: Callable[[Sample], float]) -> float:
        return statistics.median(of(sample) for sample in rounds)

    def per_operation(of: Callable[[Sample], float]) -> float:
        return median(lambda s: of(s) / max(1, s.operations) * 1e6)

    kinds = sorted({kind for sample in rounds for kind in sample.by_kind})
    return {
        "workload": workload,
        "target": target,
        "rounds": len(rounds),
        "operations": sum(sample.operations for sample in rounds),
        "errors": sum(sample.errors for sample in rounds),
        "first_error": next((sample.first_error for sample in rounds if sample.first_error), ""),
        "operations_per_second": median(lambda s: s.operations / s.wall_seconds),
        "megabytes_per_second": median(lambda s: s.payload_bytes / s.wall_seconds) / 1e6,
        "cpu_microseconds_per_operation": per_operation(lambda s: s.cpu_seconds),
        "cpu_microseconds_per_operation_rounds": [
            round(sample.cpu_seconds / max(1, sample.operations) * 1e6) for sample in rounds
        ],
        "machine_cpu_microseconds_per_operation": per_operation(lambda s: s.machine_cpu_seconds),
        "cpu_seconds_per_gigabyte": median(lambda s: s.cpu_seconds / s.payload_bytes * 1e9 if s.payload_bytes else 0),
        "client_cpu_microseconds_per_operation": per_operation(lambda s: s.client_cpu_seconds),
        "client_percent_of_a_core": median(lambda s: s.client_cpu_seconds / s.wall_seconds * 100),
        "p50_ms": median(lambda s: s.quantile_ms(0.5)),
        "p99_ms": median(lambda s: s.quantile_ms(0.99)),
        "by_kind": {kind: _of_kind(kind, rounds) for kind in kinds},
    }


def _of_kind(kind: str, rounds: Sequence[Sample]) -> Row:
    return {
        "operations": sum(len(sample.by_kind.get(kind, [])) for sample in rounds),
        "p50_ms": statistics.median(sample.quantile_ms(0.5, kind) for sample in rounds),
        "p99_ms": statistics.median(sample.quantile_ms(0.99, kind) for sample in rounds),
    }


def failed(workload: str, target: str, why: str) -> Row:
    """The row of a target that did not get through a workload."""
    zeros = dict.fromkeys((field for _, field, _ in COLUMNS), 0)
    return {"workload": workload, "target": target, **zeros, "failed": why, "first_error": why, "by_kind": {}}


def rate(value: float) -> str:
    """With as many digits as mean something."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _written(form: str, value: float) -> str:
    return form.format(value) if form else rate(value)


COLUMNS = (
    ("ops/s", "operations_per_second", ""),
    ("MB/s", "megabytes_per_second", "{:,.1f}"),
    ("CPU µs/op", "cpu_microseconds_per_operation", "{:,.0f}"),
    ("CPU s/GB", "cpu_seconds_per_gigabyte", "{:.2f}"),
    ("machine µs/op", "machine_cpu_microseconds_per_operation", "{:,.0f}"),
    ("p50 ms", "p50_ms", "{:.1f}"),
    ("p99 ms", "p99_ms", "{:.1f}"),
    ("client µs/op", "client_cpu_microseconds_per_operation", "{:,.0f}"),
    ("client %", "client_percent_of_a_core", "{:.0f}"),
    ("errors", "errors", "{}"),
)
"""`machine`: all that the machine did meanwhile, but the load generator; `client %`: of one core."""


def table(rows: Sequence[Row]) -> str:
    """Markdown, everything of every row."""
    head = "| Workload | Target | " + " | ".join(name for name, _, _ in COLUMNS) + " |"
    lines = [head, "|---|---|" + "---:|" * len(COLUMNS)]
    for row in rows:
        cells = " | ".join(_written(form, row[field]) if row[field] else "–" for _, field, form in COLUMNS)
        if "failed" in row:
            cells = f"failed: {row['failed'][:200]}" + " |" * (len(COLUMNS) - 1)
        lines.append(f"| {row['workload']} | {row['target']} | {cells} |")
    return "\n".join(lines)


def comparison(rows: Sequence[Row], field: str, form: str) -> str:
    """Markdown, one figure: a line per workload, a column per target; times the first target's in brackets."""
    targets = list(dict.fromkeys(row["target"] for row in rows))
    lines = ["| Workload | " + " | ".join(targets) + " |", "|---|" + "---:|" * len(targets)]
    for workload in dict.fromkeys(row["workload"] for row in rows):
        found = {row["target"]: row for row in rows if row["workload"] == workload}
        base = found[targets[0]][field] if targets[0] in found else 0
        cells = [_cell(found.get(target), field, form, base, target == targets[0]) for target in targets]
        lines.append(f"| {workload} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(row: Row | None, field: str, form: str, base: float, first: bool) -> str:
    if row is not None and "failed" in row:
        return "failed"
    if row is None or not row[field]:
        return "–"
    text = _written(form, row[field])
    if not first and base:
        text += f" ({row[field] / base:.2g}×)"
    return text + (f", {row['errors']} errors" if row["errors"] else "")


def comparisons(rows: Sequence[Row], ceiling: str) -> str:
    """The tables of a run over several targets; the one named `ceiling` is no store and stands apart."""
    stores = [row for row in rows if row["target"] != ceiling]
    parts = []
    figures = (
        ("CPU µs per operation, all daemons", "cpu_microseconds_per_operation", "{:,.0f}"),
        ("CPU seconds per GB, all daemons", "cpu_seconds_per_gigabyte", "{:.2f}"),
        ("Operations per second", "operations_per_second", ""),
        ("p99, ms", "p99_ms", "{:,.1f}"),
    )
    for title, field, form in figures:
        parts.append(f"{title}:\n\n{comparison([row for row in stores if row[field] or 'failed' in row], field, form)}")
    if len(stores) < len(rows):
        parts.append("The load generator:\n\n" + _generator(stores, [row for row in rows if row["target"] == ceiling]))
    return "\n\n".join(parts)


def _generator(stores: Sequence[Row], ceilings: Sequence[Row]) -> str:
    """Markdown: the fastest store of each row beside what the generator does where no store is behind it."""
    head = (
        "| Workload | fastest store, ops/s | generator can, ops/s | times | its CPU beside the fastest, % of a core |"
    )
    lines = [head, "|---|---:|---:|---:|---:|"]
    for ceiling in ceilings:
        found = [row for row in stores if row["workload"] == ceiling["workload"]]
        best = max(found, key=lambda row: row["operations_per_second"])
        done, most = best["operations_per_second"], ceiling["operations_per_second"]
        share = best["client_percent_of_a_core"]
        lines.append(
            f"| {ceiling['workload']} | {rate(done)} | {rate(most)} | {most / max(done, 1e-9):.1f} | {share:.0f} |"
        )
    return "\n".join(lines)


def resting(rows: Sequence[Row]) -> str:
    """Markdown: what targets cost while nobody asks anything."""
    lines = ["| Target | processes | % of a core | resident MB |", "|---|---:|---:|---:|"]
    for row in rows:
        lines.append(
            f"| {row['target']} | {row['processes']} | {row['percent_of_a_core']:.1f} | {row['resident_mb']:,.0f} |"
        )
    return "\n".join(lines)
