"""restic, which keeps a repository: what is put is backed up, checked with every byte read, and restored.

Its objects are packs of many files; so keys of others, ranges, copies and links are not asked of it.
"""

import json
import os
import tempfile
from pathlib import Path

from driver import ENDPOINT, read, run, serve, write

MIB = 1 << 20


class Client:
    def __init__(self) -> None:
        self.cache = tempfile.mkdtemp(prefix="restic-")

    def _restic(self, bucket: str, *arguments: str, folder: str | None = None) -> bytes:
        environment = {
            **os.environ,
            "RESTIC_REPOSITORY": f"s3:{ENDPOINT}/{bucket}",
            "RESTIC_PASSWORD": "password",
            "RESTIC_CACHE_DIR": self.cache,
        }
        return run("restic", "--quiet", *arguments, env=environment, cwd=folder)

    def version(self) -> str:
        return run("restic", "version").decode().split()[1]

    def back_up_and_restore(self, bucket: str, path: str, to: str) -> None:
        self._restic(bucket, "init")
        with tempfile.TemporaryDirectory() as folder:
            write(f"{folder}/file", read(path))
            Path(folder, "link").symlink_to("file")
            self._restic(bucket, "backup", ".", folder=folder)
            write(f"{folder}/file", read(path) + b"changed")
            self._restic(bucket, "backup", ".", folder=folder)
        self._restic(bucket, "check", "--read-data")
        for snapshot, body in (("latest", read(path) + b"changed"), (self._first(bucket), read(path))):
            with tempfile.TemporaryDirectory() as folder:
                self._restic(bucket, "restore", snapshot, "--target", folder)
                if read(f"{folder}/file") != body or os.readlink(f"{folder}/link") != "file":
                    raise RuntimeError(f"snapshot {snapshot} came back otherwise")
                write(to, read(f"{folder}/file"))
        self._restic(bucket, "forget", "--keep-last", "1", "--prune")
        self._restic(bucket, "check", "--read-data")

    def _first(self, bucket: str) -> str:
        found = json.loads(self._restic(bucket, "snapshots", "--json"))
        return min(found, key=lambda snapshot: snapshot["time"])["id"]


serve(Client())
