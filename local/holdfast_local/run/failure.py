"""The one error that ends a command: a message for people and an exit code."""

from __future__ import annotations

EXIT_FAILURE = 1


class RunFailed(Exception):
    """Printed without a traceback; the process ends with `exit_code` after everything was stopped."""

    def __init__(self, message: str, exit_code: int = EXIT_FAILURE) -> None:
        super().__init__(message)
        self.exit_code = exit_code
