"""Being asked to end: signals, and Ctrl-C under `make`.

`make` and its child are one foreground process group, so Ctrl-C reaches both, and make then ends with an error
however cleanly the child stopped.  Therefore the command makes itself the terminal's foreground group: Ctrl-C
is its alone, and make reports what it returns.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Iterator


class StopRequest:
    """Set by SIGINT, SIGTERM or SIGHUP; a second signal asks to hurry."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.hurry = asyncio.Event()

    def listen(self) -> None:
        """Handle the signals of this process from now on."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self.signalled)

    def signalled(self) -> None:
        if self.stop.is_set():
            self.hurry.set()
        self.stop.set()


@contextlib.contextmanager
def own_foreground_group() -> Iterator[None]:
    """Take the terminal's foreground for this process alone, and give it back; nothing without a terminal."""
    previous_group = os.getpgrp()
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        yield
        return
    try:
        mine = previous_group == os.getpid()  # a shell has already made us a group of our own
        if mine or os.tcgetpgrp(terminal) != previous_group:
            yield
            return
        os.setpgid(0, 0)
        _give_foreground(terminal, os.getpgrp())
        # Suspending would freeze the API server under running pods, and leave make waiting for ever.
        suspend = signal.signal(signal.SIGTSTP, signal.SIG_IGN)
        try:
            yield
        finally:
            signal.signal(signal.SIGTSTP, suspend)
            _give_foreground(terminal, previous_group)
    finally:
        os.close(terminal)


def _give_foreground(terminal: int, group: int) -> None:
    ignored = signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # else a background process is stopped by trying
    try:
        os.tcsetpgrp(terminal, group)
    except OSError as error:
        print(f"warning: cannot take the terminal: {error.strerror}", file=sys.stderr)
    finally:
        signal.signal(signal.SIGTTOU, ignored)
