"""The audit log as the rest of the pod knows it: `active`, `offer`, and a configuration that may change at any time.

Switched off it costs a request one look at `active`.  Switched on it costs the making of a line and an append per
outlet; everything else happens in the task `run`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from holdfast_server.audit.file_sink import FileSink
from holdfast_server.audit.outlet import FLUSH_SECONDS, Outlet, OutletCounts, Sink
from holdfast_server.audit.stdout_sink import StdoutSink
from holdfast_server.contract.config import AuditConfig, AuditFile, AuditWebhook

SINKS = ("stdout", "file", "webhook")
"""Every name a sink may have: what metrics show."""

Part = bool | AuditFile | AuditWebhook
MakeSink = Callable[[Part], Sink]


def sink_maker(locate: Callable[[str], Path]) -> MakeSink:
    """Sinks as configured; `locate` turns a configured path into one of this machine."""

    def make(part: Part) -> Sink:
        if isinstance(part, AuditFile):
            return FileSink(locate(part.path), part.max_size_bytes, part.keep)
        if isinstance(part, AuditWebhook):
            # Here, because its HTTP client takes longer to import than all the rest, and few pods want it.
            from holdfast_server.audit.webhook_sink import WebhookSink

            return WebhookSink(part.url, locate(part.token_file) if part.token_file else None)
        return StdoutSink()

    return make


class AuditLog:
    """See the module."""

    def __init__(self, make_sink: MakeSink | None = None) -> None:
        self._make_sink = make_sink or sink_maker(Path)
        self._parts: dict[str, Part] = {}
        self._outlets: dict[str, Outlet] = {}
        self._unended: set[Outlet] = set()
        """All that `run` has to run: the present ones, and those that were retired a moment ago."""
        self._counts = {name: OutletCounts(name) for name in SINKS}
        self._changed = asyncio.Event()
        self._closing = False
        self.active = False
        """Whether lines are wanted at all."""

    def offer(self, line: bytes) -> None:
        """Queue a line for every outlet; never waits, never fails."""
        for outlet in self._outlets.values():
            outlet.offer(line)

    def configure(self, config: AuditConfig | None) -> None:
        """Outlets whose part has changed are made anew; those that go hand on what they have."""
        parts: dict[str, Part] = {}
        if config is not None and not self._closing:
            wanted = {"stdout": config.stdout, "file": config.file, "webhook": config.webhook}
            parts = {name: part for name, part in wanted.items() if part}
        for name in [name for name in self._outlets if parts.get(name) != self._parts[name]]:
            self._outlets.pop(name).retire()
        for name in parts.keys() - self._outlets.keys():
            # The sink itself is made when `run` starts it: a thread or a session must not come of a configuration.
            outlet = Outlet(_Deferred(name, parts[name], self._make_sink), self._counts[name])
            self._outlets[name] = outlet
            self._unended.add(outlet)
        self._parts = parts
        self.active = bool(parts)
        self._changed.set()

    async def run(self) -> None:
        """Until cancelled."""
        started: set[Outlet] = set()
        async with asyncio.TaskGroup() as group:
            while True:
                self._changed.clear()
                # A retired one has run to its end; one that was retired before it began has yet to hand on its lines.
                self._unended = {
                    outlet for outlet in self._unended if outlet not in started or not outlet.ended.is_set()
                }
                for outlet in self._unended - started:
                    started.add(outlet)
                    group.create_task(outlet.run())
                started &= self._unended
                await self._changed.wait()

    async def close(self) -> None:
        """Take no more, and give what waits a moment to get away; while `run` still runs."""
        self._closing = True
        self.configure(None)
        try:
            async with asyncio.timeout(2 * FLUSH_SECONDS):
                for outlet in list(self._unended):
                    await outlet.ended.wait()
        except TimeoutError:
            return

    def counts(self) -> list[OutletCounts]:
        """Of every kind of sink, also of those that are not configured."""
        return list(self._counts.values())


class _Deferred:
    """Makes its sink with the first batch."""

    def __init__(self, name: str, part: Part, make_sink: MakeSink) -> None:
        self.name = name
        self._part, self._make_sink = part, make_sink
        self._sink: Sink | None = None

    async def deliver(self, lines: Sequence[bytes]) -> None:
        if self._sink is None:
            self._sink = self._make_sink(self._part)
        await self._sink.deliver(lines)

    async def close(self) -> None:
        sink, self._sink = self._sink, None
        if sink is not None:
            await sink.close()
