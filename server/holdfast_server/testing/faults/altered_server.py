"""`holdfast server` with something changed: what tests need that no user should be able to ask for.

    python -m holdfast_server.testing.faults.altered_server [--omit STEP]… [--reclaim-seconds N]
        [--adoption-seconds N] server …

`--omit` leaves one of the steps out that make data durable (`Omission`), to show that a power cut is noticed then.
The delays of reclaim, of giving up nameless files, and of adopting a replacement are shortened so that a test of
minutes meets them.  The rest of
the command line is the server's own.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
import sys
from enum import Enum
from pathlib import Path
from typing import Any

from holdfast_server import main as server
from holdfast_server.clock.port import Clock
from holdfast_server.drives import durable_files, folder_layout, identity
from holdfast_server.drives.engine import Engine
from holdfast_server.drives.local import DriveSettings, LocalDrive
from holdfast_server.drives.slot import Slot
from holdfast_server.heal.settings import HealSettings
from holdfast_server.wiring import lifecycle, storage_pod

MODULE = "holdfast_server.testing.faults.altered_server"
REAP_INTERVAL_SECONDS = 0.25


class Omission(Enum):
    """A step of `docs/on-disk.md` that can be left out."""

    LOG_FLUSH = "log-flush"
    """The log is written but not flushed before a commit is answered."""
    SHARD_SYNC = "shard-sync"
    """A sealed shard file's bytes are not synced."""
    STAGING_SYNC = "staging-sync"
    """The folder that holds a sealed shard's name is not synced."""
    IDENTITY_SYNC = "identity-sync"
    """The identity file is written and renamed without any fsync."""
    FORMAT_SYNC = "format-sync"
    """The folders of a drive that was just made are not synced."""


ORPHAN_AGE_SECONDS = 5.0


def entry(
    *, omit: Omission | None = None, reclaim_seconds: float = 1.0, adoption_seconds: float = 3.0
) -> tuple[str, ...]:
    """What `PodProcesses.entry` must be for such a server."""
    words = ["-m", MODULE, "--reclaim-seconds", str(reclaim_seconds), "--adoption-seconds", str(adoption_seconds)]
    return (*words, "--omit", omit.value) if omit is not None else tuple(words)


def main() -> None:
    parser = argparse.ArgumentParser(prog="altered_server")
    parser.add_argument("--omit", action="append", default=[], choices=[step.value for step in Omission])
    parser.add_argument("--reclaim-seconds", type=float)
    parser.add_argument("--adoption-seconds", type=float)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    for step in options.omit:
        _omit(Omission(step))
    if options.reclaim_seconds is not None:
        _reclaim_after(options.reclaim_seconds)
        give_up_nameless_files_soon()
    if options.adoption_seconds is not None:
        defaults = functools.partial(storage_pod.PodSettings, adoption_delay_seconds=options.adoption_seconds)
        server.PodSettings = defaults  # type: ignore[misc, assignment]
    sys.exit(server.run(options.command, os.environ))


def give_up_nameless_files_soon() -> None:
    """After ORPHAN_AGE_SECONDS instead of an hour."""
    hasty = functools.partial(HealSettings, orphan_age_seconds=ORPHAN_AGE_SECONDS)
    lifecycle.HealSettings = hasty  # type: ignore[misc, assignment]


def _omit(step: Omission) -> None:
    where, name, replacement = _REPLACED[step]
    setattr(where, name, replacement)


def _nothing(*_: Any) -> None:
    return


def _replace_carelessly(path: Path, data: bytes) -> None:
    temporary = path.with_name(path.name + ".new")
    temporary.write_bytes(data)
    temporary.replace(path)


_REPLACED: dict[Omission, tuple[object, str, object]] = {
    Omission.LOG_FLUSH: (Engine, "flush", _nothing),
    Omission.SHARD_SYNC: (os, "fdatasync", _nothing),
    Omission.STAGING_SYNC: (durable_files.FolderSync, "sync", _nothing),
    Omission.IDENTITY_SYNC: (identity, "replace_file", _replace_carelessly),
    Omission.FORMAT_SYNC: (folder_layout, "fsync_folder", _nothing),
}


def _reclaim_after(seconds: float) -> None:
    opened = LocalDrive.open.__func__  # type: ignore[attr-defined]

    async def open_(
        cls: type[LocalDrive], path: Path, slot: Slot, clock: Clock, settings: DriveSettings | None = None
    ) -> LocalDrive:
        hasty = dataclasses.replace(
            settings or DriveSettings(), reclaim_delay_seconds=seconds, reap_interval_seconds=REAP_INTERVAL_SECONDS
        )
        drive: LocalDrive = await opened(cls, path, slot, clock, hasty)
        return drive

    LocalDrive.open = classmethod(open_)  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    main()
