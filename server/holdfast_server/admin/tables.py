"""The admin API's answers as text for a terminal.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from holdfast_server.contract.admin import HealDrive, HealStatus, PodInfo, StuckObject, TenantInfo
from holdfast_server.contract.buckets import TenantUsage
from holdfast_server.contract.wording import about, count_of, how_far

_POD_HEAD = ("POD", "ANSWERS", "UP", "VERSION", "EPOCH", "DRIVES")
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns as wide as they need; the last one is not padded."""
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def size(size_bytes: float) -> str:
    value, unit = float(size_bytes), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value /= 1024
        unit += 1
    return f"{value:.0f} {_UNITS[unit]}" if value >= 100 or unit == 0 else f"{value:.1f} {_UNITS[unit]}"


def info_text(info: TenantInfo, now_ms: int) -> str:
    capacity = info.capacity
    head = "every erasure set takes writes" if info.healthy else info.message or "some erasure set takes no writes"
    lines = [
        f"{head}; epoch {info.epoch}, as {info.answered_by} sees it",
        f"{size(capacity.usable_bytes)} for data ({size(capacity.raw_bytes)} raw, {size(capacity.used_bytes)} used)",
        _usage_text(info.usage),
        "",
        table(_POD_HEAD, [_pod_row(pod, info, now_ms) for pod in info.pods]),
        "",
        table(
            ("DRIVE", "POOL", "SET", "POSITION", "STATE", "SIZE", "USED", "MESSAGE"),
            [
                (
                    f"{_pod_name(info, drive.pool, drive.ordinal)}/data{drive.volume}", drive.pool,
                    str(drive.set_index), str(drive.position), drive.state, size(drive.total_bytes),
                    f"{drive.used_bytes / drive.total_bytes:.0%}" if drive.total_bytes else "-", drive.message,
                )
                for drive in info.drives
            ],
        ),
    ]  # fmt: skip
    return "\n".join(lines)


def _usage_text(usage: TenantUsage) -> str:
    if not usage.known:
        return "what buckets hold cannot be told now"
    buckets = count_of(usage.buckets, "bucket", "buckets")
    if usage.buckets and usage.uncounted == usage.buckets:
        return f"{buckets}, not counted yet"
    objects = count_of(usage.objects, "object", "objects")
    return f"{buckets} with {objects} ({usage.versions:,} versions), {size(usage.size_bytes)}, as last counted" + (
        f"; {usage.uncounted:,} of the buckets not yet" if usage.uncounted else ""
    )


def _pod_name(info: TenantInfo, pool: str, ordinal: int) -> str:
    return next((pod.pod for pod in info.pods if (pod.pool, pod.ordinal) == (pool, ordinal)), f"{pool}/{ordinal}")


def _pod_row(pod: PodInfo, info: TenantInfo, now_ms: int) -> tuple[str, ...]:
    own = [drive.state for drive in info.drives if (drive.pool, drive.ordinal) == (pod.pool, pod.ordinal)]
    drives = f"{own.count('ok')} of {len(own)} ok"
    if not pod.answers:
        return pod.pod, f"no: {pod.message}", "-", "-", "-", drives
    return pod.pod, "yes", about((now_ms - pod.started_ms) / 1000), pod.version, str(pod.epoch), drives


def heal_text(status: HealStatus, now_ms: int) -> str:
    lines = ["whole: every drive has everything, and nothing waits for repair"] if status.whole else []
    lines += [f"- {finding}" for finding in status.findings]
    sets = [
        (
            one.pool, str(one.index), f"{one.online} of {one.set_size}", str(one.healing),
            "yes" if one.writable else "no", "yes" if one.readable else "no", str(one.losses_left),
            f"{one.queue_length:,}", about(one.oldest_entry_seconds) if one.queue_length else "-", str(one.stuck),
        )
        for one in status.sets
    ]  # fmt: skip
    head = ("POOL", "SET", "ONLINE", "HEALING", "WRITES", "READS", "LOSSES LEFT", "QUEUE", "OLDEST", "STUCK")
    lines += ["", table(head, sets), ""]
    lines += [table(("DRIVE", "SET", "STATE", "FILLED", "SCANNED", "LAST WHOLE SCAN", "ROT FOUND"), [
        _heal_row(drive, now_ms) for drive in status.drives
    ])]  # fmt: skip
    lines += ["", _counts(status)]
    if status.stuck:
        lines += ["", stuck_text(status.stuck, now_ms)]
    return "\n".join(lines)


def _heal_row(drive: HealDrive, now_ms: int) -> tuple[str, ...]:
    scanner = drive.scanner
    known = drive.state in ("ok", "healing")
    ended = f"{about((now_ms - scanner.last_pass_ended_ms) / 1000)} ago" if scanner.last_pass_ended_ms else "never"
    return (
        f"{drive.pod}/data{drive.volume}",
        f"{drive.pool}/{drive.set_index}",
        drive.state,
        how_far(drive.filling) if drive.filling else "-",
        f"{scanner.fraction:.0%}" if known else "-",
        ended if known else "-",
        str(scanner.rotten_found) if known else "-",
    )


def _counts(status: HealStatus) -> str:
    parts = [
        count_of(status.registers_repaired, "register repaired", "registers repaired"),
        count_of(status.copies_made, "copy made", "copies made"),
        count_of(status.drives_filled, "drive filled", "drives filled"),
        count_of(status.read_repairs, "read repair", "read repairs"),
        count_of(status.failed, "failed attempt", "failed attempts"),
    ]
    return f"since the pods began: {', '.join(parts)}"


def typed(key: str) -> str:
    """As a shell takes it where it has what a terminal would obey, or a table break at: clients choose it."""
    if key.isprintable():
        return key
    return "$'" + "".join(c if c.isprintable() and c not in "\\'" else f"\\U{ord(c):08x}" for c in key) + "'"


def stuck_text(stuck: Sequence[StuckObject], now_ms: int) -> str:
    rows = [
        (
            one.kind, one.bucket, typed(one.key), one.version or "-", f"{one.copies} of {one.copies_needed}",
            about((now_ms - one.since_ms) / 1000),
        )
        for one in stuck
    ]  # fmt: skip
    return table(("STUCK", "BUCKET", "KEY", "VERSION", "COPIES", "SINCE"), rows)
