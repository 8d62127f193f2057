"""Something done over and over in a thread of its own, while a test does something else; what fails is kept.

Not here: what it is that is done.
"""

from __future__ import annotations

import abc
import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Repeating(abc.ABC):
    """One step after the other; a failure ends its step and not the rest."""

    def __init__(self) -> None:
        self.failures: list[str] = []
        self._stopped = threading.Event()

    @abc.abstractmethod
    def step(self, number: int) -> None:
        """Raises whatever tells that something is wrong."""

    @contextmanager
    def running(self) -> Iterator[None]:
        """While the block runs; once, as it is stopped for good at its end."""
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            thread.join()

    def _run(self) -> None:
        for number in itertools.count():
            if self._stopped.is_set():
                return
            try:
                self.step(number)
            except Exception as error:
                self.failures.append(f"step {number}: {error!r}")
