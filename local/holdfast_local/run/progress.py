"""What a person sees while things start: a line per step, with elapsed time.

On a terminal the current step is one line that changes in place; elsewhere (pipes, CI) every change is a plain
line of its own, so that nothing is lost and nothing flickers.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TextIO

SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
TICK_SECONDS = 0.1
PLAIN_LINE_SECONDS = 1.0
"""Shortest time between two plain lines of one step: a crashing pod changes its message all the time."""
DETAIL_LIMIT = 180
GREEN, RED, DIM, BOLD, RESET = "\x1b[32m", "\x1b[31m", "\x1b[2m", "\x1b[1m", "\x1b[0m"


class Progress:
    """Steps on one stream."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._fancy = stream.isatty()
        self._unicode = (stream.encoding or "").lower().replace("-", "") == "utf8"
        self._title = ""
        self._detail = ""
        self._began = 0.0
        self._frame = 0
        self._printed = ""
        self._printed_at = 0.0

    def line(self, text: str = "") -> None:
        """A line of its own, above the current step."""
        self._clear()
        self._write(self._encodable(text) + "\n")
        self._draw()

    def heading(self, text: str) -> None:
        self.line(f"{BOLD}{text}{RESET}" if self._fancy else text)

    def detail(self, text: str) -> None:
        """What the current step is doing now; printed where it cannot be shown in place."""
        self._detail = text if len(text) <= DETAIL_LIMIT else text[: DETAIL_LIMIT - 1] + "…"
        now = time.monotonic()
        if not self._fancy and self._detail != self._printed and now - self._printed_at >= PLAIN_LINE_SECONDS:
            self._printed, self._printed_at = self._detail, now
            self._write(self._encodable(f"  [{self._elapsed()}] {self._detail}\n"))
        self._draw()

    @asynccontextmanager
    async def step(self, title: str) -> AsyncIterator[None]:
        """A step: shown while it lasts, ticked off or crossed out at its end."""
        self._title, self._detail, self._began = title, "", time.monotonic()
        self._printed, self._printed_at = "", 0.0
        if not self._fancy:
            self._write(self._encodable(f"{title} …\n"))
        ticking = asyncio.create_task(self._tick()) if self._fancy else None
        try:
            yield
        except asyncio.CancelledError:
            self._finish("·", DIM)
            raise
        except BaseException:
            self._finish("✗", RED)
            raise
        else:
            self._finish("✓", GREEN)
        finally:
            if ticking is not None:
                ticking.cancel()

    def _finish(self, mark: str, colour: str) -> None:
        title, elapsed, detail = self._title, self._elapsed(), self._detail
        self._clear()
        self._title = ""
        tail = f" · {detail}" if detail else ""
        if self._fancy:
            self._write(self._encodable(f"{colour}{mark}{RESET} {title} {DIM}{elapsed}{tail}{RESET}\n"))
        elif mark == "✓":
            self._write(self._encodable(f"{mark} {title} ({elapsed}){tail}\n"))
        else:
            what = "failed" if mark == "✗" else "not finished"
            self._write(self._encodable(f"{mark} {title}: {what} ({elapsed})\n"))

    async def _tick(self) -> None:
        while True:
            self._frame += 1
            self._draw()
            await asyncio.sleep(TICK_SECONDS)

    def _draw(self) -> None:
        if not (self._fancy and self._title):
            return
        spinner = SPINNER[self._frame % len(SPINNER)]
        text = f"{spinner} {self._title}  {self._elapsed()}  {self._detail}"
        width = shutil.get_terminal_size().columns - 1
        self._write("\r\x1b[K" + self._encodable(text[:width]))

    def _clear(self) -> None:
        if self._fancy and self._title:
            self._write("\r\x1b[K")

    def _elapsed(self) -> str:
        return f"{time.monotonic() - self._began:.1f} s"

    def _encodable(self, text: str) -> str:
        if self._unicode:
            return text
        for fancy, plain in (("✓", "ok"), ("✗", "FAILED"), ("…", "..."), ("·", "-"), ("→", "->")):
            text = text.replace(fancy, plain)
        return text.encode("ascii", "replace").decode()

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            pass  # nobody watches any more (closed pipe or terminal); the cluster goes on
