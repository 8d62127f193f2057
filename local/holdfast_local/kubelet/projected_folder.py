"""Folders whose files come from Secrets and ConfigMaps, replaced as a whole when those change.

The layout is the real kubelet's: the files live in a dated folder, `..data` is a link to it, and every name
is a link through `..data`.  A change writes a new dated folder and renames a fresh `..data` over the old one,
so that a reader sees all old or all new files.  Readers must open through the links, not keep folders open.
"""

from __future__ import annotations

import datetime
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

DATA_LINK = "..data"
FRESH_LINK = "..data_tmp"


def write_folder(folder: Path, files: Mapping[str, bytes], mode: int = 0o644) -> bool:
    """Make `folder` show exactly `files` (relative path → content); False if it already did."""
    folder.mkdir(parents=True, exist_ok=True)
    previous = _target(folder)
    if previous is not None and _content(previous) == dict(files):
        return False
    dated = folder / datetime.datetime.now(datetime.UTC).strftime("..%Y_%m_%d_%H_%M_%S.%f")
    dated.mkdir()
    for name, content in files.items():
        path = dated / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(mode)
    fresh = folder / FRESH_LINK
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(dated.name)
    fresh.rename(folder / DATA_LINK)
    _link_names(folder, {Path(name).parts[0] for name in files})
    if previous is not None:
        shutil.rmtree(previous, ignore_errors=True)
    return True


def _target(folder: Path) -> Path | None:
    link = folder / DATA_LINK
    return folder / os.readlink(link) if link.is_symlink() else None


def _content(dated: Path) -> dict[str, bytes]:
    return {str(path.relative_to(dated)): path.read_bytes() for path in dated.rglob("*") if path.is_file()}


def _link_names(folder: Path, names: set[str]) -> None:
    for name in names:
        link = folder / name
        if not link.is_symlink():
            link.symlink_to(f"{DATA_LINK}/{name}")
    for entry in folder.iterdir():
        if entry.is_symlink() and not entry.name.startswith("..") and entry.name not in names:
            entry.unlink()
