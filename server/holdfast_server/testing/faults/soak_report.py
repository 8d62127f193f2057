"""What a soak saw, as JSON and as a table for people."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec

KIND_WIDTH = 30
"""Of the names of two kinds."""


class FaultSeen(msgspec.Struct, kw_only=True):
    """One fault, from its beginning until redundancy was full again."""

    kind: str
    detail: str
    at_seconds: float
    lasted_seconds: float
    """Until everything was started, resumed or emptied again."""
    whole_after_seconds: float
    """From then until every drive was full and every repair queue empty, with traffic going on."""
    longest_operation_seconds: float
    failed_operations: int
    """That used up their retries meanwhile."""


class SoakReport(msgspec.Struct, kw_only=True):
    seed: int
    minutes: float
    operations: dict[str, int] = {}
    """By method and outcome, each attempt counted."""
    acknowledged: int = 0
    undecided: int = 0
    took_effect_late: int = 0
    observations: int = 0
    retries: int = 0
    failed_operations: int = 0
    longest_operation_seconds: float = 0.0
    bytes_written: int = 0
    bytes_read: int = 0
    faults: list[FaultSeen] = []
    skipped_kinds: dict[str, str] = {}
    """Kinds of fault that could not be made here, and why."""
    largest_rss_bytes: dict[str, int] = {}
    keys_verified: int = 0
    registers: int = 0
    shards_verified: int = 0
    left_over_files: int = 0
    kept_operations: dict[str, int] = {}
    """In the bucket that seals and keeps versions."""
    versions_kept: int = 0
    versions_held: int = 0
    versions_deleted: int = 0
    whole_at_end_seconds: float = 0.0

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=2))

    def table(self) -> str:
        """For people."""
        lines = [
            f"seed {self.seed}, {self.minutes:.1f} minutes",
            f"{self.acknowledged} writes acknowledged, {self.undecided} attempts undecided "
            f"({self.took_effect_late} of them seen later), {self.observations} observations",
            f"{self.bytes_written / 1e9:.2f} GB written, {self.bytes_read / 1e9:.2f} GB read, {self.retries} retries, "
            f"{self.failed_operations} operations failed after all retries; longest operation "
            f"{self.longest_operation_seconds:.1f} s",
            "attempts: " + ", ".join(f"{count} {what}" for what, count in sorted(self.operations.items())),
            f"sealed, in versions: {self.versions_kept} kept, {self.versions_held} of them held, "
            f"{self.versions_deleted} deleted; attempts: "
            + ", ".join(f"{count} {what}" for what, count in sorted(self.kept_operations.items())),
            "",
            f"{'fault':<{KIND_WIDTH}}{'count':>6}{'longest':>9}{'whole after, median':>21}{'most':>8}{'longest op':>12}"
            f"{'failed':>8}",
        ]
        for kind, count in sorted(Counter(fault.kind for fault in self.faults).items()):
            mine = [fault for fault in self.faults if fault.kind == kind]
            whole = sorted(fault.whole_after_seconds for fault in mine)
            lines.append(
                f"{kind:<{KIND_WIDTH}}{count:>6}{max(fault.lasted_seconds for fault in mine):>7.1f} s"
                f"{whole[len(whole) // 2]:>19.1f} s{whole[-1]:>6.1f} s"
                f"{max(fault.longest_operation_seconds for fault in mine):>10.1f} s"
                f"{sum(fault.failed_operations for fault in mine):>8}"
            )
        lines += [f"{kind:<{KIND_WIDTH}}skipped: {why}" for kind, why in self.skipped_kinds.items()]
        lines += [
            "",
            "largest RSS: " + ", ".join(f"{pod} {rss >> 20} MiB" for pod, rss in self.largest_rss_bytes.items()),
        ]
        lines.append(
            f"at the end: whole after {self.whole_at_end_seconds:.1f} s; {self.keys_verified} keys read back through "
            f"every pod; {self.registers} registers and {self.shards_verified} shards verified on the drives; "
            f"{self.left_over_files} files left over"
        )
        return "\n".join(lines)
