"""The SQLite file behind the store: every object, and the revision counter, survive a restart.

Durability: WAL mode with `synchronous=NORMAL`. A write is in the operating system's hands before it is answered, so
it survives `kill -9` of this process; a power cut may take the last moments, never the file's integrity. That is the
right price for a stand-in cluster: an fsync per event would stall the event loop, and what a tenant stores is not in
here. The file holds Secrets in clear, so it is created with mode 0600 in a folder with mode 0700.
"""

import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from holdfast_local.apiserver.resources import Object, StorageKey

FORMAT_VERSION = 1

_TABLES = """
CREATE TABLE IF NOT EXISTS objects (
    api_group TEXT NOT NULL, plural TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
    body TEXT NOT NULL, PRIMARY KEY (api_group, plural, namespace, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""


class DatabaseError(Exception):
    """The state file cannot be used; the message says what to do."""


class Database:
    """Synchronous on purpose: one write costs tens of microseconds and no fsync."""

    def __init__(self, path: Path) -> None:
        """Raises DatabaseError when the file is in use, damaged, or of another format."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # SQLite gives its -wal and -shm files the mode of the main file, so this mode covers all three.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        os.chmod(path, 0o600)
        self._connection = sqlite3.connect(path, isolation_level=None, timeout=0.0, check_same_thread=False)
        try:
            self._connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.executescript(_TABLES)
            found = self.counter("format_version")
            if found == 0:
                self._set_counter("format_version", FORMAT_VERSION)
        except sqlite3.Error as error:
            self._connection.close()
            raise DatabaseError(f"{path}: {error}; is another stand-in cluster using it?") from error
        if found not in (0, FORMAT_VERSION):
            self._connection.close()
            raise DatabaseError(f"{path}: written by another version (format {found}); remove it to start anew")

    def counter(self, name: str) -> int:
        row = self._connection.execute("SELECT value FROM counters WHERE name = ?", (name,)).fetchone()
        return int(row[0]) if row else 0

    def _set_counter(self, name: str, value: int) -> None:
        self._connection.execute("INSERT OR REPLACE INTO counters VALUES (?, ?)", (name, value))

    def objects(self) -> Iterator[tuple[StorageKey, Object]]:
        """Everything stored, oldest revision first within a kind is not promised."""
        for group, plural, body in self._connection.execute("SELECT api_group, plural, body FROM objects"):
            yield (group, plural), json.loads(body)

    def write(self, key: StorageKey, namespace: str, name: str, obj: Object | None, revision: int) -> None:
        """Stores (None: removes) one object together with the revision; atomic. Raises OSError on a full disk."""
        try:
            self._connection.execute("BEGIN")
            if obj is None:
                statement = "DELETE FROM objects WHERE api_group=? AND plural=? AND namespace=? AND name=?"
                self._connection.execute(statement, (*key, namespace, name))
            else:
                body = json.dumps(obj, separators=(",", ":"))
                statement = "INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?)"
                self._connection.execute(statement, (*key, namespace, name, body))
            self._set_counter("revision", revision)
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise OSError(f"cannot store {'/'.join(key)} {namespace}/{name}: {error}") from error

    def close(self) -> None:
        self._connection.close()
