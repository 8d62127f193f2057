"""Trees of files for round trips: names that clients get wrong, sizes around every boundary, and their digests."""

from __future__ import annotations

import hashlib
import random
import shutil
from pathlib import Path

ODD_NAMES = (
    "plain.txt",
    "with space.txt",
    "colon:and=equals.bin",
    "plus+and%percent%2B.bin",
    "umlaut-äöü-漢字-🙂.bin",
    "quote'and(paren)[x]!.bin",
    "amp&semi;comma,at@dollar$.bin",
    "tilde~hash#question?.bin",
    "dir with space/inner=1/file:2.bin",
)
LARGE_FILE_BYTES = 210 << 20
BOUNDARY_SIZES_BYTES = (0, 1, 4095, 65_535, 65_536, 65_537, 1_048_575, 1_048_576, 1_048_577, 2_500_000)


def long_name(prefix_size_bytes: int, total_size_bytes: int = 1024) -> str:
    """A relative path that makes the whole key exactly that long, in folders a file system can hold."""
    left = total_size_bytes - prefix_size_bytes
    parts = []
    while left > 201:
        parts.append("d" * 200)
        left -= 201
    return "/".join([*parts, "f" * left])


def make_tree(directory: Path, files: int, total_size_bytes: int, seed: int, large: int = 1) -> None:
    """`files` files or somewhat more, of about that size together; `large` of them share half of it."""
    chance = random.Random(seed)
    wanted: list[tuple[str, int]] = [(name, 1000 + 13 * index) for index, name in enumerate(ODD_NAMES)]
    wanted += [(f"sizes/{size}.bin", size) for size in BOUNDARY_SIZES_BYTES]
    wanted += [(f"large/{index}.bin", total_size_bytes // 2 // large) for index in range(large)]
    rest = max(files - len(wanted), 0)
    mean = max(1, (total_size_bytes // 2 - sum(BOUNDARY_SIZES_BYTES)) // max(rest, 1))
    for index in range(rest):
        size = int(chance.expovariate(1 / mean))
        wanted.append((f"tree/{index % 17:02d}/{index % 5}/file-{index:05d}.dat", size))
    for name, size in wanted:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            while size > 0:
                file.write(chance.randbytes(min(size, 1 << 20)))
                size -= 1 << 20


def copy_system_tree(directory: Path, files: int, total_size_bytes: int, large: int = 3) -> None:
    """Files of this machine's shared data and libraries, under their own names, until there are enough; some
    large ones make up what is missing in size.  Links are not followed."""
    copied = size = 0
    for source in (Path("/usr/share"), Path("/usr/lib")):
        for path in sorted(source.rglob("*")):
            if copied >= files or path.is_symlink() or not path.is_file():
                continue
            to = directory / path.relative_to("/")
            to.parent.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copyfile(path, to)
            except OSError:
                continue
            copied += 1
            size += to.stat().st_size
    chance = random.Random(files)
    for index in range(large):
        with (directory / f"large-{index}.bin").open("wb") as file:
            for _ in range(max(total_size_bytes - size, large * LARGE_FILE_BYTES) // large >> 20):
                file.write(chance.randbytes(1 << 20))


def digest_tree(directory: Path) -> dict[str, str]:
    """sha256 of every file by its path relative to the directory."""
    return {str(path.relative_to(directory)): _sha256(path) for path in sorted(directory.rglob("*")) if path.is_file()}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
