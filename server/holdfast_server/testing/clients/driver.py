"""A client in a process of its own, told what to do by lines of JSON.

A request is `{"do": "put", "bucket": …, "key": …, "path": …}`, an answer `{"value": …}`, `{"error": …}`, or
`{"absent": true}` for what the client does not offer.  Bodies pass through files.  So clients of any language, and of
libraries that do not go together, are driven alike.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

CALL_TIMEOUT_SECONDS = 180.0
END_TIMEOUT_SECONDS = 20.0


class NotOffered(Exception):
    """The client has no such operation."""


class ClientFailed(Exception):
    """The client says that it did not work, or says nothing."""


class Driver:
    """One running program."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        self._log = log
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
                env={**inherited, **environment},
            )  # fmt: skip

    def call(self, do: str, **arguments: str | int) -> object:
        """What the client answers.  Raises NotOffered, ClientFailed."""
        requests, answers = self._pipes()
        watchdog = threading.Timer(CALL_TIMEOUT_SECONDS, self._process.kill)
        watchdog.start()
        try:
            requests.write(json.dumps({"do": do, **arguments}) + "\n")
            requests.flush()
            line = answers.readline()
        except OSError as error:
            raise ClientFailed(f"{do}: {error}\n{self._tail()}") from error
        finally:
            watchdog.cancel()
        if not line:
            raise ClientFailed(f"{do}: the client has ended\n{self._tail()}")
        answer = json.loads(line)
        if answer.get("absent"):
            raise NotOffered(do)
        if "error" in answer:
            raise ClientFailed(f"{do}: {answer['error']}")
        return answer.get("value")

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        requests, answers = self._process.stdin, self._process.stdout
        assert requests is not None
        assert answers is not None
        return requests, answers

    def _tail(self) -> str:
        return self._log.read_text(errors="replace")[-2000:]

    def end(self) -> None:
        """Its input ends, and so does it."""
        requests, answers = self._pipes()
        try:
            requests.close()
        except OSError:
            pass  # it has ended before
        try:
            self._process.wait(END_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        answers.close()
